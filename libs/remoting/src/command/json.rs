//! The JSON form, read in one pass over its bytes.

use super::{CommandError, ExtFields, Head, Language, SerializeType, Text};

/// How deep values that nobody asked for may be nested.
const DEPTH_MAX: usize = 32;

type Decoded<'a> = (Head, Option<Text<'a>>, ExtFields<'a>);

pub(super) fn decode(header: &[u8]) -> Result<Decoded<'_>, CommandError> {
    let text = std::str::from_utf8(header).map_err(|_| CommandError::Utf8)?;
    let mut scanner = Scanner { text, at: 0 };
    let mut code = None;
    let mut head = Head {
        serialize: SerializeType::Json,
        code: 0,
        language: Language::OTHER,
        version: 0,
        opaque: 0,
        flag: 0,
    };
    let mut remark = None;
    let mut ext = ExtFields::default();
    scanner.object(|scanner, key| {
        match key.raw() {
            "extFields" if scanner.peek() == Some(b'{') => {
                scanner.object(|scanner, key| match scanner.scalar()? {
                    Some(value) => ext.push(key, value),
                    None => Ok(()),
                })?
            }
            "code" => code = scanner.number()?,
            "opaque" => head.opaque = scanner.number()?.unwrap_or_default(),
            "flag" => head.flag = scanner.number()?.unwrap_or_default(),
            "version" => head.version = scanner.number()?.unwrap_or_default(),
            "language" => {
                let language = scanner.scalar()?;
                head.language = language.map_or(Language::OTHER, |name| {
                    name.raw()
                        .parse()
                        .map(Language)
                        .unwrap_or_else(|_| Language::from_name(name.raw()))
                });
            }
            "remark" => remark = scanner.scalar()?,
            _ => scanner.skip(0)?,
        }
        Ok(())
    })?;
    head.code = code.ok_or(CommandError::Missing("code"))?;
    Ok((head, remark, ext))
}

/// Where the first quote or backslash is. Eight bytes at a time: most strings of a header are
/// shorter than what a vector search costs to begin with.
fn find_string_break(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
    // The lowest bit that this sets is in the lowest byte that is zero.
    let zero_byte = |word: u64| word.wrapping_sub(ONES) & !word & HIGH_BITS;
    let (words, rest) = bytes.as_chunks::<8>();
    for (number, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = zero_byte(word ^ (ONES * u64::from(b'"')))
            | zero_byte(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return Some(8 * number + found.trailing_zeros() as usize / 8);
        }
    }
    let found = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    Some(8 * words.len() + found)
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn error<T>(&self, problem: &'static str) -> Result<T, CommandError> {
        Err(CommandError::Json { problem, at: self.at })
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while matches!(self.byte(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.byte()
    }

    fn expect(&mut self, byte: u8, problem: &'static str) -> Result<(), CommandError> {
        if self.peek() != Some(byte) {
            return self.error(problem);
        }
        self.at += 1;
        Ok(())
    }

    /// Calls `field` at each value of the object here.
    fn object(
        &mut self,
        mut field: impl FnMut(&mut Self, Text<'a>) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        self.expect(b'{', "expected an object")?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.peek() != Some(b'"') {
                return self.error("expected a key");
            }
            let key = self.string()?;
            self.expect(b':', "expected a colon")?;
            self.peek();
            field(self, key)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return self.error("expected a comma or the object's end"),
            }
        }
    }

    /// A string; the next byte is its opening quote.
    fn string(&mut self) -> Result<Text<'a>, CommandError> {
        let start = self.at + 1;
        let bytes = self.text.as_bytes();
        let mut at = start;
        let mut is_escaped = false;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let Some(run) = find_string_break(rest) else {
                return self.error("string without its end");
            };
            at += run;
            if bytes[at] == b'"' {
                break;
            }
            is_escaped = true;
            at += 2;
        }
        self.at = at + 1;
        let raw = &self.text[start..at];
        Ok(if is_escaped { Text::escaped(raw) } else { Text::from(raw) })
    }

    /// A string, number or boolean as text; `None` for null.
    fn scalar(&mut self) -> Result<Option<Text<'a>>, CommandError> {
        match self.peek() {
            Some(b'"') => self.string().map(Some),
            Some(b'{' | b'[') => {
                self.skip(0)?;
                Ok(None)
            }
            _ => {
                let start = self.at;
                while self.byte().is_some_and(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
                {
                    self.at += 1;
                }
                match &self.text[start..self.at] {
                    "" => self.error("expected a value"),
                    "null" => Ok(None),
                    bare => Ok(Some(Text::from(bare))),
                }
            }
        }
    }

    /// A 32-bit number, also as a string; `None` for null.
    fn number(&mut self) -> Result<Option<i32>, CommandError> {
        match self.scalar()? {
            None => Ok(None),
            Some(text) => match text.raw().parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => self.error("expected a 32-bit number"),
            },
        }
    }

    fn skip(&mut self, depth: usize) -> Result<(), CommandError> {
        if depth == DEPTH_MAX {
            return self.error("nested too deeply");
        }
        match self.peek() {
            Some(b'{') => self.object(|scanner, _| scanner.skip(depth + 1)),
            Some(b'[') => {
                self.at += 1;
                if self.peek() == Some(b']') {
                    self.at += 1;
                    return Ok(());
                }
                loop {
                    self.skip(depth + 1)?;
                    match self.peek() {
                        Some(b',') => self.at += 1,
                        Some(b']') => {
                            self.at += 1;
                            return Ok(());
                        }
                        _ => return self.error("expected a comma or the array's end"),
                    }
                }
            }
            _ => self.scalar().map(|_| ()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::find_string_break;

    #[test]
    fn the_first_quote_or_backslash_is_found_wherever_it_stands() {
        // Bytes next to the two, and those that differ in the high bit, must not be taken for them.
        let others = [0, b'!', b'#', b'[', b']', b'"' | 0x80, b'\\' | 0x80, 0xFF];
        for length in 0..40 {
            let bytes: Vec<u8> = (0..length).map(|n| others[n % others.len()]).collect();
            assert_eq!(find_string_break(&bytes), None);
            for at in 0..length {
                for byte in *b"\"\\" {
                    let mut bytes = bytes.clone();
                    bytes[at] = byte;
                    bytes[length - 1] = byte;
                    assert_eq!(find_string_break(&bytes), Some(at), "{bytes:?}");
                }
            }
        }
    }
}
