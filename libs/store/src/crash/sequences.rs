//! All short sequences of operations.

use super::common::{Message, seeds};
use crate::config::FlushMode;

/// One thing that is done to a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    /// One message or several; bodies count up, so that no two messages are equal.
    Append(Vec<Shape>),
    /// The same, and a flush when the records are written and not yet published.
    AppendAroundFlush(Vec<Shape>),
    Flush,
    /// Seals full segments, writes the durable mark.
    Maintain,
    /// Clean stop and start.
    Reopen,
    /// `kill -9` and start.
    Kill,
    Delete,
    /// Time passes, everything flushed may go, and what has expired goes.
    Expire,
    /// The next sync of the disk fails, and its pages are lost.
    BreakSync,
}

/// What a message looks like, apart from its body's contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) topic: &'static str,
    pub(super) queue_id: i32,
    pub(super) body_bytes: usize,
    pub(super) keys: Option<&'static str>,
}

/// Of one length, so that records have one length.
pub(super) const TOPICS: [&str; 2] = ["a", "b"];

/// Operations, and how the store is set up.
#[derive(Debug, Clone)]
pub(super) struct Sequence {
    pub(super) flush: FlushMode,
    pub(super) segment_bytes: u64,
    /// Not crashed in: shorter sequences were.
    pub(super) prefix: Vec<Op>,
    pub(super) ops: Vec<Op>,
}

impl Shape {
    /// Of one size, so that records of before and after a cut come to stand at the same places.
    pub(super) const fn even(topic: &'static str) -> Self {
        Self { topic, queue_id: 0, body_bytes: 500, keys: Some("k all") }
    }

    /// The message with this number.
    pub(super) fn message(&self, number: u64) -> Message {
        let mut body = vec![number as u8 | 1; self.body_bytes.max(8)];
        body[..8].copy_from_slice(&number.to_be_bytes());
        let message = Message::new(self.topic, self.queue_id, body);
        match self.keys {
            Some(keys) => message.with("TAGS", "x").with("KEYS", keys),
            None => message,
        }
    }
}

const LONGEST: u32 = 3;

/// One is a short write, one fills half a segment of 4 KiB, one rolls.
fn alphabet() -> [Op; 9] {
    let few = |count| (0..count).map(|n| Shape::even(TOPICS[n % 2])).collect();
    [
        Op::Append(few(1)),
        Op::Append(few(3)),
        Op::Append(few(7)),
        Op::Flush,
        Op::Maintain,
        Op::Reopen,
        Op::Kill,
        Op::Delete,
        Op::Expire,
    ]
}

/// From nothing, and from two full segments, the first of them sealed.
fn prefixes() -> [Vec<Op>; 2] {
    let [_, _, seven, flush, maintain, ..] = alphabet();
    [Vec::new(), vec![seven.clone(), seven, flush, maintain]]
}

/// Sequences of up to three operations, times two beginnings, times two ways to flush.
pub(super) fn count() -> u64 {
    let letters = alphabet().len() as u64;
    let words: u64 = (1..=LONGEST).map(|length| letters.pow(length)).sum();
    words * 4
}

/// The sequence with the number of a seed, which is below [`count`].
pub(super) fn of(seed: u64) -> Sequence {
    let number = seeds::number(seed);
    let letters = alphabet();
    let flush = if number.is_multiple_of(2) { FlushMode::Sync } else { FlushMode::ASYNC };
    let prefix = prefixes()[(number / 2 % 2) as usize].clone();
    let mut word = number / 4;
    let mut length = 1;
    while word >= (letters.len() as u64).pow(length) {
        word -= (letters.len() as u64).pow(length);
        length += 1;
    }
    let ops = (0..length).map(|place| {
        let letter = word / (letters.len() as u64).pow(place) % letters.len() as u64;
        letters[letter as usize].clone()
    });
    let mut ops: Vec<Op> = ops.collect();
    let last = ops.split_off(ops.len() - 1);
    let prefix = [prefix, ops].concat();
    Sequence { flush, segment_bytes: 4096, prefix, ops: last }
}

#[test]
fn every_sequence_has_one_number() {
    let all: std::collections::BTreeSet<String> =
        (0..count()).map(|number| format!("{:?}", of(number))).collect();
    assert_eq!((all.len() as u64, 0..count()), (count(), seeds::SHORT));
}
