//! By which changes a record came to be what it is.

use serde::{Deserialize, Serialize};

use crate::{Members, Record};

/// How many versions are remembered.
const LENGTH: usize = 64;

/// A digest of a record and of all before it, so that two records with one tag had the same past.
/// No defence against forgery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Tag(pub u64);

/// As 16 hexadecimal digits, as an incarnation.
impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        format!("{:016x}", tag.0)
    }
}

impl TryFrom<String> for Tag {
    type Error = std::num::ParseIntError;

    fn try_from(digits: String) -> Result<Self, Self::Error> {
        u64::from_str_radix(&digits, 16).map(Self)
    }
}

/// The tags of a record's last versions, up to 64, the newest last. Empty in a record that nobody
/// changed yet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Trail(Vec<Tag>);

impl Trail {
    /// The trail of which only this newest tag is known.
    pub(crate) fn of(tag: Tag) -> Self {
        Self(vec![tag])
    }

    /// The newest tag.
    pub fn last(&self) -> Option<Tag> {
        self.0.last().copied()
    }

    /// The tag of the version that is so many versions back.
    pub(crate) fn back(&self, versions: u64) -> Option<Tag> {
        let place = self.0.len().checked_sub(1)?.checked_sub(usize::try_from(versions).ok()?)?;
        self.0.get(place).copied()
    }

    /// The trail with what `next` is in it.
    pub(crate) fn extended(&self, next: &Record) -> Self {
        let mut tags = self.0.clone();
        tags.push(digest(self.last(), next));
        tags.drain(..tags.len().saturating_sub(LENGTH));
        Self(tags)
    }
}

/// Mixes a record into the digest of those before it. Stored, so it never changes.
fn digest(before: Option<Tag>, record: &Record) -> Tag {
    let mut digest = before.map_or(0x9E37_79B9_7F4A_7C15, |tag| tag.0);
    let mut mix = |number: u64| {
        // SplitMix64's finalizer.
        digest = (digest ^ number).wrapping_add(0x9E37_79B9_7F4A_7C15);
        digest = (digest ^ (digest >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        digest = (digest ^ (digest >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        digest ^= digest >> 31;
    };
    let Record { epoch, phase, master, in_sync, in_sync_version, eligible, loss_epoch, trail: _ } =
        record;
    [*epoch, *phase as u64, *in_sync_version, *loss_epoch].into_iter().for_each(&mut mix);
    let master: Members = (*master).into_iter().collect();
    for members in [&master, in_sync, eligible] {
        mix(members.len() as u64);
        for member in members.iter() {
            mix(u64::from(member.replica.0));
            mix(member.incarnation.0);
        }
    }
    Tag(digest)
}
