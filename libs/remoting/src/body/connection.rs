//! Who is connected.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::reader::known;
use super::{ConsumeFromWhere, ConsumeType, MessageModel, SubscriptionData, bodies};
use crate::command::Language;

/// One client. Source: `org.apache.rocketmq.remoting.protocol.body.Connection`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Connection {
    /// `host:port` as the broker sees it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_addr: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_id: String,
    #[serde(with = "language", skip_serializing_if = "Option::is_none")]
    pub language: Option<Language>,
    /// Ordinal in the list of RocketMQ's releases (`MQVersion`).
    pub version: i32,
}

/// The consumers of a group (code 203). Source: `…body.ConsumerConnection`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConsumerConnection {
    pub connection_set: Vec<Connection>,
    #[serde(deserialize_with = "known", skip_serializing_if = "Option::is_none")]
    pub consume_from_where: Option<ConsumeFromWhere>,
    #[serde(deserialize_with = "known", skip_serializing_if = "Option::is_none")]
    pub consume_type: Option<ConsumeType>,
    #[serde(deserialize_with = "known", skip_serializing_if = "Option::is_none")]
    pub message_model: Option<MessageModel>,
    /// Topic → what the group wants of it.
    pub subscription_table: BTreeMap<String, SubscriptionData>,
}

/// The producers of a group (code 204). Source: `…body.ProducerConnection`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProducerConnection {
    pub connection_set: Vec<Connection>,
}

/// All producers of a broker (code 328). Source: `…body.ProducerTableInfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProducerTableInfo {
    /// Group → its producers.
    pub data: BTreeMap<String, Vec<ProducerInfo>>,
}

/// Source: `org.apache.rocketmq.remoting.protocol.body.ProducerInfo`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProducerInfo {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_id: String,
    #[serde(with = "language", skip_serializing_if = "Option::is_none")]
    pub language: Option<Language>,
    /// Milliseconds since 1970.
    pub last_update_timestamp: i64,
    #[serde(rename = "remoteIP", skip_serializing_if = "String::is_empty")]
    pub remote_ip: String,
    pub version: i32,
}

bodies!(Connection, ConsumerConnection, ProducerConnection, ProducerTableInfo, ProducerInfo);

/// A language travels by its name in Apache's `LanguageCode`.
mod language {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::command::Language;

    pub(super) fn serialize<S: Serializer>(
        language: &Option<Language>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match language {
            Some(language) => serializer.serialize_str(language.name()),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Language>, D::Error> {
        // Java ignores a name it does not know; numbers are taken as they are.
        let text: Option<String> = Option::deserialize(deserializer)?;
        Ok(text.and_then(|text| match text.parse() {
            Ok(code) => Some(Language(code)),
            Err(_) => {
                let known = |language: &Language| language.name().eq_ignore_ascii_case(&text);
                (0..=u8::MAX).map(Language).find(known)
            }
        }))
    }
}
