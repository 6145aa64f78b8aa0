//! Writing a frame: head, extension fields, body, straight into the output buffer.

use super::{Head, SerializeType, Text};

/// Writes one frame field by field. Dropping it without [`HeaderWriter::finish`] leaves a broken
/// frame behind, so every path ends in one.
#[must_use = "a frame ends with finish()"]
pub struct HeaderWriter<'o> {
    out: &'o mut Vec<u8>,
    serialize: SerializeType,
    frame_at: usize,
    ext_at: usize,
}

impl<'o> HeaderWriter<'o> {
    /// Begins a frame at the end of `out`.
    pub fn begin(out: &'o mut Vec<u8>, head: &Head, remark: Option<&str>) -> Self {
        let frame_at = out.len();
        out.extend_from_slice(&[0; crate::frame::PREFIX_BYTES]);
        match head.serialize {
            SerializeType::Json => begin_json(out, head, remark),
            SerializeType::Binary => begin_binary(out, head, remark),
        }
        let ext_at = out.len();
        Self { out, serialize: head.serialize, frame_at, ext_at }
    }

    /// Adds a text field.
    pub fn text(&mut self, key: &str, value: Text<'_>) {
        match self.serialize {
            SerializeType::Json => {
                self.json_key(key);
                self.out.push(b'"');
                if value.is_escaped() {
                    self.out.extend_from_slice(value.raw().as_bytes());
                } else {
                    escape(value.raw(), self.out);
                }
                self.out.push(b'"');
            }
            SerializeType::Binary => {
                self.binary_key(key);
                let length_at = self.out.len();
                self.out.extend_from_slice(&[0; 4]);
                value.append_to(self.out);
                patch_length(self.out, length_at);
            }
        }
    }

    /// Adds a field whose value `write` appends: ASCII that needs no escaping.
    pub fn ascii(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>)) {
        match self.serialize {
            SerializeType::Json => {
                self.json_key(key);
                self.out.push(b'"');
                write(self.out);
                self.out.push(b'"');
            }
            SerializeType::Binary => {
                self.binary_key(key);
                let length_at = self.out.len();
                self.out.extend_from_slice(&[0; 4]);
                write(self.out);
                patch_length(self.out, length_at);
            }
        }
    }

    /// Adds a number. JSON gets it as a string, as Java writes it.
    pub fn number(&mut self, key: &str, value: impl itoa::Integer) {
        self.ascii(key, |out| write_number(out, value));
    }

    /// Adds a boolean. JSON gets it as a string, as Java writes it.
    pub fn boolean(&mut self, key: &str, value: bool) {
        self.ascii(key, |out| out.extend_from_slice(if value { b"true" } else { b"false" }));
    }

    /// Ends the frame with this body.
    pub fn finish(self, body: &[u8]) {
        self.finish_with(|out| out.extend_from_slice(body));
    }

    /// Ends the frame with the body that `write` appends.
    pub fn finish_with<T>(self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        match self.serialize {
            SerializeType::Json => self.out.extend_from_slice(b"}}"),
            SerializeType::Binary => patch_length(self.out, self.ext_at - 4),
        }
        let header_length = (self.out.len() - self.frame_at - crate::frame::PREFIX_BYTES) as u32;
        let form = match self.serialize {
            SerializeType::Json => 0u32,
            SerializeType::Binary => 1 << 24,
        };
        self.out[self.frame_at + 4..self.frame_at + 8]
            .copy_from_slice(&(form | header_length).to_be_bytes());
        let written = write(self.out);
        patch_length(self.out, self.frame_at);
        written
    }

    fn json_key(&mut self, key: &str) {
        if self.out.len() != self.ext_at {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn binary_key(&mut self, key: &str) {
        self.out.extend_from_slice(&(key.len() as u16).to_be_bytes());
        self.out.extend_from_slice(key.as_bytes());
    }
}

fn begin_json(out: &mut Vec<u8>, head: &Head, remark: Option<&str>) {
    out.extend_from_slice(b"{\"code\":");
    write_number(out, head.code);
    out.extend_from_slice(b",\"flag\":");
    write_number(out, head.flag);
    out.extend_from_slice(b",\"language\":\"");
    out.extend_from_slice(head.language.name().as_bytes());
    out.extend_from_slice(b"\",\"opaque\":");
    write_number(out, head.opaque);
    if let Some(remark) = remark {
        out.extend_from_slice(b",\"remark\":\"");
        escape(remark, out);
        out.push(b'"');
    }
    out.extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
    write_number(out, head.version);
    out.extend_from_slice(b",\"extFields\":{");
}

fn begin_binary(out: &mut Vec<u8>, head: &Head, remark: Option<&str>) {
    out.extend_from_slice(&(head.code as i16).to_be_bytes());
    out.push(head.language.0);
    out.extend_from_slice(&(head.version as i16).to_be_bytes());
    out.extend_from_slice(&head.opaque.to_be_bytes());
    out.extend_from_slice(&head.flag.to_be_bytes());
    let remark = remark.unwrap_or_default();
    out.extend_from_slice(&(remark.len() as u32).to_be_bytes());
    out.extend_from_slice(remark.as_bytes());
    out.extend_from_slice(&[0; 4]);
}

fn write_number(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Writes into the four bytes at `at` how many bytes follow them.
fn patch_length(out: &mut [u8], at: usize) {
    let length = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends `plain` with JSON's escapes.
fn escape(plain: &str, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let needs_escape = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    if !plain.bytes().any(needs_escape) {
        out.extend_from_slice(plain.as_bytes());
        return;
    }
    for byte in plain.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                out.push(DIGITS[usize::from(byte >> 4)]);
                out.push(DIGITS[usize::from(byte & 0xF)]);
            }
            _ => out.push(byte),
        }
    }
}
