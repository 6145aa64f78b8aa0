//! How a command ends: its exit code, and one line on stderr when something went wrong.

use std::fmt;
use std::io;
use std::process::ExitCode;

use weirmq_client::ClientError;
use weirmq_remoting::net::ConnectError;
use weirmq_store::StoreError;

use crate::output::tell;

const USAGE: u8 = 2;
const TIMEOUT: u8 = 3;
const NOT_FOUND: u8 = 4;
const DAMAGE: u8 = 5;

/// A failure with an exit code of its own. Any other error ends with 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Exit code 2: the command line asks for something that cannot be.
    Usage(String),
    /// Exit code 3: the time was up before the messages were there.
    Timeout(String),
    /// Exit code 4: the topic, group, message or key does not exist.
    NotFound(String),
    /// Exit code 5: a store's directory is damaged.
    Damage(String),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => USAGE,
            Failure::Timeout(_) => TIMEOUT,
            Failure::NotFound(_) => NOT_FOUND,
            Failure::Damage(_) => DAMAGE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text)
            | Failure::Timeout(text)
            | Failure::NotFound(text)
            | Failure::Damage(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}

/// Prints what went wrong and chooses the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if is_closed_pipe(error) {
        // Whoever read our output has seen enough, as in `weir tail t | head`.
        return ExitCode::SUCCESS;
    }
    let client = error.chain().find_map(|cause| cause.downcast_ref::<ClientError>());
    match client.and_then(unreachable_hint) {
        Some(hint) => tell(format_args!("error: {}; {hint}", one_line(error))),
        None => tell(format_args!("error: {}", one_line(error))),
    }
    let failure = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
    ExitCode::from(match (failure, client) {
        (Some(failure), _) => failure.code(),
        (None, _) if is_damage(error) => DAMAGE,
        (None, _) if is_no_record(error) => NOT_FOUND,
        (None, Some(client)) if client.is_not_found() => NOT_FOUND,
        (None, Some(ClientError::Config(_))) => USAGE,
        (None, _) => 1,
    })
}

/// What to try when nobody answers at an address.
fn unreachable_hint(error: &ClientError) -> Option<String> {
    match error {
        ClientError::NameServers { last, .. } => match &**last {
            ClientError::Connect(ConnectError::Io { address, error })
                if error.kind() == io::ErrorKind::ConnectionRefused =>
            {
                Some(format!(
                    "nothing listens at {address}: start it with `weir`, or name another \
                     NameServer with --namesrv or NAMESRV_ADDR"
                ))
            }
            _ => Some("is that the right address, and is it reachable from here?".to_owned()),
        },
        ClientError::SendFailed { last, .. } => unreachable_hint(last),
        ClientError::Connect(
            ConnectError::Io { address, .. } | ConnectError::Timeout { address, .. },
        ) => Some(format!(
            "the broker tells clients that it is at {address}; if that cannot be reached from \
                 here, start it with --advertise"
        )),
        _ => None,
    }
}

fn is_damage(error: &anyhow::Error) -> bool {
    of_store(error).any(|cause| matches!(cause, StoreError::Damaged { .. }))
}

fn is_no_record(error: &anyhow::Error) -> bool {
    of_store(error).any(|cause| matches!(cause, StoreError::NoRecord { .. }))
}

fn of_store(error: &anyhow::Error) -> impl Iterator<Item = &StoreError> {
    error.chain().filter_map(|cause| cause.downcast_ref::<StoreError>())
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|io| io.kind() == io::ErrorKind::BrokenPipe)
}

/// The chain of causes, without those whose text the one above them already holds.
fn one_line(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn causes_follow_each_other_once() {
        let error = Err::<(), _>(anyhow::anyhow!("connection refused"));
        let error = error.context("connect to a:1: connection refused").context("list topics");
        let text = one_line(&error.unwrap_err());
        assert_eq!(text, "list topics: connect to a:1: connection refused");
    }
}
