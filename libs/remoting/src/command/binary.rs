//! The binary form, `ROCKETMQ`.
//!
//! | bytes | field |
//! |---|---|
//! | 2 | code |
//! | 1 | language |
//! | 2 | version |
//! | 4 | opaque |
//! | 4 | flag |
//! | 4 + n | remark |
//! | 4 + n | extension fields: 2 + n key, 4 + n value, repeated |
//!
//! Source: `RocketMQSerializable`.

use super::{CommandError, ExtFields, Head, Language, SerializeType, Text};

type Decoded<'a> = (Head, Option<Text<'a>>, ExtFields<'a>);

pub(super) fn decode(header: &[u8]) -> Result<Decoded<'_>, CommandError> {
    let mut cursor = Cursor { rest: header };
    let code = cursor.i16("code")?;
    let [language] = cursor.array("language")?;
    let version = cursor.i16("version")?;
    let opaque = cursor.i32("opaque")?;
    let flag = cursor.i32("flag")?;
    let remark_length = cursor.i32("remark length")?;
    let remark = match usize::try_from(remark_length) {
        Ok(0) | Err(_) => None,
        Ok(length) => Some(cursor.text("remark", length)?),
    };
    let mut ext = ExtFields::default();
    let ext_length = usize::try_from(cursor.i32("extension fields")?).unwrap_or(0);
    let mut fields = Cursor { rest: cursor.take("extension fields", ext_length)? };
    while !fields.rest.is_empty() {
        let key_length = fields.i16("key length")?;
        let key = fields.text("key", length(i32::from(key_length), "key length")?)?;
        let value_length = fields.i32("value length")?;
        let value = fields.text("value", length(value_length, "value length")?)?;
        ext.push(key, value)?;
    }
    let head = Head {
        serialize: SerializeType::Binary,
        code: widen_code(code),
        language: Language(language),
        version: i32::from(version),
        opaque,
        flag,
    };
    Ok((head, remark, ext))
}

/// The pop codes are wider than the field: Apache's clients write their low 16 bits, which no
/// other code has.
fn widen_code(code: i16) -> i32 {
    match i32::from(code) {
        low @ (3442..=3448 | 3543) => low + 3 * 0x1_0000,
        code => code,
    }
}

fn length(length: i32, field: &'static str) -> Result<usize, CommandError> {
    usize::try_from(length).map_err(|_| CommandError::Truncated(field))
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, field: &'static str, length: usize) -> Result<&'a [u8], CommandError> {
        let (taken, rest) =
            self.rest.split_at_checked(length).ok_or(CommandError::Truncated(field))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], CommandError> {
        let (taken, rest) =
            self.rest.split_first_chunk::<N>().ok_or(CommandError::Truncated(field))?;
        self.rest = rest;
        Ok(*taken)
    }

    fn i16(&mut self, field: &'static str) -> Result<i16, CommandError> {
        self.array(field).map(i16::from_be_bytes)
    }

    fn i32(&mut self, field: &'static str) -> Result<i32, CommandError> {
        self.array(field).map(i32::from_be_bytes)
    }

    fn text(&mut self, field: &'static str, length: usize) -> Result<Text<'a>, CommandError> {
        let bytes = self.take(field, length)?;
        std::str::from_utf8(bytes).map(Text::from).map_err(|_| CommandError::Utf8)
    }
}
