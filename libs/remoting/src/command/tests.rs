use proptest::prelude::*;

use super::*;
use crate::frame::{FRAME_BYTES_MAX, Split, split};

fn decode(bytes: &[u8]) -> Command<'_> {
    let Ok(Split::Frame(frame, length)) = split(bytes, FRAME_BYTES_MAX) else { panic!("no frame") };
    assert_eq!(length, bytes.len());
    Command::decode(&frame).unwrap()
}

fn json(header: &str) -> Result<Command<'_>, CommandError> {
    let frame = Frame { serialize: SerializeType::Json, header: header.as_bytes(), body: b"" };
    Command::decode(&frame)
}

#[test]
fn extension_fields_may_be_numbers_booleans_or_null() {
    let command = json(
        r#" {"code":310, "extFields":{"e":-1,"k":false,"i":"a\u0001b","x":null,"y":{"z":[1]}},
            "flag":"2","language":"CPP","opaque":7,"version":63,"unknown":{"deep":[{}]}}"#,
    )
    .unwrap();
    assert_eq!(command.head.code, 310);
    assert_eq!(command.head.language.name(), "CPP");
    assert!(command.head.is_one_way());
    assert_eq!(command.ext.get("e").unwrap().raw(), "-1");
    assert_eq!(command.ext.get("k").unwrap().raw(), "false");
    assert_eq!(command.ext.get("i").unwrap().to_cow(), "a\u{1}b");
    assert!(command.ext.get("x").is_none() && command.ext.get("y").is_none());
}

#[test]
fn broken_json_is_an_error_at_its_place() {
    for broken in ["", "[]", "{", "{\"code\"}", "{\"code\":x!}", "{\"code\":1", "{\"code\":1,}"] {
        assert!(matches!(json(broken), Err(CommandError::Json { .. })), "{broken}");
    }
    assert_eq!(json("{}").unwrap_err(), CommandError::Missing("code"));
    let deep = format!("{{\"x\":{}", "[".repeat(10_000));
    assert!(json(&deep).is_err());
}

#[test]
fn escapes_stand_for_what_json_says() {
    for (raw, plain) in [
        ("\\u00e4\\n\\\"\\/", "ä\n\"/"),
        ("\\ud83d\\ude00", "😀"),
        ("\\ud83d!", "\u{FFFD}!"),
        ("\\u12", "\u{FFFD}12"),
        ("\\1\\2", "\u{1}\u{2}"),
    ] {
        assert_eq!(Text::escaped(raw).to_cow(), plain, "{raw}");
    }
}

#[test]
fn pop_codes_come_back_from_their_low_bits() {
    for code in [200_050, 200_056, 200_151] {
        let mut bytes = Vec::new();
        request(&mut bytes, SerializeType::Binary, code, 1, false).finish(b"");
        assert_eq!(decode(&bytes).head.code, code);
    }
}

proptest! {
    #[test]
    fn what_was_written_is_read_in_both_forms(
        is_binary in any::<bool>(), opaque in any::<i32>(), remark in any::<String>(),
        fields in proptest::collection::vec(("[a-zA-Z]{1,9}", any::<String>()), 0..20),
        body in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let serialize = if is_binary { SerializeType::Binary } else { SerializeType::Json };
        let mut bytes = Vec::new();
        let asked = Head { serialize, code: 1, language: Language::JAVA, version: 0, opaque, flag: 0 };
        let mut writer = response(&mut bytes, &asked, ResponseCode::SystemBusy, Some(&remark));
        for (key, value) in &fields {
            writer.text(key, Text::from(value.as_str()));
        }
        writer.number("number", -5);
        writer.finish(&body);
        let command = decode(&bytes);
        prop_assert_eq!(command.head.opaque, opaque);
        prop_assert!(command.head.is_response());
        prop_assert_eq!(command.remark_text(), remark);
        prop_assert_eq!(command.body, &body[..]);
        let read: Vec<_> =
            command.ext.iter().map(|(key, value)| (key.to_owned(), value.to_cow().into_owned())).collect();
        let mut expected = fields.clone();
        expected.push(("number".into(), "-5".into()));
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn arbitrary_headers_never_panic(header in proptest::collection::vec(any::<u8>(), 0..200)) {
        for serialize in [SerializeType::Json, SerializeType::Binary] {
            let _ = Command::decode(&Frame { serialize, header: &header, body: b"" });
        }
    }

    #[test]
    fn arbitrary_json_never_panics(header in r#"[{}\[\]",:0-9a-z\\u ]{0,80}"#) {
        let _ = json(&header);
    }
}
