//! A message to be sent.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use weirmq_message::properties::{self, PROPERTIES_BYTES_MAX, names};

use crate::ClientError;

/// A message as an application makes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    pub topic: String,
    pub body: Bytes,
    /// What consumers filter by.
    pub tag: Option<String>,
    /// What the message can be looked up by; none holds a blank.
    pub keys: Vec<String>,
    /// The application's own properties. A name of RocketMQ's own (`MessageConst`) is passed on
    /// as it is, unless a field of this struct says something else.
    pub properties: BTreeMap<String, String>,
    /// A number of the application's own; brokers do not read it.
    pub flag: i32,
    pub delivery: Delivery,
    /// Do not wait until the message is on disk or on a slave, whatever the broker is set to.
    pub skip_store_wait: bool,
}

/// When a message may be consumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    #[default]
    Now,
    /// One of the broker's delay levels, from 1 (1 s) to 18 (2 h) unless it is set otherwise.
    Level(u32),
    /// After this long, by the broker's timer.
    After(Duration),
    /// At this time in milliseconds since 1970, by the broker's timer.
    At(i64),
}

impl Message {
    pub fn new(topic: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { topic: topic.into(), body: body.into(), ..Self::default() }
    }

    pub fn with_tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.keys.push(key.into());
        self
    }

    pub fn with_property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }

    pub fn with_delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }

    /// The properties as they are sent, with these of the producer's own at the end.
    pub(crate) fn encode_properties(&self, own: &[(&str, &str)]) -> Result<Vec<u8>, ClientError> {
        let keys = self.keys.join(" ");
        let (delay_name, delay) = self.delivery.property();
        let fields = [
            (names::TAGS, self.tag.as_deref()),
            (names::KEYS, Some(keys.as_str()).filter(|keys| !keys.is_empty())),
            (delay_name, delay.as_deref()),
            (names::WAIT_STORE_OK, self.skip_store_wait.then_some("false")),
        ];
        let fields = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let fields: Vec<_> = fields.chain(own.iter().copied()).collect();
        let is_replaced = |name: &str| fields.iter().any(|(field, _)| *field == name);
        let users = self.properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut encoded = Vec::with_capacity(128);
        for (name, value) in
            users.filter(|(name, _)| !is_replaced(name)).chain(fields.iter().copied())
        {
            self.check_property(name, value)?;
            properties::push(&mut encoded, name, value);
        }
        if encoded.len() > PROPERTIES_BYTES_MAX {
            let length = encoded.len();
            return Err(self.refused(format!(
                "tag, keys and properties take {length} bytes, the limit is {PROPERTIES_BYTES_MAX}"
            )));
        }
        Ok(encoded)
    }

    fn check_property(&self, name: &str, value: &str) -> Result<(), ClientError> {
        let is_separator = |c: char| c == '\u{1}' || c == '\u{2}';
        if name.is_empty() {
            return Err(self.refused("a property has no name".to_owned()));
        }
        if name.contains(is_separator) || value.contains(is_separator) {
            return Err(self.refused(format!(
                "property {name:?} holds U+0001 or U+0002, which part properties"
            )));
        }
        Ok(())
    }

    pub(crate) fn refused(&self, problem: String) -> ClientError {
        ClientError::Message { topic: self.topic.clone(), problem }
    }
}

impl Delivery {
    fn property(self) -> (&'static str, Option<String>) {
        match self {
            Self::Now => (names::DELAY_LEVEL, None),
            Self::Level(level) => (names::DELAY_LEVEL, Some(level.to_string())),
            Self::After(delay) => (names::TIMER_DELAY_MS, Some(delay.as_millis().to_string())),
            Self::At(time_ms) => (names::TIMER_DELIVER_MS, Some(time_ms.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_behind_the_users_properties_and_replace_them() {
        let message = Message::new("t", "b")
            .with_tag("a")
            .with_key("k1")
            .with_key("k2")
            .with_property("TAGS", "other")
            .with_property("color", "red")
            .with_delivery(Delivery::Level(3));
        let encoded = message.encode_properties(&[("UNIQ_KEY", "U")]).unwrap();
        let expected =
            b"color\x01red\x02TAGS\x01a\x02KEYS\x01k1 k2\x02DELAY\x013\x02UNIQ_KEY\x01U\x02";
        assert_eq!(encoded, expected);
    }

    #[test]
    fn properties_that_would_break_the_encoding_are_refused() {
        let bad = [
            Message::new("t", "").with_property("a\u{1}", "b"),
            Message::new("t", "").with_tag("a\u{2}b"),
            Message::new("t", "").with_property("", "b"),
            Message::new("t", "").with_property("a", "b".repeat(PROPERTIES_BYTES_MAX)),
        ];
        for message in bad {
            assert!(message.encode_properties(&[]).is_err(), "{message:?}");
        }
    }
}
