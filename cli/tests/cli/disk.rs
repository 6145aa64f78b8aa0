//! Disks that fail or do not let us in: one clear message and an exit code that is not 0.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::support::{skipped, weir};

const ANY_PORTS: [&str; 6] = ["--namesrv-port", "0", "--broker-port", "0", "--admin-port", "0"];

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout == b"0\n"
}

/// Runs a program; what it printed is the error when it fails.
fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

/// A mounted file system, which goes with this.
struct Mounted<'a>(&'a str);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Err(why) = run("umount", &["-l", self.0]) {
            eprintln!("{} stays mounted: {why}", self.0);
        }
    }
}

fn error_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_failed_write_back_ends_the_process_with_its_cause() {
    if !is_root() {
        skipped("only root can mount a disk that fails");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (lower, upper) = (folder.path().join("lower"), folder.path().join("upper"));
    for path in [&lower, &upper] {
        std::fs::create_dir(path).unwrap();
    }
    let image = lower.join("image");
    let [lower, upper, image] = [&lower, &upper, &image].map(|path| path.to_str().unwrap());
    // The image promises more than the disk below it has, so its writes fail when that is full.
    let mounted = run("mount", &["-t", "tmpfs", "-o", "size=6m", "tmpfs", lower]);
    let _lower = Mounted(lower);
    let mounted = mounted
        .and_then(|()| run("truncate", &["-s", "256M", image]))
        .and_then(|()| run("mkfs.ext4", &["-q", "-O", "^has_journal", image]))
        .and_then(|()| run("mount", &["-o", "loop", image, upper]));
    if let Err(why) = mounted {
        skipped(format_args!("no disk that fails can be had here: {why}"));
        return;
    }
    let _upper = Mounted(upper);
    let config = folder.path().join("weir.toml");
    std::fs::write(&config, "[broker.store]\nsegment_bytes = 16777216\nfree_bytes_min = 1\n")
        .unwrap();
    let data = Path::new(upper).join("data");
    let mut server = weir();
    server.args(["standalone", "-c", config.to_str().unwrap(), "--flush", "sync"]);
    server.args(["--data", data.to_str().unwrap()]).args(ANY_PORTS);
    server.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = server.spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(server.stdout.take().unwrap()));
    let ready = lines.find_map(|line| line.ok().filter(|line| line.starts_with("ready")));
    if let Some(ready) = ready {
        let find = |part: &str| part.strip_prefix("namesrv=").map(str::to_owned);
        let namesrv = ready.split(' ').find_map(find).unwrap();
        let body = "x".repeat(100_000);
        for _ in 0..200 {
            let mut produce = weir();
            produce.args(["produce", "t", "-m", &body]).env("NAMESRV_ADDR", &namesrv);
            produce.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if !produce.status().unwrap().success() {
                break;
            }
        }
    }
    let ended = server.wait_with_output().unwrap();
    let error = error_of(&ended);
    assert_eq!(ended.status.code(), Some(1), "{error}");
    assert!(error.contains("the store stopped after a failed write-back: cannot sync"), "{error}");
}

#[test]
fn a_directory_of_somebody_else_is_named_with_what_to_do() {
    if !is_root() {
        skipped("only root can run a program as somebody else");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let open = ["-R", "a+rX", folder.path().to_str().unwrap()];
    run("chmod", &open).unwrap();
    // The program itself must be in reach of the other user.
    let program = folder.path().join("weir");
    std::fs::copy(env!("CARGO_BIN_EXE_weir"), &program).unwrap();
    let mut server = Command::new("setpriv");
    server.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    server.args(["broker", "-n", "127.0.0.1:9", "--data", data.to_str().unwrap()]);
    server.args(["--broker-port", "0", "--admin-port", "0"]);
    let output = match server.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(why) => {
            skipped(format_args!("setpriv: {why}"));
            return;
        }
    };
    let error = error_of(&output);
    if error.starts_with("setpriv:") {
        skipped(error.trim());
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("Permission denied"), "{error}");
    assert!(error.contains(data.to_str().unwrap()), "{error}");
    assert!(error.contains("give the directory and its files to the user"), "{error}");
}
