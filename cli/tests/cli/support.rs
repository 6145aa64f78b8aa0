//! Starts the real program and waits for what it prints, never for a time.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

#[path = "../common/skipped.rs"]
mod skipped;

pub(crate) use skipped::skipped;

/// The program under test, without anything of this environment that it would read.
pub(crate) fn weir() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("WEIRMQ_")
            || ["NAMESRV_ADDR", "RUST_LOG", "NO_COLOR"].contains(&&*name_text)
        {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs a command to its end; its output is in the answer.
pub(crate) fn run(arguments: &[&str]) -> Output {
    weir().args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// A running server. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// Everything that it printed before the ready line.
    pub(crate) banner: String,
    pub(crate) ready: String,
}

impl Server {
    /// Starts with these arguments and waits for the ready line.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = weir();
        command.args(arguments);
        Self::spawn(command)
    }

    /// Starts a command that becomes a server.
    pub(crate) fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut server = Self { child, stdout, banner: String::new(), ready: String::new() };
        loop {
            let mut line = String::new();
            if server.stdout.read_line(&mut line).unwrap() == 0 {
                let mut errors = String::new();
                server.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
                panic!("ended before it was ready: {errors}");
            }
            if line.starts_with("ready") {
                server.ready = line.trim_end().to_owned();
                return server;
            }
            server.banner += &line;
        }
    }

    /// A standalone server on ports of its own, with data that goes with it.
    pub(crate) fn ephemeral() -> Self {
        Self::start(&[
            "standalone",
            "--ephemeral",
            "--namesrv-port",
            "0",
            "--broker-port",
            "0",
            "--admin-port",
            "0",
            "--log-level",
            "warn",
        ])
    }

    /// A standalone server on ports of its own.
    pub(crate) fn with_data(data: &str) -> Self {
        Self::start(&[
            "standalone",
            "--data",
            data,
            "--namesrv-port",
            "0",
            "--broker-port",
            "0",
            "--admin-port",
            "0",
            "--log-level",
            "warn",
        ])
    }

    /// `namesrv`, `broker` or `admin`, as the ready line says.
    pub(crate) fn address(&self, role: &str) -> &str {
        let mut parts = self.ready.split(' ');
        parts.find_map(|part| part.strip_prefix(role)?.strip_prefix('=')).unwrap()
    }

    /// A command that talks to this server.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = weir();
        command.args(arguments).env("NAMESRV_ADDR", self.address("namesrv")).stdin(Stdio::null());
        command
    }

    /// Runs a command against this server; it has to succeed. Answers its stdout.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command against this server that ends with `code`. Answers its stderr.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        errors
    }

    /// Runs a command that reads `input`; it has to succeed.
    #[track_caller]
    pub(crate) fn ok_with_input(&self, arguments: &[&str], input: &str) -> String {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The status and body of an admin page.
    pub(crate) fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address("admin")).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name and waits for the end. Answers the exit code and the rest of
    /// stdout.
    pub(crate) fn signal(mut self, name: &str) -> (Option<i32>, String) {
        let killed =
            Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status();
        assert!(killed.unwrap().success());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
