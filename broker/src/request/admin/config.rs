//! The configuration: codes 25 and 26, whose bodies are Apache's properties.

use weirmq_remoting::ResponseCode;
use weirmq_remoting::command::{Command, response};

use crate::config::{Flush, ReplicationMode};
use crate::configuration::{FIXED, RequestError};
use crate::live::{self, LIVE};
use crate::request::{Context, Refusal};

/// Code 26: what is in effect, under Apache's names as far as there are any, the settings that code 25
/// may change last.
pub(in crate::request) fn show(
    context: &Context<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let config = context.broker.config();
    let flush = match config.store.flush {
        Flush::Async => "ASYNC_FLUSH",
        Flush::Sync => "SYNC_FLUSH",
    };
    let broker_id = context.broker.registration_id().unwrap_or(config.broker_id as i64);
    let role = match (broker_id, config.replication.mode) {
        (0, ReplicationMode::Async) => "ASYNC_MASTER",
        (0, ReplicationMode::Sync) => "SYNC_MASTER",
        _ => "SLAVE",
    };
    let fixed = FIXED.iter().zip([
        config.cluster.clone(),
        config.name.clone(),
        broker_id.to_string(),
        role.into(),
        flush.into(),
        config.store.segment_bytes.to_string(),
        config.limits.message_bytes_max.to_string(),
        config.limits.idle_seconds.to_string(),
        context.broker.main_port.to_string(),
    ]);
    let mut text: String = fixed.map(|(key, value)| format!("{key}={value}\n")).collect();
    let tree = live::value(&config);
    for live in LIVE {
        let value = live::at(&tree, live.path).map(live::show).unwrap_or_default();
        text.push_str(&format!("{}={value}\n", live.shown_name()));
    }
    let mut writer = response(out, &request.head, ResponseCode::Success, None);
    writer.text("version", "0".into());
    writer.finish(text.as_bytes());
    Ok(())
}

/// Code 25: changes settings, all that are named or none, and keeps them. It waits for the disk, so not
/// on the I/O thread. Apache's broker answers success also where it changes nothing, as for an unknown
/// key (`Configuration.update`); here that is an error.
pub(in crate::request) fn change(
    context: &Context<'_>,
    request: &Command<'_>,
) -> Result<(), Refusal> {
    let text = std::str::from_utf8(request.body).map(str::to_owned);
    let text = text.map_err(|error| {
        Refusal::new(ResponseCode::InvalidParameter, format!("the body is no text: {error}"))
    })?;
    let (head, asker, broker) = (request.head, context.connection.clone(), context.broker.clone());
    context.broker.runtime.spawn_blocking(move || {
        let peer = asker.peer();
        let (code, remark) = match broker.configuration.request(&broker.store, &pairs(&text)) {
            Ok(changes) => {
                let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
                (ResponseCode::Success, changes.join(", "))
            }
            Err(error) => {
                let code = match &error {
                    RequestError::Wrong(_) | RequestError::Invalid(_) => {
                        ResponseCode::InvalidParameter
                    }
                    RequestError::NotKept(_) => ResponseCode::SystemError,
                };
                broker.metrics.refused(head.code, code);
                (code, error.to_string())
            }
        };
        tracing::info!(%peer, ?code, remark, "asked to change settings");
        if !head.is_one_way() {
            // An asker that is gone does not want the answer any more.
            let _ = asker.write(|out| response(out, &head, code, Some(&remark)).finish(b""));
        }
    });
    Ok(())
}

/// `key=value` lines as Apache's tools write them (`MixAll.properties2String`).
fn pairs(text: &str) -> Vec<(&str, &str)> {
    let lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pair = |line| {
        let (key, value) = str::split_once(line, '=').unwrap_or((line, ""));
        (key.trim(), value.trim())
    };
    lines.map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_read_line_by_line() {
        let text = "#made today\n\nfileReservedTime = 24\r\nnamesrvAddr=a:1;b:2\nx";
        let expected = [("fileReservedTime", "24"), ("namesrvAddr", "a:1;b:2"), ("x", "")];
        assert_eq!(pairs(text), expected);
    }
}
