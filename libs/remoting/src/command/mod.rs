//! The head of a frame, in its two forms.
//!
//! JSON: an object with `code`, `language`, `version`, `opaque`, `flag`, `remark`, `extFields` and
//! `serializeTypeCurrentRPC`. Binary: see [`binary`]. A reply goes out in the form of its request.
//! Source: `RemotingCommand`, `RocketMQSerializable`.

mod binary;
mod json;
mod text;
mod write;

pub use text::Text;
pub use write::HeaderWriter;

use crate::codes::ResponseCode;
use crate::frame::Frame;

/// Flag bit of a response.
pub const FLAG_RESPONSE: i32 = 1;
/// Flag bit of a request that wants no response.
pub const FLAG_ONE_WAY: i32 = 2;
/// The version that WeirMQ calls itself by: the ordinal of 5.3.3 in `MQVersion`. Clients branch on
/// it, for example Java 4.x on at least 232 for SQL filters.
pub const VERSION: i32 = 479;
/// The most extension fields that one header may have.
pub const EXT_FIELDS_MAX: usize = 128;

/// How a header is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SerializeType {
    Json,
    /// `ROCKETMQ`, the binary form.
    Binary,
}

impl SerializeType {
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Json),
            1 => Some(Self::Binary),
            _ => None,
        }
    }
}

/// The language of a peer. Source: `LanguageCode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Language(pub u8);

impl Language {
    pub const JAVA: Language = Language(0);
    pub const OTHER: Language = Language(7);
    pub const GO: Language = Language(9);
    pub const RUST: Language = Language(12);

    const NAMES: [&'static str; 14] = [
        "JAVA", "CPP", "DOTNET", "PYTHON", "DELPHI", "ERLANG", "RUBY", "OTHER", "HTTP", "GO",
        "PHP", "OMS", "RUST", "NODE_JS",
    ];

    /// Apache's name; `OTHER` for a number that is not in its list.
    pub fn name(self) -> &'static str {
        Self::NAMES.get(usize::from(self.0)).copied().unwrap_or("OTHER")
    }

    fn from_name(name: &str) -> Self {
        let at = Self::NAMES.iter().position(|known| known.eq_ignore_ascii_case(name));
        at.map_or(Self::OTHER, |at| Self(at as u8))
    }
}

/// The fixed fields of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub serialize: SerializeType,
    /// A request code or a response code, by the flag.
    pub code: i32,
    pub language: Language,
    pub version: i32,
    /// Ties a response to its request; chosen by the requester, any number.
    pub opaque: i32,
    pub flag: i32,
}

impl Head {
    pub fn is_response(&self) -> bool {
        self.flag & FLAG_RESPONSE != 0
    }

    pub fn is_one_way(&self) -> bool {
        self.flag & FLAG_ONE_WAY != 0
    }
}

/// One decoded frame, borrowed from the read buffer.
#[derive(Debug, Clone)]
pub struct Command<'a> {
    pub head: Head,
    pub remark: Option<Text<'a>>,
    pub ext: ExtFields<'a>,
    pub body: &'a [u8],
}

/// Why a header cannot be read. The frame's borders are known, so the connection may live on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("header is not valid UTF-8")]
    Utf8,
    #[error("header is not a JSON object: {problem} at byte {at}")]
    Json { problem: &'static str, at: usize },
    #[error("binary header ends inside its {0}")]
    Truncated(&'static str),
    #[error("header has no {0}")]
    Missing(&'static str),
    #[error("header has more than {EXT_FIELDS_MAX} extension fields")]
    TooManyFields,
}

impl<'a> Command<'a> {
    /// Decodes the header of `frame`.
    pub fn decode(frame: &Frame<'a>) -> Result<Self, CommandError> {
        let (head, remark, ext) = match frame.serialize {
            SerializeType::Json => json::decode(frame.header)?,
            SerializeType::Binary => binary::decode(frame.header)?,
        };
        Ok(Self { head, remark, ext, body: frame.body })
    }

    /// The remark as text, empty when there is none.
    pub fn remark_text(&self) -> String {
        self.remark.map(|remark| remark.to_cow().into_owned()).unwrap_or_default()
    }
}

/// The extension fields of a header, as they came. Values may have been strings, numbers or
/// booleans; [`Text`] does not tell them apart.
#[derive(Debug, Clone, Default)]
pub struct ExtFields<'a> {
    fields: Vec<(Text<'a>, Text<'a>)>,
}

impl<'a> ExtFields<'a> {
    /// Keys and values in the order of the header.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Text<'a>)> + '_ {
        self.fields.iter().map(|(key, value)| (key.raw(), *value))
    }

    /// The value of `name`, the last one if it stands several times.
    pub fn get(&self, name: &str) -> Option<Text<'a>> {
        self.iter().filter(|(key, _)| *key == name).last().map(|(_, value)| value)
    }

    fn push(&mut self, key: Text<'a>, value: Text<'a>) -> Result<(), CommandError> {
        if self.fields.len() == EXT_FIELDS_MAX {
            return Err(CommandError::TooManyFields);
        }
        if self.fields.is_empty() {
            self.fields.reserve(16);
        }
        self.fields.push((key, value));
        Ok(())
    }
}

/// Begins a request frame at the end of `out`.
pub fn request<'o>(
    out: &'o mut Vec<u8>,
    serialize: SerializeType,
    code: i32,
    opaque: i32,
    is_one_way: bool,
) -> HeaderWriter<'o> {
    let flag = if is_one_way { FLAG_ONE_WAY } else { 0 };
    let head = Head { serialize, code, language: Language::RUST, version: VERSION, opaque, flag };
    HeaderWriter::begin(out, &head, None)
}

/// Begins the response to `request` at the end of `out`, in the request's form.
///
/// It calls itself a Java broker: old Java clients know no other language.
pub fn response<'o>(
    out: &'o mut Vec<u8>,
    request: &Head,
    code: ResponseCode,
    remark: Option<&str>,
) -> HeaderWriter<'o> {
    let head = Head {
        serialize: request.serialize,
        code: code.number(),
        language: Language::JAVA,
        version: VERSION,
        opaque: request.opaque,
        flag: FLAG_RESPONSE,
    };
    HeaderWriter::begin(out, &head, remark)
}

#[cfg(test)]
mod tests;
