//! Reads a body as loosely as Java's fastjson does, for plain derived serde structs.
//!
//! Old C++ clients send `"queueId":"3"` and `"unitMode":"false"`, others send longs as text or
//! `null` for a list. Instead of an attribute on every field, the deserializer itself is tolerant.
//! Measured against fastjson2 2.0.59 with Apache's own classes: null for a primitive is zero,
//! also where the class initialises the field otherwise; fractions are cut; the empty text is 0.

use std::fmt;

use serde::Deserialize;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};

use super::BodyError;
use crate::dialect::normalize;

/// Decodes a body in either form, strict JSON or fastjson's.
///
/// # Errors
/// [`BodyError::Dialect`] when it is not JSON at all, [`BodyError::Shape`] when it does not have
/// the shape of a `T`.
pub(crate) fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BodyError> {
    let strict = normalize(bytes)?;
    from_strict(&strict)
        .map_err(|source| BodyError::Shape { body: short_name::<T>(), detail: source.to_string() })
}

fn from_strict<T: DeserializeOwned>(json: &[u8]) -> Result<T, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = T::deserialize(Lenient(&mut deserializer))?;
    deserializer.end()?;
    Ok(value)
}

fn short_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    name.rsplit("::").next().unwrap_or(name)
}

/// Any self-describing deserializer, read loosely, down to the last nested value.
pub(crate) struct Lenient<D>(pub(crate) D);

/// What the type being read would like to see.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    Any,
    Integer,
    Float,
    Bool,
    Text,
    List,
    Map,
}

