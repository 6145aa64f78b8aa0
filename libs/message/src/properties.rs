//! The properties of a message: `key U+0001 value U+0002`, repeated, as UTF-8 bytes.
//!
//! Source: `MessageDecoder.messageProperties2String` and `string2messageProperties`. Like Apache
//! this reads the last pair also without its closing U+0002, and steps over pairs without U+0001.

/// Ends a key.
pub const NAME_VALUE_SEPARATOR: u8 = 1;
/// Ends a value.
pub const PROPERTY_SEPARATOR: u8 = 2;
/// The longest properties a record can hold, in bytes: the length field is a signed 16-bit number.
pub const PROPERTIES_BYTES_MAX: usize = i16::MAX as usize;

/// Names of the properties that brokers and clients give a meaning. Source: `MessageConst`.
pub mod names {
    pub const KEYS: &str = "KEYS";
    pub const TAGS: &str = "TAGS";
    pub const WAIT_STORE_OK: &str = "WAIT";
    pub const DELAY_LEVEL: &str = "DELAY";
    pub const RETRY_TOPIC: &str = "RETRY_TOPIC";
    pub const REAL_TOPIC: &str = "REAL_TOPIC";
    pub const REAL_QUEUE_ID: &str = "REAL_QID";
    pub const TRANSACTION_PREPARED: &str = "TRAN_MSG";
    pub const PRODUCER_GROUP: &str = "PGROUP";
    pub const MIN_OFFSET: &str = "MIN_OFFSET";
    pub const MAX_OFFSET: &str = "MAX_OFFSET";
    pub const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
    pub const RECONSUME_TIME: &str = "RECONSUME_TIME";
    pub const MAX_RECONSUME_TIMES: &str = "MAX_RECONSUME_TIMES";
    pub const MSG_REGION: &str = "MSG_REGION";
    pub const TRACE_SWITCH: &str = "TRACE_ON";
    pub const UNIQUE_KEY: &str = "UNIQ_KEY";
    pub const INNER_NUM: &str = "INNER_NUM";
    pub const CLUSTER: &str = "CLUSTER";
    pub const SHARDING_KEY: &str = "__SHARDINGKEY";
    pub const DLQ_ORIGIN_TOPIC: &str = "DLQ_ORIGIN_TOPIC";
    pub const DLQ_ORIGIN_MESSAGE_ID: &str = "DLQ_ORIGIN_MESSAGE_ID";
    pub const TIMER_DELAY_SEC: &str = "TIMER_DELAY_SEC";
    pub const TIMER_DELAY_MS: &str = "TIMER_DELAY_MS";
    pub const TIMER_DELIVER_MS: &str = "TIMER_DELIVER_MS";
    pub const TIMER_OUT_MS: &str = "TIMER_OUT_MS";
}

/// The pairs of `encoded`, in order, as they stand.
pub fn iter(encoded: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    iter_at(encoded).map(|(name, value, _)| (name, value))
}

/// The pairs of `encoded` as [`iter`] gives them, each with the position of its value.
pub fn iter_at(encoded: &[u8]) -> impl Iterator<Item = (&[u8], &[u8], usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = encoded.get(at..)?;
        let length = memchr::memchr(PROPERTY_SEPARATOR, rest).unwrap_or(rest.len());
        let pair_at = at;
        at += length + 1;
        Some((&rest[..length], pair_at))
    })
    .filter_map(|(pair, pair_at)| {
        let name = pair.iter().position(|byte| *byte == NAME_VALUE_SEPARATOR)?;
        Some((&pair[..name], &pair[name + 1..], pair_at + name + 1))
    })
}

/// The value of `name`, the last one if it stands several times (as in a Java map).
/// `None` when it is absent or not UTF-8.
pub fn get<'a>(encoded: &'a [u8], name: &str) -> Option<&'a str> {
    let (_, value) = iter(encoded).filter(|(key, _)| *key == name.as_bytes()).last()?;
    std::str::from_utf8(value).ok()
}

/// Appends one pair.
pub fn push(encoded: &mut Vec<u8>, name: &str, value: &str) {
    if encoded.last().is_some_and(|last| *last != PROPERTY_SEPARATOR) {
        encoded.push(PROPERTY_SEPARATOR);
    }
    encoded.extend_from_slice(name.as_bytes());
    encoded.push(NAME_VALUE_SEPARATOR);
    encoded.extend_from_slice(value.as_bytes());
    encoded.push(PROPERTY_SEPARATOR);
}

/// A copy of `encoded` without the pairs called `name`.
pub fn without(encoded: &[u8], name: &str) -> Vec<u8> {
    let mut kept = Vec::with_capacity(encoded.len());
    for (key, value) in iter(encoded).filter(|(key, _)| *key != name.as_bytes()) {
        kept.extend_from_slice(key);
        kept.push(NAME_VALUE_SEPARATOR);
        kept.extend_from_slice(value);
        kept.push(PROPERTY_SEPARATOR);
    }
    kept
}

/// A copy of `encoded` in which `name` has exactly this value.
pub fn with(encoded: &[u8], name: &str, value: &str) -> Vec<u8> {
    let mut changed = without(encoded, name);
    push(&mut changed, name, value);
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_back_in_order_also_without_the_last_separator() {
        let encoded = b"TAGS\x01a\x02KEYS\x01k1 k2";
        let pairs: Vec<_> = iter(encoded).collect();
        assert_eq!(pairs, [(&b"TAGS"[..], &b"a"[..]), (&b"KEYS"[..], &b"k1 k2"[..])]);
        assert_eq!(get(encoded, "KEYS"), Some("k1 k2"));
        assert_eq!(get(encoded, "WAIT"), None);
    }

    #[test]
    fn a_pair_is_replaced_and_an_open_end_is_closed_first() {
        assert_eq!(with(b"A\x011\x02B\x012", "A", "9"), b"B\x012\x02A\x019\x02");
        let mut open = b"A\x011".to_vec();
        push(&mut open, "B", "2");
        assert_eq!(open, b"A\x011\x02B\x012\x02");
    }
}
