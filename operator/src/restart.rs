//! Asks a broker's admin port: whether it may be restarted now, why it is not ready, and by which
//! configuration file it goes.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

use crate::pods::ADMIN_PORT;

const TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What a broker said of its restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Safe,
    /// And why not.
    NotNow(String),
    /// And why not.
    Unknown(String),
}

/// By which file a broker goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Configuration {
    /// It did not say.
    #[default]
    Unknown,
    /// It read its file at the start and does not look at it again: it is of a version before.
    AsStarted,
    /// The SHA-256 of what it goes by; `None`: no file. Why it does not go by a later one, and whether some of it
    /// counts at its next start only.
    File { sha256: Option<String>, error: Option<String>, needs_restart: bool },
}

#[derive(Deserialize)]
struct File {
    sha256: Option<String>,
    error: Option<String>,
    #[serde(default)]
    needs_restart: Vec<String>,
}

/// What the admin port answers.
#[derive(Deserialize)]
struct Said {
    safe: bool,
    #[serde(default)]
    reasons: Vec<String>,
}

/// Asks the admin port of the pod at this address.
pub(crate) async fn is_safe(address: &str) -> Answer {
    match tokio::time::timeout(TIMEOUT, ask(address)).await {
        Ok(Ok(Said { safe: true, .. })) => Answer::Safe,
        Ok(Ok(said)) => Answer::NotNow(said.reasons.join("; ")),
        Ok(Err(error)) => Answer::Unknown(error),
        Err(_) => Answer::Unknown("no answer".to_owned()),
    }
}

/// Why the broker at this address is not ready, as it says itself; `None` if it is or says nothing.
pub(crate) async fn why_not_ready(address: &str) -> Option<String> {
    let (_, asked) = tokio::time::timeout(TIMEOUT, get(address, "/readyz")).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&asked).trim().to_owned();
    text.strip_prefix("readyz check failed: ").map(str::to_owned)
}

/// By which file the broker at this address goes.
pub(crate) async fn configuration(address: &str) -> Configuration {
    match tokio::time::timeout(TIMEOUT, get(address, "/config")).await {
        Ok(Ok((StatusCode::NOT_FOUND, _))) => Configuration::AsStarted,
        Ok(Ok((_, body))) => match serde_json::from_slice(&body) {
            Ok(File { sha256, error, needs_restart }) => {
                Configuration::File { sha256, error, needs_restart: !needs_restart.is_empty() }
            }
            Err(_) => Configuration::Unknown,
        },
        Ok(Err(_)) | Err(_) => Configuration::Unknown,
    }
}

async fn ask(address: &str) -> Result<Said, String> {
    let (_, body) = get(address, "/safe-to-restart").await?;
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

async fn get(address: &str, path: &str) -> Result<(StatusCode, Bytes), String> {
    let address: IpAddr = address.parse().map_err(|_| format!("{address} is no address"))?;
    let text = |error: &dyn std::error::Error| error.to_string();
    let stream = TcpStream::connect((address, ADMIN_PORT)).await.map_err(|error| text(&error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| text(&error))?;
    let connection = tokio::spawn(connection);
    let request = http::Request::get(path)
        .header("Host", "broker")
        .body(Empty::<Bytes>::new())
        .map_err(|error| text(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| text(&error))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    connection.abort();
    Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
}
