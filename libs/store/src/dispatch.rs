//! What a record contributes to the structures derived from the log.

use weirmq_message::properties::{self, names};
use weirmq_message::record::Record;
use weirmq_message::{sys_flag, tags};

/// Where the keys of a message come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySource {
    /// It cannot be found by key.
    None,
    /// `UNIQ_KEY` and each space-separated token of `KEYS`.
    Properties,
}

/// The derived entries of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dispatch {
    /// Whether the record has a ConsumeQueue entry.
    pub queue: bool,
    /// Third field of that entry.
    pub tag_hash: i64,
    pub keys: KeySource,
}

/// Says for a record found in the log what its append said; must depend on the record alone.
pub type DispatchRule = fn(&Record<'_>) -> Dispatch;

/// Apache's rule: prepared and rolled back records have no queue entry, rolled back ones no keys.
///
/// Source: `CommitLogDispatcherBuildConsumeQueue`, `IndexService.buildIndex`.
pub fn apache_rule(record: &Record<'_>) -> Dispatch {
    let transaction = sys_flag::transaction_value(record.sys_flag);
    Dispatch {
        queue: transaction != sys_flag::TRANSACTION_PREPARED
            && transaction != sys_flag::TRANSACTION_ROLLBACK,
        tag_hash: tags::tag_hash(properties::get(record.properties, names::TAGS)),
        keys: if transaction == sys_flag::TRANSACTION_ROLLBACK {
            KeySource::None
        } else {
            KeySource::Properties
        },
    }
}

/// Calls `found` with every key of encoded properties.
pub(crate) fn for_each_key(encoded: &[u8], mut found: impl FnMut(&[u8])) {
    for (name, value) in properties::iter(encoded) {
        if name == names::UNIQUE_KEY.as_bytes() {
            found(value);
        } else if name == names::KEYS.as_bytes() {
            value.split(|byte| *byte == b' ').filter(|key| !key.is_empty()).for_each(&mut found);
        }
    }
}

/// The half of a key's hash that depends on the topic, see [`key_hash`].
pub(crate) fn topic_seed(topic: &str) -> u64 {
    fold(0x9E37_79B9_7F4A_7C15, topic.as_bytes())
}

/// The hash by which the index finds `topic#key`. It stands in files, so it may never change.
pub(crate) fn key_hash(topic_seed: u64, key: &[u8]) -> u64 {
    fold(topic_seed, key)
}

/// Multiply-and-fold over 8-byte words; candidates are verified, so a collision only costs a read.
fn fold(seed: u64, bytes: &[u8]) -> u64 {
    let mix = |hash: u64, word: u64| {
        let product = u128::from(hash ^ word) * 0xE703_7ED1_A0B4_28DB;
        (product as u64) ^ ((product >> 64) as u64)
    };
    let mut words = bytes.chunks_exact(8);
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(0xA076_1D64_78BD_642F);
    for word in words.by_ref() {
        hash = mix(hash, u64::from_le_bytes(word.try_into().expect("chunks of 8")));
    }
    let mut last = [0u8; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    mix(mix(hash, u64::from_le_bytes(last)) | 1, 0x5896_5CC7_5374_CC3F)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_unique_key_and_each_token() {
        let mut keys = Vec::new();
        for_each_key(b"KEYS\x01k1  k2\x02TAGS\x01t\x02UNIQ_KEY\x01u\x02", |key| {
            keys.push(String::from_utf8_lossy(key).into_owned());
        });
        assert_eq!(keys, ["k1", "k2", "u"]);
    }

    #[test]
    fn the_hash_stands_in_files_and_stays_what_it_is() {
        let hash = |topic, key: &str| key_hash(topic_seed(topic), key.as_bytes());
        assert_eq!(hash("orders", "key-1"), hash("orders", "key-1"));
        assert_ne!(hash("orders", "key-1"), hash("order", "skey-1"));
        let distinct: std::collections::HashSet<u64> =
            (0..100_000).map(|n| hash("orders", &format!("key-{n}"))).collect();
        assert_eq!(distinct.len(), 100_000);
    }
}