macro_rules! wanting {
    ($($method:ident => $want:ident),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.deserialize_any(Loose { visitor, want: Want::$want })
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Lenient<D> {
    type Error = D::Error;

    wanting! {
        deserialize_any => Any, deserialize_bool => Bool, deserialize_unit => Any,
        deserialize_i8 => Integer, deserialize_i16 => Integer, deserialize_i32 => Integer,
        deserialize_i64 => Integer, deserialize_i128 => Integer, deserialize_u8 => Integer,
        deserialize_u16 => Integer, deserialize_u32 => Integer, deserialize_u64 => Integer,
        deserialize_u128 => Integer, deserialize_f32 => Float, deserialize_f64 => Float,
        deserialize_char => Text, deserialize_str => Text, deserialize_string => Text,
        deserialize_bytes => Text, deserialize_byte_buf => Text, deserialize_seq => List,
        deserialize_map => Map,
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_option(Loose { visitor, want: Want::Any })
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.deserialize_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(JavaEnum { variants, visitor })
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_identifier(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_ignored_any(visitor)
    }
}

/// Passes a value on to the visitor of the type being read, converted to what that type wants.
struct Loose<V> {
    visitor: V,
    want: Want,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Loose<V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(formatter)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<V::Value, E> {
        match self.want {
            Want::Integer | Want::Float => self.visitor.visit_u64(value.into()),
            Want::Text => self.visitor.visit_str(if value { "true" } else { "false" }),
            Want::Any | Want::Bool | Want::List | Want::Map => self.visitor.visit_bool(value),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<V::Value, E> {
        match self.want {
            Want::Bool => self.visitor.visit_bool(value != 0),
            Want::Text => self.visitor.visit_string(value.to_string()),
            Want::Any | Want::Integer | Want::Float | Want::List | Want::Map => {
                self.visitor.visit_i64(value)
            }
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<V::Value, E> {
        match self.want {
            Want::Bool => self.visitor.visit_bool(value != 0),
            Want::Text => self.visitor.visit_string(value.to_string()),
            Want::Any | Want::Integer | Want::Float | Want::List | Want::Map => {
                self.visitor.visit_u64(value)
            }
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        match self.want {
            // The cast saturates; a type that is narrower refuses the result.
            Want::Integer => self.visitor.visit_i64(value as i64),
            Want::Text => self.visitor.visit_string(value.to_string()),
            Want::Any | Want::Float | Want::Bool | Want::List | Want::Map => {
                self.visitor.visit_f64(value)
            }
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<V::Value, E> {
        let trimmed = text.trim();
        let refused = || E::invalid_value(Unexpected::Str(text), &self.visitor);
        match self.want {
            Want::Any | Want::Text | Want::List => self.visitor.visit_str(text),
            Want::Integer if matches!(trimmed, "" | "null") => self.visitor.visit_i64(0),
            Want::Integer => match trimmed.parse::<i64>() {
                Ok(number) => self.visitor.visit_i64(number),
                Err(_) => Err(refused()),
            },
            Want::Float if matches!(trimmed, "" | "null") => self.visitor.visit_f64(0.0),
            Want::Float => match trimmed.parse::<f64>() {
                Ok(number) => self.visitor.visit_f64(number),
                Err(_) => Err(refused()),
            },
            Want::Bool if trimmed.eq_ignore_ascii_case("true") || trimmed == "1" => {
                self.visitor.visit_bool(true)
            }
            Want::Bool
                if trimmed.eq_ignore_ascii_case("false")
                    || matches!(trimmed, "" | "0" | "null") =>
            {
                self.visitor.visit_bool(false)
            }
            Want::Bool => Err(refused()),
            // A struct that is a map's key: `normalize` has put its JSON text into a string.
            Want::Map => match serde_json::from_str(text) {
                Ok(object @ serde_json::Value::Object(_)) => {
                    Lenient(object).deserialize_map(self.visitor).map_err(E::custom)
                }
                Ok(_) | Err(_) => Err(refused()),
            },
        }
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<V::Value, E> {
        match self.want {
            Want::Any | Want::Text => self.visitor.visit_borrowed_str(text),
            _ => self.visit_str(text),
        }
    }

    fn visit_string<E: Error>(self, text: String) -> Result<V::Value, E> {
        match self.want {
            Want::Any | Want::Text => self.visitor.visit_string(text),
            _ => self.visit_str(&text),
        }
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        match self.want {
            Want::Any => self.visitor.visit_unit(),
            Want::Integer => self.visitor.visit_u64(0),
            Want::Float => self.visitor.visit_f64(0.0),
            Want::Bool => self.visitor.visit_bool(false),
            Want::Text => self.visitor.visit_str(""),
            Want::List => self.visitor.visit_seq(SeqDeserializer::new(std::iter::empty::<u8>())),
            Want::Map => {
                self.visitor.visit_map(MapDeserializer::new(std::iter::empty::<(u8, u8)>()))
            }
        }
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Lenient(inner))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_seq(Nested(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Nested(map))
    }
}

/// Hands the tolerance down to the elements of a list, the keys and the values of a map.
struct Nested<A>(A);

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Nested<A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        self.0.next_element_seed(Inner(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Nested<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        self.0.next_key_seed(Inner(seed))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.0.next_value_seed(Inner(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

struct Inner<S>(S);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Inner<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Lenient(inner))
    }
}

/// Java enums arrive as names in any case, as ordinals, or as ordinals in quotes. The variants of
/// our enums therefore stand in Java's order.
struct JavaEnum<V> {
    variants: &'static [&'static str],
    visitor: V,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for JavaEnum<V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "one of {:?} or its number", self.variants)
    }

    fn visit_u64<E: Error>(self, ordinal: u64) -> Result<V::Value, E> {
        let variant = usize::try_from(ordinal).ok().and_then(|at| self.variants.get(at));
        match variant {
            Some(name) => self.visitor.visit_enum((*name).into_deserializer()),
            None => Err(E::invalid_value(Unexpected::Unsigned(ordinal), &self)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<V::Value, E> {
        if let Ok(ordinal) = text.parse() {
            return self.visit_u64(ordinal);
        }
        match self.variants.iter().find(|name| name.eq_ignore_ascii_case(text)) {
            Some(name) => self.visitor.visit_enum((*name).into_deserializer()),
            None => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }
}

/// For an enum that Java leaves null when it does not know the name: peers are newer than we are.
pub(crate) fn known<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Scalar<T>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Scalar<T> {
        type Value = Option<T>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("the name or the number of an enum's value")
        }

        fn visit_u64<E: Error>(self, ordinal: u64) -> Result<Option<T>, E> {
            Ok(read(ordinal))
        }

        fn visit_i64<E: Error>(self, _ordinal: i64) -> Result<Option<T>, E> {
            Ok(None)
        }

        fn visit_str<E: Error>(self, name: &str) -> Result<Option<T>, E> {
            Ok(read(name.to_owned()))
        }

        fn visit_unit<E: Error>(self) -> Result<Option<T>, E> {
            Ok(None)
        }
    }

    fn read<'de, T, S>(scalar: S) -> Option<T>
    where
        T: Deserialize<'de>,
        S: IntoDeserializer<'de, serde::de::value::Error>,
    {
        T::deserialize(Lenient(scalar.into_deserializer())).ok()
    }

    deserializer.deserialize_any(Scalar(std::marker::PhantomData))
}

/// As [`known`], for a field that has a default in Java: an unknown value becomes the default.
pub(crate) fn known_or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    known(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Sample {
        number: i32,
        unsigned: u64,
        real: f64,
        flag: bool,
        text: String,
        list: Vec<i64>,
        map: BTreeMap<i64, bool>,
        option: Option<i32>,
        unit: Unit,
        #[serde(deserialize_with = "known")]
        maybe: Option<Unit>,
        #[serde(deserialize_with = "known_or_default")]
        surely: Unit,
    }

    #[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
    enum Unit {
        First,
        #[default]
        SecondOne,
    }

    fn read(json: &str) -> Sample {
        from_slice(json.as_bytes()).unwrap()
    }

    #[test]
    fn numbers_texts_and_booleans_stand_in_for_each_other() {
        let json = r#"{"number":" 7 ","unsigned":"18","real":"1.5","flag":2,"text":-3,
            "list":["1",2.9,true,null],"map":{5:"TRUE",-6:0},"option":"9"}"#;
        let sample = Sample {
            number: 7,
            unsigned: 18,
            real: 1.5,
            flag: true,
            text: "-3".to_owned(),
            list: vec![1, 2, 1, 0],
            map: BTreeMap::from([(5, true), (-6, false)]),
            option: Some(9),
            ..Default::default()
        };
        assert_eq!(read(json), sample);
    }

    #[test]
    fn null_is_zero_false_empty_or_none() {
        let json = r#"{"number":null,"unsigned":null,"real":null,"flag":null,"text":null,
            "list":null,"map":null,"option":null,"maybe":null,"surely":null}"#;
        assert_eq!(read(json), Sample::default());
    }

    #[test]
    fn enums_come_as_names_in_any_case_as_ordinals_and_as_quoted_ordinals() {
        for first in ["\"FIRST\"", "\"first\"", "0", "\"0\""] {
            let sample = read(&format!(r#"{{"unit":{first},"maybe":{first},"surely":{first}}}"#));
            assert_eq!(sample.unit, Unit::First);
            assert_eq!((sample.maybe, sample.surely), (Some(Unit::First), Unit::First));
        }
        for newer in ["\"THIRD\"", "2", "-1", "\"2\""] {
            let sample = read(&format!(r#"{{"maybe":{newer},"surely":{newer}}}"#));
            assert_eq!((sample.maybe, sample.surely), (None, Unit::SecondOne));
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_bodys_name() {
        for json in [
            r#"{"number":"seven"}"#,
            r#"{"number":2147483648}"#,
            r#"{"unsigned":-1}"#,
            r#"{"flag":"maybe"}"#,
            r#"{"list":{}}"#,
            r#"{"map":"{"}"#,
            r#"{"unit":"THIRD"}"#,
            r#"{} {}"#,
            "",
        ] {
            let refused = from_slice::<Sample>(json.as_bytes());
            assert!(matches!(refused, Err(BodyError::Shape { body: "Sample", .. })), "{json}");
        }
    }
}
