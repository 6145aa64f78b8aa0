//! Who belongs to a group.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A replica's place in its group, from 0; on Kubernetes the ordinal of its pod. Not the broker
/// id, which says who is master and changes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplicaId(pub u32);

/// One start of a replica: random, so that nothing that was said of an earlier start is taken for
/// this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Incarnation(pub u64);

/// As 16 hexadecimal digits: JSON numbers above 2^53 are rounded by some who read them, and an
/// API server is one.
impl From<Incarnation> for String {
    fn from(incarnation: Incarnation) -> Self {
        format!("{:016x}", incarnation.0)
    }
}

impl TryFrom<String> for Incarnation {
    type Error = std::num::ParseIntError;

    fn try_from(digits: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&digits, 16).map(Self)
    }
}

/// One start of one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Which replica.
    pub replica: ReplicaId,
    /// Which of its starts.
    pub incarnation: Incarnation,
}

/// A set of members, each replica at most once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Members(BTreeMap<ReplicaId, Incarnation>);

impl Members {
    /// Whether exactly this start of the replica is in the set.
    pub fn has(&self, member: Member) -> bool {
        self.0.get(&member.replica) == Some(&member.incarnation)
    }

    /// The start of this replica that is in the set.
    pub fn incarnation_of(&self, replica: ReplicaId) -> Option<Incarnation> {
        self.0.get(&replica).copied()
    }

    /// Adds a member, in place of an earlier start of the same replica.
    pub fn insert(&mut self, member: Member) {
        self.0.insert(member.replica, member.incarnation);
    }

    /// Takes a replica out, whichever start of it is in.
    pub fn remove(&mut self, replica: ReplicaId) {
        self.0.remove(&replica);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All members, by replica.
    pub fn iter(&self) -> impl Iterator<Item = Member> + '_ {
        self.0.iter().map(|(&replica, &incarnation)| Member { replica, incarnation })
    }
}

impl FromIterator<Member> for Members {
    fn from_iter<I: IntoIterator<Item = Member>>(members: I) -> Self {
        Self(members.into_iter().map(|member| (member.replica, member.incarnation)).collect())
    }
}
