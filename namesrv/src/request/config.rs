//! Code 319: the settings. Code 318 would change them, and there is none that may change.

use weirmq_remoting::command::Command;

use super::{Origin, write_success};

pub(super) fn get(origin: &Origin<'_>, request: &Command<'_>, out: &mut Vec<u8>) {
    write_success(&request.head, origin.server.config.to_properties().as_bytes(), out);
}
