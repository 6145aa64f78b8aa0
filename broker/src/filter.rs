//! Which messages a consumer wants: tags, compared by hash without looking at the message.
//!
//! Two tags may have the same hash; consumers compare the tags themselves again.
//! Source: `FilterAPI.buildSubscriptionData`, `DefaultMessageFilter`.

use weirmq_message::tags;
use weirmq_remoting::body::SubscriptionData;

/// The most tags that one expression may name.
const TAGS_MAX: usize = 256;

/// What a pull lets through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TagFilter {
    All,
    /// Sorted hashes.
    Hashes(Vec<i64>),
}

/// Why an expression cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterError {
    #[error("The broker does not support consumer to filter message by {0}")]
    Type(String),
    #[error("the expression names {0} tags, the limit is {TAGS_MAX}")]
    TooMany(usize),
    #[error("parse the consumer's subscription failed: the expression names no tag")]
    NoTag,
}

impl TagFilter {
    /// Reads `a || b`; nothing and `*` mean everything.
    pub(crate) fn parse(expression: &str, kind: Option<&str>) -> Result<Self, FilterError> {
        if let Some(kind) = kind.filter(|kind| !kind.is_empty() && *kind != "TAG") {
            return Err(FilterError::Type(kind.to_owned()));
        }
        let expression = expression.trim();
        if expression.is_empty() || expression == "*" {
            return Ok(Self::All);
        }
        let named = expression.split("||").map(str::trim).filter(|tag| !tag.is_empty());
        let mut hashes: Vec<_> = named.map(|tag| tags::tag_hash(Some(tag))).collect();
        if hashes.len() > TAGS_MAX {
            return Err(FilterError::TooMany(hashes.len()));
        }
        if hashes.is_empty() {
            return Err(FilterError::NoTag);
        }
        hashes.sort_unstable();
        hashes.dedup();
        Ok(Self::Hashes(hashes))
    }

    /// What a heartbeat said about a topic.
    pub(crate) fn of(subscription: &SubscriptionData) -> Result<Self, FilterError> {
        Self::parse(&subscription.sub_string, Some(&subscription.expression_type))
    }

    pub(crate) fn accepts(&self, tag_hash: i64) -> bool {
        match self {
            Self::All => true,
            Self::Hashes(hashes) => hashes.binary_search(&tag_hash).is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_name_tags_or_everything() {
        for all in ["", "*", " * "] {
            assert_eq!(TagFilter::parse(all, None), Ok(TagFilter::All));
        }
        let filter = TagFilter::parse(" TagA|| TagB ||", Some("TAG")).unwrap();
        assert!(filter.accepts(tags::tag_hash(Some("TagA"))));
        assert!(filter.accepts(tags::tag_hash(Some("TagB"))));
        assert!(!filter.accepts(tags::tag_hash(Some("TagC"))) && !filter.accepts(0));
        assert_eq!(TagFilter::parse("||", None), Err(FilterError::NoTag));
        assert!(matches!(TagFilter::parse("a > 1", Some("SQL92")), Err(FilterError::Type(_))));
    }
}
