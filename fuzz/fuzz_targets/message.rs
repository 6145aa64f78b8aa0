//! Stored messages, batch bodies, properties and ids.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weirmq_message::{Decoded, Record, batch, id, properties, record};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Decoded::Record(decoded, length)) = Record::decode(bytes, true) {
        let mut encoded = Vec::new();
        decoded.encode(&mut encoded).expect("it came out of a record");
        // A short topic in a V2 record becomes V1; the contents stay.
        let Ok(Decoded::Record(again, _)) = Record::decode(&encoded, true) else {
            panic!("encoded records decode");
        };
        assert!(length <= bytes.len());
        assert_eq!((again.topic, again.body, again.properties), (decoded.topic, decoded.body, decoded.properties));
    }
    let _ = record::records(bytes).count();
    let _ = batch::units(bytes).count();
    let _ = properties::iter(bytes).count();
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Some(parsed) = id::OffsetMessageId::parse(text)
    {
        assert_eq!(parsed.to_string(), text.to_ascii_uppercase());
    }
});
