//! Connecting to a server.

use std::time::Duration;

use tokio::net::TcpStream;

use super::{Connection, Limits, Session, run::run};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("connect to {address}: {error}")]
    Io { address: String, error: std::io::Error },
    #[error("connect to {address}: no answer within {timeout:?}")]
    Timeout { address: String, timeout: Duration },
}

/// Connects to `address` (`host:port`, looked up now) and serves the connection on a task of its
/// own. `session` answers the server's requests.
pub async fn connect<S: Session>(
    address: &str,
    timeout: Duration,
    limits: Limits,
    session: impl FnOnce(&Connection) -> S,
) -> Result<Connection, ConnectError> {
    let io_error = |error| ConnectError::Io { address: address.to_owned(), error };
    let stream = tokio::time::timeout(timeout, TcpStream::connect(address))
        .await
        .map_err(|_| ConnectError::Timeout { address: address.to_owned(), timeout })?
        .map_err(io_error)?;
    stream.set_nodelay(true).map_err(io_error)?;
    let connection = Connection::new(
        stream.peer_addr().map_err(io_error)?,
        stream.local_addr().map_err(io_error)?,
    );
    let session = session(&connection);
    let (mut reader, mut writer) = stream.into_split();
    let served = connection.clone();
    tokio::spawn(async move {
        run(&mut reader, &mut writer, served.clone(), session, limits).await;
        if served.is_aborted() {
            let stream: &TcpStream = reader.as_ref();
            let _ = stream.set_zero_linger();
            writer.forget();
        }
    });
    Ok(connection)
}
