//! What a consumer wants of a topic.

use weirmq_message::tags::java_string_hash;
use weirmq_remoting::body::SubscriptionData;

use crate::ClientError;
use crate::unique_key::now_ms;

/// The expression that every message matches.
const ALL: &str = "*";

/// Which messages of a topic a consumer wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Filter {
    /// Every message.
    #[default]
    All,
    /// Messages whose tag is one of these, written `a || b`. `*` and nothing mean every message.
    Tags(String),
    /// Messages whose properties satisfy an SQL-92 expression; the broker has to allow it
    /// (`enablePropertyFilter`).
    Sql(String),
}

impl From<&str> for Filter {
    /// A tag expression.
    fn from(expression: &str) -> Self {
        Self::Tags(expression.to_owned())
    }
}

impl Filter {
    /// The subscription to `topic` as brokers want it. Source: `FilterAPI.build`.
    ///
    /// # Errors
    /// [`ClientError::Config`] for an SQL expression that is empty, or tags of nothing but bars.
    pub(crate) fn subscription(&self, topic: &str) -> Result<SubscriptionData, ClientError> {
        let mut data = SubscriptionData {
            topic: topic.to_owned(),
            sub_version: now_ms(),
            sub_string: ALL.to_owned(),
            ..SubscriptionData::default()
        };
        match self {
            Self::All => {}
            Self::Tags(expression) if matches!(expression.trim(), "" | ALL) => {}
            Self::Tags(expression) => {
                let tags = expression.split("||").map(str::trim).filter(|tag| !tag.is_empty());
                data.tags_set = tags.map(str::to_owned).collect();
                if data.tags_set.is_empty() {
                    return Err(ClientError::Config(format!(
                        "tag expression {expression:?} names no tag; write a || b, or * for all"
                    )));
                }
                data.code_set = data.tags_set.iter().map(|tag| java_string_hash(tag)).collect();
                data.sub_string.clone_from(expression);
            }
            Self::Sql(expression) if expression.trim().is_empty() => {
                return Err(ClientError::Config(format!("SQL filter of topic {topic} is empty")));
            }
            Self::Sql(expression) => {
                data.sub_string.clone_from(expression);
                data.expression_type = "SQL92".to_owned();
            }
        }
        Ok(data)
    }
}

/// Whether a message with this tag is wanted. Brokers compare hashes, which other tags may share,
/// so the tags themselves are compared here once more.
pub(crate) fn wants(subscription: &SubscriptionData, tag: Option<&str>) -> bool {
    let tags = &subscription.tags_set;
    tags.is_empty() || tag.is_some_and(|tag| tags.contains(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_trimmed_and_hashed() {
        let data = Filter::from(" TagA ||b|| ").subscription("t").unwrap();
        assert_eq!(data.tags_set.iter().collect::<Vec<_>>(), ["TagA", "b"]);
        assert_eq!(data.code_set.into_iter().collect::<Vec<_>>(), [98, 2_598_919]);
        assert_eq!(
            (data.expression_type.as_str(), data.sub_string.as_str()),
            ("TAG", " TagA ||b|| ")
        );
    }

    #[test]
    fn all_is_a_star_without_tags() {
        for filter in [Filter::All, Filter::from("*"), Filter::from(" ")] {
            let data = filter.subscription("t").unwrap();
            assert_eq!((data.sub_string.as_str(), data.tags_set.len()), ("*", 0));
            assert!(wants(&data, None) && wants(&data, Some("x")));
        }
    }

    #[test]
    fn tags_with_the_same_hash_are_told_apart() {
        // "Aa" and "BB" have the same hash in Java.
        let data = Filter::from("Aa").subscription("t").unwrap();
        assert!(wants(&data, Some("Aa")));
        assert!(!wants(&data, Some("BB")) && !wants(&data, None));
    }

    #[test]
    fn expressions_of_nothing_are_refused() {
        for filter in [Filter::from("||"), Filter::Sql(" ".to_owned())] {
            assert!(filter.subscription("t").is_err(), "{filter:?}");
        }
    }
}
