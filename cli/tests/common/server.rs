//! A server process: started, watched, killed.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// How long a start or a stop may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// `weir` without anything of this environment that it would read.
pub(crate) fn weir() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("WEIRMQ_") || ["NAMESRV_ADDR", "RUST_LOG"].contains(&&*text) {
            command.env_remove(&name);
        }
    }
    command
}

/// The arguments of a standalone server on ports of its own.
pub(crate) fn standalone(data: &Path, arguments: &[&str]) -> Command {
    let mut command = weir();
    command.args(["standalone", "--host", "127.0.0.1", "--log-level", "warn"]);
    command.args(["--namesrv-port", "0", "--broker-port", "0", "--admin-port", "0"]);
    command.arg("--data").arg(data).args(arguments).stdin(Stdio::null());
    command
}

/// A started process, ready or not. Killed when dropped.
pub(crate) struct Starting {
    child: Child,
    ready: Receiver<String>,
    readers: Vec<JoinHandle<()>>,
    errors: Option<JoinHandle<String>>,
}

/// A server that has printed its ready line. Killed when dropped.
pub(crate) struct Server {
    process: Starting,
    pub(crate) namesrv: String,
    pub(crate) broker: String,
    pub(crate) admin: String,
}

impl Starting {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let (line_sender, ready) = mpsc::channel();
        let lines = std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if line.starts_with("ready ") {
                    // Nobody listens once the process was killed.
                    let _ = line_sender.send(line);
                }
            }
        });
        let errors = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Self { child, ready, readers: vec![lines], errors: Some(errors) }
    }

    /// Waits until it serves.
    pub(crate) fn ready(mut self) -> Server {
        match self.ready.recv_timeout(PATIENCE) {
            Ok(line) => {
                let address = |role: &str| {
                    let mut parts = line.split(' ');
                    parts.find_map(|part| part.strip_prefix(role)).unwrap_or_default().to_owned()
                };
                let (namesrv, broker) = (address("namesrv="), address("broker="));
                let admin = address("admin=");
                Server { process: self, namesrv, broker, admin }
            }
            Err(RecvTimeoutError::Disconnected) => {
                let (status, errors) = self.end();
                panic!("ended with {status} before it was ready: {errors}");
            }
            Err(RecvTimeoutError::Timeout) => {
                let (_, errors) = self.kill();
                panic!("was not ready within {PATIENCE:?}: {errors}");
            }
        }
    }

    /// Ends it with SIGKILL. Answers whether it had been ready, and what it wrote to stderr.
    pub(crate) fn kill(&mut self) -> (bool, String) {
        // It may have ended by itself; that shows in what it wrote.
        let _ = self.child.kill();
        let (_, errors) = self.end();
        (self.ready.try_recv().is_ok(), errors)
    }

    /// Waits for the end of the process and of its output.
    fn end(&mut self) -> (ExitStatus, String) {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > PATIENCE {
                self.child.kill().unwrap();
                self.child.wait().unwrap();
                panic!("did not end within {PATIENCE:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        let errors = self.errors.take().map_or_else(String::new, |errors| errors.join().unwrap());
        assert!(!errors.contains("panicked"), "{errors}");
        (status, errors)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub(crate) fn start(data: &Path, arguments: &[&str]) -> Self {
        Starting::spawn(&mut standalone(data, arguments)).ready()
    }

    /// Ends it with SIGKILL. Answers what it wrote to stderr.
    pub(crate) fn kill(mut self) -> String {
        self.process.kill().1
    }

    /// Asks it to end with SIGTERM. Answers how it did, and what it wrote to stderr.
    pub(crate) fn terminate(mut self) -> (ExitStatus, String) {
        let pid = Pid::from_child(&self.process.child);
        kill_process(pid, Signal::TERM).unwrap();
        self.process.end()
    }

    /// Stops it as a debugger would, all its threads, or has it go on.
    pub(crate) fn pause(&self, is_paused: bool) {
        let pid = Pid::from_child(&self.process.child);
        if is_paused {
            kill_process(pid, Signal::STOP).unwrap();
            waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED).unwrap();
        } else {
            kill_process(pid, Signal::CONT).unwrap();
        }
    }

    /// The most memory that it has had resident, in bytes.
    pub(crate) fn peak_rss(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().unwrap();
        kib << 10
    }
}
