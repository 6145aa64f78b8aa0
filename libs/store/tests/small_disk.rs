//! Real file systems that are full or cannot be written. Apart from the other tests because they
//! start processes, which inherit the locks of stores that are open for the blink of an eye.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Message, append, read_all, skipped, small_config};
use weirmq_store::{FlushMode, RealDisk, Store, StoreConfig, StoreError, SystemClock};

fn messages(count: usize, bytes: usize) -> Vec<Message> {
    (0..count).map(|n| Message::new("t", 0, vec![n as u8 | 1; bytes])).collect()
}

fn real(directory: PathBuf) -> StoreConfig {
    StoreConfig { directory, ..small_config(FlushMode::ASYNC) }
}

fn open_real(config: &StoreConfig) -> Result<Store, StoreError> {
    let opened = Store::open(config.clone(), Arc::new(RealDisk), Arc::new(SystemClock));
    opened.map(|(store, _)| store)
}

/// Runs `test` on a file system of its own of so many bytes; says why when that cannot be had.
fn on_small_disk(options: &str, test: impl FnOnce(&Path)) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let run = |program: &str, arguments: &[&str]| {
        std::process::Command::new(program).args(arguments).arg(path).output()
    };
    match run("mount", &["-t", "tmpfs", "-o", options, "tmpfs"]) {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr);
            skipped(format_args!("no tmpfs can be mounted here: {}", why.trim()));
            return;
        }
        Err(why) => {
            skipped(format_args!("no tmpfs can be mounted here: {why}"));
            return;
        }
    }
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(path)));
    assert!(run("umount", &["-l"]).unwrap().status.success());
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_real_disk_that_is_full_refuses_writes_and_serves_readers() {
    on_small_disk("size=1m", |path| {
        let store = open_real(&real(path.join("store"))).unwrap();
        let mut stored = 0;
        let refused = loop {
            match append(&store, &messages(1, 8000)) {
                Ok(_) => stored += 1,
                Err(error) => break error.to_string(),
            }
            assert!(stored < 200);
        };
        let full = format!("the disk of {} is full: ", path.join("store").display());
        assert!(refused.starts_with(&full) && refused.contains(" of 1048576 bytes"), "{refused}");
        assert!(stored > 50, "{stored}");
        assert_eq!(read_all(&store, "t", 0, 0).len(), stored);
        // Derived files do not fit either; they are made again from the log.
        let _ = store.close();
        drop(store);
        let old = path.join("store/commitlog/00000000000000000000");
        assert!(old.exists());
        let run =
            std::process::Command::new("mount").args(["-o", "remount,size=4m"]).arg(path).status();
        assert!(run.unwrap().success());
        let store = open_real(&real(path.join("store"))).unwrap();
        assert_eq!(read_all(&store, "t", 0, 0).len(), stored);
        append(&store, &messages(1, 8000)).unwrap();
        store.close().unwrap();
    });
}

#[test]
fn a_disk_that_cannot_be_written_is_named_with_what_to_do() {
    on_small_disk("size=1m,ro", |path| {
        let refused = open_real(&real(path.join("store"))).err().unwrap().to_string();
        assert!(refused.contains("cannot create directory"), "{refused}");
        assert!(refused.ends_with("; mount the file system for writing"), "{refused}");
    });
}
