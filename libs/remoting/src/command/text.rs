//! A string of a header, left as it came until somebody wants it.

use std::borrow::Cow;

/// A string that may still hold JSON escapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a> {
    raw: &'a str,
    is_escaped: bool,
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(plain: &'a str) -> Self {
        Self { raw: plain, is_escaped: false }
    }
}

impl<'a> Text<'a> {
    pub(super) fn escaped(raw: &'a str) -> Self {
        Self { raw, is_escaped: true }
    }

    /// The text with its escapes, if it has any.
    pub fn raw(&self) -> &'a str {
        self.raw
    }

    pub(super) fn is_escaped(&self) -> bool {
        self.is_escaped
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// The text itself. Copies only when there are escapes. A lone surrogate becomes U+FFFD.
    pub fn to_cow(&self) -> Cow<'a, str> {
        if !self.is_escaped {
            return Cow::Borrowed(self.raw);
        }
        let mut plain = Vec::with_capacity(self.raw.len());
        self.append_to(&mut plain);
        Cow::Owned(String::from_utf8_lossy(&plain).into_owned())
    }

    /// Appends the text itself as UTF-8.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        if !self.is_escaped {
            out.extend_from_slice(self.raw.as_bytes());
            return;
        }
        let bytes = self.raw.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let run =
                bytes[at..].iter().position(|byte| *byte == b'\\').unwrap_or(bytes.len() - at);
            out.extend_from_slice(&bytes[at..at + run]);
            at += run;
            if at < bytes.len() {
                at += append_escape(&bytes[at..], out);
            }
        }
    }
}

/// Appends what the escape at the start of `bytes` stands for and says how long the escape is.
fn append_escape(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let plain = match bytes.get(1) {
        Some(b'u') => return append_unicode_escape(bytes, out),
        Some(b'n') => b'\n',
        Some(b't') => b'\t',
        Some(b'r') => b'\r',
        Some(b'b') => 8,
        Some(b'f') => 12,
        // fastjson also writes \v and \0 to \7.
        Some(b'v') => 11,
        Some(digit @ b'0'..=b'7') => digit - b'0',
        Some(other) => *other,
        None => return 1,
    };
    out.push(plain);
    2
}

fn append_unicode_escape(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let unit = |at: usize| -> Option<u32> {
        let digits = bytes.get(at..at + 6)?;
        let digits = digits.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
    };
    let (scalar, length) = match (unit(0), unit(6)) {
        (Some(high @ 0xD800..=0xDBFF), Some(low @ 0xDC00..=0xDFFF)) => {
            (Some(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)), 12)
        }
        (Some(single), _) => (Some(single), 6),
        (None, _) => (None, bytes.len().min(2)),
    };
    let character = scalar.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    length
}
