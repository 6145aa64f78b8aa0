//! fastjson's dialect of JSON, turned into strict JSON before serde sees it.
//!
//! Apache's Java peers, its files under `config/` and some C++ clients write map keys that strict
//! JSON forbids: bare integers (`{0:"10.0.0.1:10911"}`), bare words (`{null:1}`) and whole objects
//! (`{{"brokerName":"b","queueId":0,"topic":"t"}:{…}}`). [`normalize`] quotes them; the typed
//! bodies in [`crate::body`] go through it. Loose *values* (numbers as text and the like) are left
//! as they are: [`lenient`] reads those.

use std::borrow::Cow;

/// Deepest nesting of objects and arrays that [`normalize`] accepts.
///
/// Apache's deepest body (the list of consume stats) has eight levels.
pub const DEPTH_MAX: usize = 64;

/// Why a text is not JSON, not even in fastjson's dialect. The peer, or whoever wrote the file,
/// is at fault; `at` is a byte position from the start of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DialectError {
    /// Objects and arrays are nested deeper than [`DEPTH_MAX`].
    #[error("JSON is nested deeper than {DEPTH_MAX} levels at byte {at}")]
    TooDeep { at: usize },
    /// The text ends inside a string, an object or an array.
    #[error("JSON ends too early, after {at} bytes")]
    Truncated { at: usize },
    /// A bracket closes what was not opened.
    #[error("JSON has an unmatched bracket at byte {at}")]
    Unbalanced { at: usize },
    /// What stands where a key belongs is no string, number, word or object, or the colon is missing.
    #[error("JSON has no valid key at byte {at}")]
    BadKey { at: usize },
    /// An object that is a key has itself an object as a key. Quoting those doubles the
    /// backslashes with every level, and no RocketMQ body needs it.
    #[error("JSON has an object key within an object key at byte {at}")]
    KeyInKey { at: usize },
}

/// Turns fastjson's dialect into strict JSON.
///
/// Integer and bare-word keys get quotes; an object that is a key becomes a string that holds the
/// compact text of that object. Everything else is copied byte for byte, so a text without such
/// keys comes back borrowed, and so does the result when it is normalised again. Values are not
/// checked: a text that is wrong in another way comes out just as wrong and fails in the parser.
///
/// Takes time linear in the input; the output has at most three times its bytes.
///
/// # Errors
/// [`DialectError`] for nesting beyond [`DEPTH_MAX`], open strings and brackets, and broken keys.
pub fn normalize(json: &[u8]) -> Result<Cow<'_, [u8]>, DialectError> {
    let mut scanner =
        Scanner { json, at: 0, depth: 0, copied_to: 0, out: Vec::new(), in_key: false };
    scanner.skip_blanks();
    while scanner.at < json.len() {
        scanner.value()?;
        scanner.skip_blanks();
    }
    if scanner.copied_to == 0 {
        return Ok(Cow::Borrowed(json));
    }
    scanner.copy_rest();
    Ok(Cow::Owned(scanner.out))
}

/// One pass over the text. `json[copied_to..at]` has been read but is not yet in `out`, which
/// stays empty as long as nothing had to change.
struct Scanner<'a> {
    json: &'a [u8],
    at: usize,
    depth: usize,
    copied_to: usize,
    out: Vec<u8>,
    /// The text between the braces of a key: blanks are dropped, object keys are refused.
    in_key: bool,
}

