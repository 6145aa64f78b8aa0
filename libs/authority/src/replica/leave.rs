//! How a replica goes without anybody waiting for it.

use std::time::Duration;

use super::{Part, Replica};
use crate::Member;

impl Replica {
    /// The process is to end: from now on everybody is told, and this replica tries to become master no
    /// more. Its master takes it out of the in-sync set, where enough others are in it; meanwhile it
    /// confirms what comes as before. [`Replica::is_waited_for`] says when it may go.
    ///
    /// A master hands over first. The process has to end: there is no way back.
    pub fn leave(&mut self, now: Duration) {
        self.note_durable();
        self.is_leaving = true;
        self.campaigning_since = None;
        self.tell(now);
    }

    /// Whether acknowledgements would wait for a replica that has said that it leaves, if it went now,
    /// and need not soon: the master that it follows has yet to take it out of the set, and can. Where a
    /// quorum acknowledges nobody is taken out.
    pub fn is_waited_for(&self, now: Duration) -> bool {
        let Part::Follower { master, .. } = self.part else { return false };
        let needed = self.settings.needed_in_sync();
        let has_master = self
            .peers
            .get(&master.replica)
            .is_some_and(|peer| peer.report.from == master && peer.is_prompt(now, &self.settings));
        has_master
            && !self.settings.is_by_quorum()
            && self.is_counted()
            && self.record().is_some_and(|record| record.in_sync.len() > needed)
    }

    /// Whether nothing can be acknowledged without this replica, as far as it knows: it is in the in-sync set,
    /// and where a quorum acknowledges the others of the set are too few for one.
    pub fn is_counted(&self) -> bool {
        self.record().is_some_and(|record| {
            let members = record.in_sync.len();
            record.in_sync.has(self.me) && self.settings.needed_of(members) == members
        })
    }

    /// The connection to this start of a replica has ended. Nothing of what it said is forgotten, but
    /// until it is heard again nobody is picked that cannot be reached.
    pub fn disconnected(&mut self, member: Member) {
        self.note_durable();
        if let Some(peer) = self.peers.get_mut(&member.replica)
            && peer.report.from == member
        {
            peer.is_connected = false;
        }
    }
}
