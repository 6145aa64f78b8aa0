//! The body of a batch send: several messages for one topic and one queue.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | total size of this unit |
//! | 4 | magic, 0 |
//! | 4 | body CRC, 0 |
//! | 4 | flag |
//! | 4 + n | body |
//! | 2 + n | properties |
//!
//! Source: `MessageDecoder.encodeMessage` and `decodeMessage`.

use crate::record::{Cursor, RecordError};

/// One message of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchUnit<'a> {
    pub flag: i32,
    pub body: &'a [u8],
    pub properties: &'a [u8],
}

impl BatchUnit<'_> {
    /// Appends the unit to a batch body. Properties beyond 32,767 bytes are the caller's error.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), RecordError> {
        let properties_len = i16::try_from(self.properties.len()).map_err(|_| {
            RecordError::TooLong { field: "properties", length: self.properties.len() }
        })?;
        let total = 4 + 4 + 4 + 4 + 4 + self.body.len() + 2 + self.properties.len();
        let total = i32::try_from(total)
            .map_err(|_| RecordError::TooLong { field: "batch unit", length: total })?;
        out.extend_from_slice(&total.to_be_bytes());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.flag.to_be_bytes());
        out.extend_from_slice(&(self.body.len() as u32).to_be_bytes());
        out.extend_from_slice(self.body);
        out.extend_from_slice(&properties_len.to_be_bytes());
        out.extend_from_slice(self.properties);
        Ok(())
    }
}

/// The units of a batch body, in order. The first damaged unit ends the iteration with its error.
pub fn units(body: &[u8]) -> impl Iterator<Item = Result<BatchUnit<'_>, RecordError>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        match take_unit(rest) {
            Ok((unit, remaining)) => {
                rest = remaining;
                Some(Ok(unit))
            }
            Err(error) => {
                rest = &[];
                Some(Err(error))
            }
        }
    })
}

fn take_unit(bytes: &[u8]) -> Result<(BatchUnit<'_>, &[u8]), RecordError> {
    let mut cursor = Cursor::new(bytes);
    let total = cursor.length("batch unit", i32::MAX as usize)?;
    if total > bytes.len() {
        return Err(RecordError::Truncated { field: "batch unit" });
    }
    let (unit, rest) = bytes.split_at(total);
    let mut cursor = Cursor::new(unit);
    cursor.skip("batch header", 12)?;
    let flag = cursor.i32("flag")?;
    let body = cursor.sized_body(i32::MAX as usize)?;
    let properties = cursor.sized_properties()?;
    if !cursor.is_empty() {
        return Err(RecordError::Mismatch { field: "batch unit" });
    }
    Ok((BatchUnit { flag, body, properties }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_come_back_and_every_cut_is_noticed() {
        let first = BatchUnit { flag: 1, body: b"one", properties: b"TAGS\x01a\x02" };
        let second = BatchUnit { flag: 0, body: b"", properties: b"" };
        let mut body = Vec::new();
        first.encode(&mut body).unwrap();
        let whole = body.len();
        second.encode(&mut body).unwrap();
        assert_eq!(units(&body).collect::<Result<Vec<_>, _>>().unwrap(), [first, second]);
        for cut in (1..body.len()).filter(|cut| *cut != whole) {
            assert!(units(&body[..cut]).any(|unit| unit.is_err()), "cut at {cut}");
        }
    }

    #[test]
    fn a_unit_of_size_zero_does_not_loop() {
        assert!(units(&[0; 64]).next().unwrap().is_err());
    }
}