impl Scanner<'_> {
    fn value(&mut self) -> Result<(), DialectError> {
        match self.json[self.at] {
            b'{' => self.object(),
            b'[' => self.array(),
            b'"' => self.string(),
            b'}' | b']' | b',' | b':' => Err(DialectError::Unbalanced { at: self.at }),
            _ => {
                self.bare();
                Ok(())
            }
        }
    }

    fn object(&mut self) -> Result<(), DialectError> {
        self.open()?;
        loop {
            match self.peek()? {
                b'}' => break,
                b',' => self.at += 1,
                _ => {
                    self.key()?;
                    if self.peek()? != b':' {
                        return Err(DialectError::BadKey { at: self.at });
                    }
                    self.at += 1;
                    self.peek()?;
                    self.value()?;
                }
            }
        }
        self.close();
        Ok(())
    }

    fn array(&mut self) -> Result<(), DialectError> {
        self.open()?;
        loop {
            match self.peek()? {
                b']' => break,
                b',' => self.at += 1,
                _ => self.value()?,
            }
        }
        self.close();
        Ok(())
    }

    fn key(&mut self) -> Result<(), DialectError> {
        match self.json[self.at] {
            b'"' => self.string(),
            b'{' => self.object_key(),
            byte if is_bare(byte) => {
                self.insert(b"\"");
                self.bare();
                self.insert(b"\"");
                Ok(())
            }
            _ => Err(DialectError::BadKey { at: self.at }),
        }
    }

    /// Reads an object that stands where a key belongs and writes it as a quoted string.
    fn object_key(&mut self) -> Result<(), DialectError> {
        if self.in_key {
            return Err(DialectError::KeyInKey { at: self.at });
        }
        self.insert(b"\"");
        let text_from = self.out.len();
        self.in_key = true;
        self.object()?;
        self.copy_rest();
        self.in_key = false;
        let text = self.out.split_off(text_from);
        for byte in text {
            if matches!(byte, b'"' | b'\\') {
                self.out.push(b'\\');
            }
            self.out.push(byte);
        }
        self.out.push(b'"');
        Ok(())
    }

    fn string(&mut self) -> Result<(), DialectError> {
        self.at += 1;
        loop {
            match self.json.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
                None => return Err(DialectError::Truncated { at: self.json.len() }),
            }
        }
        self.at += 1;
        Ok(())
    }

    fn bare(&mut self) {
        self.at += 1;
        while self.json.get(self.at).is_some_and(|byte| is_bare(*byte)) {
            self.at += 1;
        }
    }

    fn open(&mut self) -> Result<(), DialectError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(DialectError::TooDeep { at: self.at });
        }
        self.at += 1;
        Ok(())
    }

    fn close(&mut self) {
        self.at += 1;
        self.depth -= 1;
    }

    /// The next byte that is no blank.
    fn peek(&mut self) -> Result<u8, DialectError> {
        self.skip_blanks();
        self.json.get(self.at).copied().ok_or(DialectError::Truncated { at: self.json.len() })
    }

    fn skip_blanks(&mut self) {
        let from = self.at;
        while matches!(self.json.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
        if self.in_key && self.at > from {
            self.out.extend_from_slice(&self.json[self.copied_to..from]);
            self.copied_to = self.at;
        }
    }

    fn insert(&mut self, bytes: &[u8]) {
        self.copy_rest();
        self.out.extend_from_slice(bytes);
    }

    fn copy_rest(&mut self) {
        self.out.extend_from_slice(&self.json[self.copied_to..self.at]);
        self.copied_to = self.at;
    }
}

/// Whether a byte can stand in an unquoted key or value.
fn is_bare(byte: u8) -> bool {
    !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'"' | b'{' | b'}' | b'[' | b']' | b',' | b':')
}

/// Reading loose values where serde is used without [`crate::body::Body`].
pub mod lenient {
    use serde::{Deserialize, Deserializer};

    use crate::body::reader::Lenient;

