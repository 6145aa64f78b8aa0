//! Names of topics, groups and brokers, proved to be harmless once and for all.

use std::fmt;
use std::sync::Arc;

/// The longest topic name that users may choose, in bytes. Source: `TopicValidator`.
pub const TOPIC_BYTES_MAX: usize = 127;
/// The longest consumer or producer group name, in bytes. Apache's brokers take 255, its clients
/// refuse more than 120; retry and dead-letter topics add a prefix.
pub const GROUP_BYTES_MAX: usize = 255 - DLQ_PREFIX.len() - 2;
/// The longest name of a retry or dead-letter topic, in bytes.
pub const RETRY_TOPIC_BYTES_MAX: usize = 255;
/// What a group's retry topic begins with.
pub const RETRY_PREFIX: &str = "%RETRY%";
/// What a group's dead-letter topic begins with.
pub const DLQ_PREFIX: &str = "%DLQ%";

/// A name made of `% | a-z A-Z 0-9 _ -`, not empty and within its length: harmless as a key, in a
/// log line and in a metric. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceName(Arc<str>);

/// Why a text is not a name. The texts follow Apache's, which people search for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("The specified {kind} is blank.")]
    Blank { kind: &'static str },
    #[error("The specified {kind} is {length} bytes, the limit is {max}; choose a shorter name.")]
    TooLong { kind: &'static str, length: usize, max: usize },
    #[error("The specified {kind} contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$")]
    Characters { kind: &'static str },
}

impl ResourceName {
    /// A topic's name: at most 127 bytes, 255 with the prefix of a retry or dead-letter topic.
    pub fn topic(text: &str) -> Result<Self, NameError> {
        let is_group_topic = text.starts_with(RETRY_PREFIX) || text.starts_with(DLQ_PREFIX);
        let max = if is_group_topic { RETRY_TOPIC_BYTES_MAX } else { TOPIC_BYTES_MAX };
        Self::parse("topic", text, max)
    }

    /// A producer's or consumer's group.
    pub fn group(text: &str) -> Result<Self, NameError> {
        Self::parse("group", text, GROUP_BYTES_MAX)
    }

    /// The name of a broker or of a cluster.
    pub fn broker(text: &str) -> Result<Self, NameError> {
        // Broker names are host names by default, so a dot is fine here and only here.
        let dotless = text.replace('.', "-");
        Self::parse("broker or cluster name", &dotless, TOPIC_BYTES_MAX)?;
        Ok(Self(Arc::from(text)))
    }

    fn parse(kind: &'static str, text: &str, max: usize) -> Result<Self, NameError> {
        if text.trim().is_empty() {
            return Err(NameError::Blank { kind });
        }
        if text.len() > max {
            return Err(NameError::TooLong { kind, length: text.len(), max });
        }
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"%|_-".contains(&byte);
        if !text.bytes().all(is_allowed) {
            return Err(NameError::Characters { kind });
        }
        Ok(Self(Arc::from(text)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The topic that holds this group's messages to be consumed again.
    pub fn retry_topic(&self) -> Self {
        Self(format!("{RETRY_PREFIX}{self}").into())
    }

    /// The topic that holds this group's messages that were given up.
    pub fn dead_letter_topic(&self) -> Self {
        Self(format!("{DLQ_PREFIX}{self}").into())
    }

    pub fn is_retry_topic(&self) -> bool {
        self.0.starts_with(RETRY_PREFIX)
    }

    pub fn is_dead_letter_topic(&self) -> bool {
        self.0.starts_with(DLQ_PREFIX)
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl std::borrow::Borrow<str> for ResourceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for ResourceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_paths_or_are_too_long_are_refused() {
        for bad in ["", "  ", "../x", "a/b", "a.b", "a b", "ä", &"t".repeat(128)] {
            assert!(ResourceName::topic(bad).is_err(), "{bad}");
        }
        assert!(ResourceName::topic(&"t".repeat(127)).is_ok());
        assert!(ResourceName::topic(&format!("%RETRY%{}", "g".repeat(200))).is_ok());
        assert!(ResourceName::broker("broker-0.weir.svc").is_ok());
        assert!(ResourceName::broker("../x").is_err());
    }

    #[test]
    fn a_groups_topics_are_names_too() {
        let group = ResourceName::group(&"g".repeat(GROUP_BYTES_MAX)).unwrap();
        assert!(ResourceName::topic(group.retry_topic().as_str()).is_ok());
        assert!(group.dead_letter_topic().is_dead_letter_topic());
    }
}
