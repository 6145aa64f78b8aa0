//! Writes a body as Java's fastjson would: compact, map keys bare where they are integers and
//! whole objects where they are objects. Apache's classes cannot read object keys in any other
//! form (fastjson2 2.0.59 refuses them as quoted text); integer keys they read either way.

use std::fmt;

use serde::Serialize;
use serde::ser::{
    Error, Impossible, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple, Serializer,
};

/// How keys that are no strings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `{0:…}` and `{{"queueId":0}:…}`.
    Fastjson,
    /// `{"0":…}` and `{"{\"queueId\":0}":…}`.
    Strict,
}

/// Writes `value` as compact JSON in UTF-8. Fields come in the order of their declaration, which
/// in our bodies is Java's alphabetical one; non-finite numbers are null, as fastjson has them.
pub(crate) fn to_vec<T: Serialize + ?Sized>(value: &T, form: Form) -> Vec<u8> {
    let mut writer = Writer { out: Vec::with_capacity(128), form, is_key: false };
    match value.serialize(&mut writer) {
        Ok(()) => writer.out,
        Err(error) => unreachable!("a body has a shape that JSON lacks: {error}"),
    }
}

/// A shape that no body has: bytes, enums with fields, a key that is a list.
#[derive(Debug)]
pub(crate) struct ShapeError(String);

impl fmt::Display for ShapeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for ShapeError {}

impl Error for ShapeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

struct Writer {
    out: Vec<u8>,
    form: Form,
    /// The next value is a map's key.
    is_key: bool,
}

impl Writer {
    /// A number, a boolean or null: quoted only where strict JSON wants a key to be a string.
    fn plain(&mut self, text: impl fmt::Display) -> Result<(), ShapeError> {
        use std::io::Write as _;
        let quote =
            if std::mem::take(&mut self.is_key) && self.form == Form::Strict { "\"" } else { "" };
        write!(self.out, "{quote}{text}{quote}").map_err(ShapeError::custom)
    }

    fn text(&mut self, text: &str) -> Result<(), ShapeError> {
        self.is_key = false;
        serde_json::to_writer(&mut self.out, text).map_err(ShapeError::custom)
    }

    fn separate(&mut self, is_first: &mut bool) {
        if !std::mem::replace(is_first, false) {
            self.out.push(b',');
        }
    }

    fn list(&mut self) -> Result<Items<'_>, ShapeError> {
        if self.is_key {
            return Err(ShapeError::custom("a list as a key"));
        }
        self.out.push(b'[');
        Ok(Items { writer: self, is_first: true, quote_from: None })
    }

    /// Opens an object; `quote_from` remembers where a key began that must become a string.
    fn object(&mut self) -> Items<'_> {
        let is_key = std::mem::take(&mut self.is_key);
        let quote_from = (is_key && self.form == Form::Strict).then_some(self.out.len());
        self.out.push(b'{');
        Items { writer: self, is_first: true, quote_from }
    }
}

struct Items<'a> {
    writer: &'a mut Writer,
    is_first: bool,
    quote_from: Option<usize>,
}

impl Items<'_> {
    fn close(self, bracket: u8) -> Result<(), ShapeError> {
        self.writer.out.push(bracket);
        let Some(from) = self.quote_from else { return Ok(()) };
        let object = self.writer.out.split_off(from);
        let text = std::str::from_utf8(&object).map_err(ShapeError::custom)?;
        self.writer.text(text)
    }
}

impl SerializeSeq for Items<'_> {
    type Ok = ();
    type Error = ShapeError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ShapeError> {
        self.writer.separate(&mut self.is_first);
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<(), ShapeError> {
        self.close(b']')
    }
}

impl SerializeTuple for Items<'_> {
    type Ok = ();
    type Error = ShapeError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ShapeError> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<(), ShapeError> {
        self.close(b']')
    }
}

impl SerializeMap for Items<'_> {
    type Ok = ();
    type Error = ShapeError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), ShapeError> {
        self.writer.separate(&mut self.is_first);
        self.writer.is_key = true;
        key.serialize(&mut *self.writer)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ShapeError> {
        self.writer.out.push(b':');
        value.serialize(&mut *self.writer)
    }

    fn end(self) -> Result<(), ShapeError> {
        self.close(b'}')
    }
}

impl SerializeStruct for Items<'_> {
    type Ok = ();
    type Error = ShapeError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), ShapeError> {
        self.serialize_entry(name, value)
    }

    fn end(self) -> Result<(), ShapeError> {
        self.close(b'}')
    }
}

macro_rules! plain {
    ($($method:ident($kind:ty)),* $(,)?) => {$(
        fn $method(self, value: $kind) -> Result<(), ShapeError> {
            self.plain(value)
        }
    )*};
}

impl<'a> Serializer for &'a mut Writer {
    type Ok = ();
    type Error = ShapeError;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Items<'a>;
    type SerializeTupleStruct = Impossible<(), ShapeError>;
    type SerializeTupleVariant = Impossible<(), ShapeError>;
    type SerializeMap = Items<'a>;
    type SerializeStruct = Items<'a>;
    type SerializeStructVariant = Impossible<(), ShapeError>;

    plain! {
        serialize_bool(bool), serialize_i8(i8), serialize_i16(i16), serialize_i32(i32),
        serialize_i64(i64), serialize_u8(u8), serialize_u16(u16), serialize_u32(u32),
        serialize_u64(u64),
    }

    fn serialize_f32(self, value: f32) -> Result<(), ShapeError> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), ShapeError> {
        if value.is_finite() { self.plain(format_args!("{value:?}")) } else { self.plain("null") }
    }

    fn serialize_char(self, value: char) -> Result<(), ShapeError> {
        self.text(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), ShapeError> {
        self.text(value)
    }

    fn serialize_bytes(self, _value: &[u8]) -> Result<(), ShapeError> {
        Err(ShapeError::custom("bytes"))
    }

    fn serialize_none(self) -> Result<(), ShapeError> {
        self.plain("null")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), ShapeError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), ShapeError> {
        self.plain("null")
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), ShapeError> {
        self.plain("null")
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), ShapeError> {
        self.text(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), ShapeError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _value: &T,
    ) -> Result<(), ShapeError> {
        Err(ShapeError::custom(variant))
    }

    fn serialize_seq(self, _len: Option<usize>) -> Result<Items<'a>, ShapeError> {
        self.list()
    }

    fn serialize_tuple(self, _len: usize) -> Result<Items<'a>, ShapeError> {
        self.list()
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeTupleStruct, ShapeError> {
        Err(ShapeError::custom(name))
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeTupleVariant, ShapeError> {
        Err(ShapeError::custom(variant))
    }

    fn serialize_map(self, _len: Option<usize>) -> Result<Items<'a>, ShapeError> {
        Ok(self.object())
    }

    fn serialize_struct(self, _name: &'static str, _len: usize) -> Result<Items<'a>, ShapeError> {
        Ok(self.object())
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _len: usize,
    ) -> Result<Self::SerializeStructVariant, ShapeError> {
        Err(ShapeError::custom(variant))
    }
}
