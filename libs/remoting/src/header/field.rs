//! The macro behind the typed headers.

use std::borrow::Cow;

use crate::command::{ExtFields, HeaderWriter, Text};

/// Fields of one request or response.
pub trait Header<'a>: Sized {
    /// Reads the fields out of a header; unknown fields are ignored.
    fn decode(ext: &ExtFields<'a>) -> Result<Self, HeaderError>;

    /// Writes the fields into a header; absent ones are left out.
    fn encode(&self, writer: &mut HeaderWriter<'_>);
}

/// Why the fields of a request cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("the custom field <{0}> is null")]
    Missing(&'static str),
    #[error("the custom field <{field}> is {value:?}, which is not {expected}")]
    Invalid { field: &'static str, value: String, expected: &'static str },
}

/// A type that a header's field can have.
pub trait Field<'a>: Sized {
    const EXPECTED: &'static str;

    fn parse(text: Text<'a>) -> Option<Self>;

    /// The value of a field that is not there; `None` when it is required.
    fn absent() -> Option<Self> {
        None
    }

    fn write(&self, key: &str, writer: &mut HeaderWriter<'_>);
}

macro_rules! number_field {
    ($($number:ty),*) => {$(
        impl<'a> Field<'a> for $number {
            const EXPECTED: &'static str = concat!("a number of type ", stringify!($number));

            fn parse(text: Text<'a>) -> Option<Self> {
                let text = text.raw();
                text.parse().or_else(|_| text.trim().parse()).ok()
            }

            fn write(&self, key: &str, writer: &mut HeaderWriter<'_>) {
                writer.number(key, *self);
            }
        }
    )*};
}

number_field!(i32, i64, u32);

impl<'a> Field<'a> for bool {
    const EXPECTED: &'static str = "true or false";

    fn parse(text: Text<'a>) -> Option<Self> {
        let text = text.raw().trim();
        // Java's Boolean.parseBoolean: everything that is not "true" is false. "1" comes from C++.
        Some(text.eq_ignore_ascii_case("true") || text == "1")
    }

    fn write(&self, key: &str, writer: &mut HeaderWriter<'_>) {
        writer.boolean(key, *self);
    }
}

impl<'a> Field<'a> for Text<'a> {
    const EXPECTED: &'static str = "a text";

    fn parse(text: Text<'a>) -> Option<Self> {
        Some(text)
    }

    fn write(&self, key: &str, writer: &mut HeaderWriter<'_>) {
        writer.text(key, *self);
    }
}

impl<'a> Field<'a> for Cow<'a, str> {
    const EXPECTED: &'static str = "a text";

    fn parse(text: Text<'a>) -> Option<Self> {
        Some(text.to_cow())
    }

    fn write(&self, key: &str, writer: &mut HeaderWriter<'_>) {
        writer.text(key, Text::from(&**self));
    }
}

impl<'a, T: Field<'a>> Field<'a> for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn parse(text: Text<'a>) -> Option<Self> {
        T::parse(text).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn write(&self, key: &str, writer: &mut HeaderWriter<'_>) {
        if let Some(value) = self {
            value.write(key, writer);
        }
    }
}

/// Declares typed headers: `field: Type = "wireName"`, or `= "wireName" | "n"` where a second name
/// is read too; the first one is written. `Option` makes a field optional.
///
/// Empty text counts as absent for numbers, because some clients write `""` for null.
macro_rules! headers {
    ($($(#[$meta:meta])* pub struct $name:ident $(<$life:lifetime>)? {
        $($(#[$field_meta:meta])* $field:ident : $type:ty = $wire:literal $(| $short:literal)?,)*
    })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name $(<$life>)? { $($(#[$field_meta])* pub $field: $type,)* }

        $crate::header::field::headers!(@impl $name [$($life)?] {
            $($field : $type = $wire $(| $short)?,)*
        });
    )*};
    (@impl $name:ident [] { $($body:tt)* }) => {
        $crate::header::field::headers!(@body [impl<'h> $crate::header::Header<'h> for $name] 'h { $($body)* });
    };
    (@impl $name:ident [$life:lifetime] { $($body:tt)* }) => {
        $crate::header::field::headers!(@body [impl<$life> $crate::header::Header<$life> for $name<$life>] $life { $($body)* });
    };
    (@body [$($head:tt)*] $life:lifetime {
        $($field:ident : $type:ty = $wire:literal $(| $short:literal)?,)*
    }) => {
        $($head)* {
            fn decode(
                ext: &$crate::command::ExtFields<$life>,
            ) -> Result<Self, $crate::header::HeaderError> {
                use $crate::header::{Field, HeaderError};
                $(let mut $field: Option<$type> = None;)*
                for (key, value) in ext.iter() {
                    match key {
                        $($wire $(| $short)? => {
                            $field = match <$type as Field<$life>>::parse(value) {
                                Some(parsed) => Some(parsed),
                                None if value.is_empty() => None,
                                None => return Err(HeaderError::Invalid {
                                    field: $wire,
                                    value: value.raw().chars().take(64).collect(),
                                    expected: <$type as Field<$life>>::EXPECTED,
                                }),
                            };
                        })*
                        _ => {}
                    }
                }
                Ok(Self {
                    $($field: match $field {
                        Some(value) => value,
                        None => <$type as Field<$life>>::absent().ok_or(HeaderError::Missing($wire))?,
                    },)*
                })
            }

            fn encode(&self, writer: &mut $crate::command::HeaderWriter<'_>) {
                use $crate::header::Field;
                $(Field::write(&self.$field, $wire, writer);)*
            }
        }
    };
}

pub(crate) use headers;

#[cfg(test)]
#[allow(unreachable_pub)] // The macro makes public structs, also of the sample here.
mod tests {
    use super::*;
    use crate::command::{Command, SerializeType, request};
    use crate::frame::{Split, split};

    headers! {
        /// A header with every kind of field.
        pub struct Sample<'a> {
            name: Text<'a> = "name" | "n",
            number: i32 = "number",
            big: Option<i64> = "big",
            is_on: Option<bool> = "on",
        }
    }

    fn with_fields<T>(fields: &[(&str, &str)], check: impl FnOnce(&ExtFields<'_>) -> T) -> T {
        let mut bytes = Vec::new();
        let mut writer = request(&mut bytes, SerializeType::Json, 1, 1, false);
        fields.iter().for_each(|(key, value)| writer.text(key, Text::from(*value)));
        writer.finish(b"");
        let Ok(Split::Frame(frame, _)) = split(&bytes, 10_000) else { panic!() };
        check(&Command::decode(&frame).unwrap().ext)
    }

    #[test]
    fn required_fields_are_named_when_missing_and_numbers_when_wrong() {
        let missing = with_fields(&[("n", "x")], |ext| Sample::decode(ext).unwrap_err());
        assert_eq!(missing, HeaderError::Missing("number"));
        let wrong =
            with_fields(&[("n", "x"), ("number", "1x")], |ext| Sample::decode(ext).unwrap_err());
        assert!(wrong.to_string().contains("<number> is \"1x\""), "{wrong}");
        let fields = [("name", "x"), ("number", "-3"), ("big", ""), ("on", "true"), ("other", "?")];
        with_fields(&fields, |ext| {
            let sample = Sample::decode(ext).unwrap();
            assert_eq!((sample.number, sample.big, sample.is_on), (-3, None, Some(true)));
            assert_eq!(sample.name.to_cow(), "x");
        });
    }
}