    /// For `#[serde(deserialize_with = "lenient::value")]`: integers and booleans may be text,
    /// numbers or booleans, text may be a number, and null means zero, false or empty. It holds
    /// for everything inside the value too.
    ///
    /// # Errors
    /// The deserializer's own, when the value cannot be read even so.
    pub fn value<'de, D, T>(deserializer: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: Deserialize<'de>,
    {
        T::deserialize(Lenient(deserializer))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn normalized(json: &str) -> String {
        String::from_utf8(normalize(json.as_bytes()).unwrap().into_owned()).unwrap()
    }

    #[test]
    fn keys_become_strings() {
        assert_eq!(normalized(r#"{0:"a",-1 : "b"}"#), r#"{"0":"a","-1" : "b"}"#);
        assert_eq!(normalized("{null:1,word:{2:[{3:4}]}}"), r#"{"null":1,"word":{"2":[{"3":4}]}}"#);
        assert_eq!(
            normalized(r#"{"t":{{ "brokerName" : "a \" b", "queueId": 0 }:{"max":5}}}"#),
            r#"{"t":{"{\"brokerName\":\"a \\\" b\",\"queueId\":0}":{"max":5}}}"#,
        );
        assert_eq!(normalized("{{0:[1, {}]}:2}"), r#"{"{\"0\":[1,{}]}":2}"#);
    }

    #[test]
    fn text_that_is_no_json_is_refused_with_its_place() {
        let fails =
            |json: &str, error| assert_eq!(normalize(json.as_bytes()), Err(error), "{json}");
        fails("{\"a", DialectError::Truncated { at: 3 });
        fails("{\"a\\", DialectError::Truncated { at: 4 });
        fails("{1:", DialectError::Truncated { at: 3 });
        fails("[1}", DialectError::Unbalanced { at: 2 });
        fails("]", DialectError::Unbalanced { at: 0 });
        fails("{1 2}", DialectError::BadKey { at: 3 });
        fails("{[1]:2}", DialectError::BadKey { at: 1 });
        fails("{{{1:2}:3}:4}", DialectError::KeyInKey { at: 2 });
        fails(&"[".repeat(100_000), DialectError::TooDeep { at: DEPTH_MAX });
        fails(&"{1:".repeat(100_000), DialectError::TooDeep { at: DEPTH_MAX * 3 });
        assert!(
            normalize("[".repeat(DEPTH_MAX).as_bytes())
                .is_err_and(|error| { error == DialectError::Truncated { at: DEPTH_MAX } })
        );
    }

    #[test]
    fn values_are_nobodys_business() {
        for json in ["", " ", "nul", "1 2", "{\"a\":'b'}", "[1,,2]", "\"\u{1}\""] {
            assert_eq!(normalized(json), json);
        }
    }

    fn strict_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived_and_the_result_is_stable(bytes: Vec<u8>) {
            stable(&bytes)?;
        }

        #[test]
        fn almost_json_is_survived_and_the_result_is_stable(
            json in r#"[\{\}\[\],:"\\0a \{\}:]{0,40}"#
        ) {
            stable(json.as_bytes())?;
        }

        #[test]
        fn strict_json_is_left_alone(value in strict_json(), pretty: bool) {
            let json = if pretty {
                serde_json::to_vec_pretty(&value).unwrap()
            } else {
                serde_json::to_vec(&value).unwrap()
            };
            prop_assert!(matches!(normalize(&json), Ok(Cow::Borrowed(same)) if same == json));
        }

        #[test]
        fn any_object_can_be_a_key(key in strict_json(), value in strict_json()) {
            prop_assume!(key.is_object());
            let json = format!("{{{key:#}:{value},7:{value}}}");
            let strict = normalize(json.as_bytes()).unwrap();
            let parsed: Value = serde_json::from_slice(&strict).unwrap();
            prop_assert_eq!(&parsed[key.to_string()], &value);
            prop_assert_eq!(&parsed["7"], &value);
        }
    }

    fn stable(bytes: &[u8]) -> Result<(), TestCaseError> {
        if let Ok(once) = normalize(bytes) {
            prop_assert!(once.len() <= bytes.len() * 3);
            prop_assert!(matches!(normalize(&once), Ok(Cow::Borrowed(same)) if same == &*once));
        }
        Ok(())
    }
}
