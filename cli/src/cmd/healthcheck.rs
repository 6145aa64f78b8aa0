//! `weir healthcheck`: asks the servers of this machine how they are, for images without a shell.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::exit::Failure;

/// Far more than the admin port ever says about its checks.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// Ask the admin port of this machine how the servers are; exit code 0 if they are well
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  weir healthcheck\n  weir healthcheck live --admin-port 20908\n\n\
    Prints what the server says. Exit codes: 0 well; 1 not well, or no answer; 2 wrong usage;\n\
    3 no whole answer within the timeout."
)]
pub(crate) struct HealthcheckArgs {
    /// What to ask for: whether it serves, whether only a restart helps, or whether it has started
    #[arg(value_enum, default_value = "ready")]
    probe: Probe,
    /// The port that the servers were given with --admin-port
    #[arg(long, value_name = "PORT", default_value_t = 10908, env = "WEIRMQ_ADMIN_PORT")]
    #[arg(hide_env = true, value_parser = clap::value_parser!(u16).range(1..))]
    admin_port: u16,
    /// Longest time for the answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 2_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Probe {
    Ready,
    Live,
    Startup,
}

impl Probe {
    fn path(self) -> &'static str {
        match self {
            Self::Ready => "/readyz",
            Self::Live => "/livez",
            Self::Startup => "/startupz",
        }
    }
}

pub(crate) async fn run(args: HealthcheckArgs) -> anyhow::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.admin_port));
    let limit = Duration::from_millis(args.timeout_ms);
    let path = args.probe.path();
    let answer = tokio::time::timeout(limit, ask(address, path)).await.map_err(|_| {
        Failure::Timeout(format!("no answer from {address}{path} within {} ms", args.timeout_ms))
    })??;
    let (code, body) =
        parse(&answer).with_context(|| format!("{address} is not the admin port of a weir"))?;
    match code {
        200 => println!("{body}"),
        503 => bail!("{body}"),
        _ => bail!("{address}{path} answers {code}: {body}"),
    }
    Ok(())
}

/// The whole answer, head and body, up to a limit. HTTP/1.0, so that it ends with the connection
/// and comes in one piece.
async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await.with_context(|| {
        format!(
            "connect to the admin port {address}; is a weir running here with that --admin-port?"
        )
    })?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.with_context(|| format!("ask {address}"))?;
    let mut answer = Vec::new();
    let mut limited = stream.take(ANSWER_BYTES_MAX);
    limited.read_to_end(&mut answer).await.with_context(|| format!("read from {address}"))?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Status code and body of an answer of HTTP/1.x.
fn parse(answer: &str) -> anyhow::Result<(u16, &str)> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no head")?;
    let line = head.lines().next().unwrap_or_default();
    let code = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .context("the answer is not HTTP")?;
    Ok((code, body.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn only_a_whole_head_of_http_is_taken() {
        let answer = "HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\nno\n";
        assert_eq!(parse(answer).unwrap(), (503, "no"));
        for cut in 0..answer.len() - 3 {
            assert!(parse(&answer[..cut]).is_err(), "{cut}");
        }
        assert!(parse("SSH-2.0-x\r\n\r\n").is_err());
        assert!(parse("HTTP/1.1 x\r\n\r\n").is_err());
    }

    /// What comes of a server that gives one request `answer`.
    async fn outcome(answer: &str) -> anyhow::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin_port = listener.local_addr().unwrap().port();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /livez HTTP/1.0\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let asked = run(HealthcheckArgs { probe: Probe::Live, admin_port, timeout_ms: 30_000 });
        tokio::join!(server, asked).1
    }

    #[tokio::test]
    async fn well_is_ok_and_anything_else_says_why() {
        outcome("HTTP/1.0 200 OK\r\n\r\nlivez check passed\n").await.unwrap();
        let text = "HTTP/1.0 503 Service Unavailable\r\n\r\nlivez check failed: disk failing\n";
        let error = outcome(text).await.unwrap_err();
        assert_eq!(error.to_string(), "livez check failed: disk failing");
        let error = outcome("HTTP/1.0 404 Not Found\r\n\r\nwhat?\n").await;
        assert!(error.unwrap_err().to_string().ends_with("/livez answers 404: what?"));
        let error = outcome("hello\n").await.unwrap_err();
        assert!(error.to_string().ends_with("is not the admin port of a weir"));
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin_port = listener.local_addr().unwrap().port();
        let asked = run(HealthcheckArgs { probe: Probe::Ready, admin_port, timeout_ms: 50 });
        let error = asked.await.unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Failure::Timeout(_))), "{error}");
        drop(listener);
        let asked = run(HealthcheckArgs { probe: Probe::Ready, admin_port, timeout_ms: 30_000 });
        assert!(asked.await.unwrap_err().to_string().contains("is a weir running here"));
    }
}
