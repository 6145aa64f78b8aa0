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
    run("chmod", &["-R", "a+rX", folder.path().to_str().unwrap()]).unwrap();
    // The program itself must be in reach of the other user.
    let program = folder.path().join("weir");
    let own = env!("CARGO_BIN_EXE_weir");
    if std::fs::hard_link(own, &program).is_err() {
        std::fs::copy(own, &program).unwrap();
    }
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
        let output = command.args(arguments).stdin(Stdio::null()).output();
        let output = output.map_err(|why| format!("setpriv: {why}"))?;
        match error_of(&output) {
            error if error.starts_with("setpriv:") => Err(error),
            error => Ok((output.status.code(), error)),
        }
    };
    let text = data.to_str().unwrap();
    let broker = ["broker", "-n", "127.0.0.1:9", "--broker-port", "0", "--admin-port", "0"];
    let broker: Vec<&str> = broker.into_iter().chain(["--data", text]).collect();
    let (code, error) = match as_nobody(&broker) {
        Ok(ended) => ended,
        Err(why) => return skipped(why.trim()),
    };
    let refused = |path: &str| {
        format!(
            "{path}: it belongs to user 0 and this process runs as user 65534; give the data \
             directory and all in it to that user (chown -R 65534 {text}), or run as user 0"
        )
    };
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains(&refused(text)), "{error}");
    assert_eq!(error.matches("belongs to").count(), 1, "{error}");

    // Only a file in it, as after a start as root; and as nobody may look at it.
    let log = data.join("commitlog");
    std::fs::create_dir(&log).unwrap();
    run("chown", &["-R", "65534", text]).unwrap();
    let segment = log.join("00000000000000000000");
    std::fs::File::create(&segment).unwrap().set_len(1 << 20).unwrap();
    run("chmod", &["600", segment.to_str().unwrap()]).unwrap();
    let (code, error) = as_nobody(&broker).unwrap();
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains(&refused(segment.to_str().unwrap())), "{error}");
    run("chown", &["0", text]).unwrap();
    run("chmod", &["700", text]).unwrap();
    let (code, error) = as_nobody(&["store", "verify", text]).unwrap();
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains(&refused(text)), "{error}");
}
