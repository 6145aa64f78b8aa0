//! Headers in both forms, and the typed fields of every request that has some.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weirmq_remoting::command::{Command, SerializeType, request};
use weirmq_remoting::frame::{Frame, Split, split};
use weirmq_remoting::header::*;

fuzz_target!(|input: (bool, &[u8])| {
    let (is_binary, header) = input;
    let serialize = if is_binary { SerializeType::Binary } else { SerializeType::Json };
    let Ok(command) = Command::decode(&Frame { serialize, header, body: b"" }) else {
        return;
    };
    let _ = SendMessageHeader::decode(&command.ext);
    let _ = PullMessageHeader::decode(&command.ext);
    let _ = QueryConsumerOffsetHeader::decode(&command.ext);
    let _ = RegisterBrokerHeader::decode(&command.ext);
    let _ = CreateTopicHeader::decode(&command.ext);
    // What was read can be written, and reads the same.
    for form in [SerializeType::Json, SerializeType::Binary] {
        let mut bytes = Vec::new();
        let mut writer = request(&mut bytes, form, 1, command.head.opaque, false);
        let fields: Vec<_> = command.ext.iter().collect();
        for (key, value) in fields.iter().filter(|(key, _)| key.chars().all(|c| c.is_ascii_alphanumeric())) {
            writer.text(key, *value);
        }
        writer.finish(b"");
        let Ok(Split::Frame(frame, _)) = split(&bytes, usize::MAX) else {
            return;
        };
        let again = Command::decode(&frame).expect("our own header");
        for (key, value) in again.ext.iter() {
            let same = fields.iter().any(|(k, v)| *k == key && v.to_cow() == value.to_cow());
            assert!(same, "{key}");
        }
    }
});
