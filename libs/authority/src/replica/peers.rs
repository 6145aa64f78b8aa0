//! What replicas tell each other.

use std::time::Duration;

use super::{Action, Part, Replica};
use crate::in_sync::Peer;
use crate::{Member, Phase, Record, ReplicaId, Report};

impl Replica {
    /// Tells all others where this replica is. Whose connection to its master has ended may count on that one for
    /// a while, but gives no word that it could be counted on: each would be one that an election waits for.
    pub(super) fn tell(&mut self, now: Duration) {
        self.next_tell = now + self.settings.tick_every;
        let is_connected =
            |master: Member| self.peers.get(&master.replica).is_some_and(|peer| peer.is_connected);
        let follows = match self.part {
            Part::Follower { master, epoch, is_aligned: true }
                if self.hears_master(now) && is_connected(master) =>
            {
                Some(epoch)
            }
            _ => None,
        };
        if follows.is_some() {
            self.first_told_following.get_or_insert(now);
            self.told_following = Some(now);
        }
        let (leads, confirmed) = match &self.part {
            Part::Master(leading) => (Some(leading.epoch), leading.in_sync.confirmed),
            _ => (None, 0),
        };
        self.actions.push(Action::Tell(Report {
            from: self.me,
            promised: self.promise.epoch,
            promised_version: self.promise.in_sync_version,
            refuses: self.refused.is_some(),
            leaves: self.is_leaving,
            hands_over: self.is_handing_over(),
            position: self.position,
            leads,
            follows,
            lost: self.record().and_then(|record| record.lost_by(self.me, &self.promise.holds)),
            confirmed,
            sent: now,
            echo: self.master_report().map(|report| report.sent),
        }));
    }

    /// Sends the record to all others, where this replica leads by it, or has read that nobody follows by it:
    /// also who cannot ask the authority is to stop then, and to say what it has.
    pub(super) fn share(&mut self) {
        let Some((version, record)) = &self.record else { return };
        let leads = matches!(&self.part, Part::Master(leading) if leading.epoch == record.epoch);
        if leads || record.phase == Phase::Fencing && version.is_some() {
            self.actions.push(Action::Share(record.clone()));
        }
    }

    /// Another replica told this. What cannot be true is not taken for true.
    pub fn heard(&mut self, now: Duration, report: Report) {
        if !self.is_credible(now, &report) {
            return;
        }
        self.note_durable();
        let known = self.peers.get(&report.from.replica).copied();
        let is_same = |known: &Peer| known.report.promised_version == report.promised_version;
        let obeys_since = known.filter(is_same).map_or(now, |known| known.obeys_since);
        self.peers.insert(
            report.from.replica,
            Peer { report, heard: now, is_connected: true, obeys_since },
        );
        self.remember_confirmed();
        self.note_who_gave_up();
        if report.promised > self.promise.epoch {
            // It read of another master, or is one.
            self.stop_leading();
            if known.is_none_or(|known| known.report.promised != report.promised) {
                self.must_read = true;
            }
        } else {
            self.confirm();
        }
    }

    /// Another replica leads by this record, or read that it is fenced, as it says over the authenticated
    /// link. So a replica that cannot ask the authority still follows a new master.
    ///
    /// Only the record's master says so, or who read it, so the record stood there once: this is as good as
    /// a read that took long. Nothing is asked for before the authority was read.
    pub fn heard_record(&mut self, now: Duration, from: Member, record: Record) {
        let version = record.in_sync_version;
        let is_news = self.record().is_none_or(|known| known.in_sync_version < version);
        let is_fenced = record.phase == Phase::Fencing;
        let is_theirs =
            (is_fenced || record.master == Some(from)) && from.replica != self.me.replica;
        let is_refused = self.promise.complaint_about(&record).is_some();
        if is_news && is_theirs && !is_refused && self.knows(from.replica) {
            self.note_durable();
            self.is_current = false;
            self.must_read = true;
            self.obeyed_heard = Some(now);
            self.obey(now, None, record);
        }
    }

    fn is_credible(&self, now: Duration, report: &Report) -> bool {
        let sender = report.from.replica;
        let is_news = |known: &Peer| {
            let is_same = known.report.from == report.from;
            // The network may deliver in another order, or twice. A second process of one replica
            // waits until the first is gone.
            let is_gone = !self.is_linked(known, now) || !known.is_connected || known.report.leaves;
            is_same && report.sent > known.report.sent || !is_same && is_gone
        };
        // What it has of this master, and the time of it by this master's clock. To others that time
        // says nothing: clocks of two machines have nothing in common.
        let is_ahead_of_master = match &self.part {
            Part::Master(leading) => {
                let is_later = report.echo.is_some_and(|echo| echo > now);
                let is_longer = report.position.end > self.position.end;
                report.follows == Some(leading.epoch) && (is_later || is_longer)
            }
            Part::Waiting | Part::Follower { .. } => false,
        };
        sender != self.me.replica
            && self.knows(sender)
            && report.position.flushed <= report.position.end
            && !is_ahead_of_master
            && self.peers.get(&sender).is_none_or(is_news)
    }

    /// Notes whether the record's master has given its office up, by its own word: it has obeyed that record,
    /// so it has led, leads no more, and is about to begin anew (`leaves`), which masters of versions before
    /// that field do not say. Such a start never leads again: it does not campaign, and nobody gives it an
    /// office.
    pub(super) fn note_who_gave_up(&mut self) {
        let Some((_, record)) = &self.record else { return };
        let (Some(master), epoch) = (record.master, record.epoch) else { return };
        let says_so = self.peers.get(&master.replica).is_some_and(|peer| {
            let report = peer.report;
            let is_over = report.leaves && report.leads.is_none();
            report.from == master && report.promised >= epoch && is_over
        });
        if says_so {
            self.gave_up = Some((master, epoch));
        }
    }

    /// Whether the master of this record gave its office up.
    pub(super) fn has_given_up(&self, record: &Record) -> bool {
        let office = record.master.map(|master| (master, record.epoch));
        office.is_some() && office == self.gave_up
    }

    /// Whether a replica belongs to the group, or did when the record was written.
    pub(super) fn knows(&self, replica: ReplicaId) -> bool {
        let is_in = |record: &Record| record.electable().any(|member| member.replica == replica);
        self.settings.group.contains(&replica) || self.record().is_some_and(is_in)
    }

    /// The last report of the master that this replica follows.
    pub(super) fn master_report(&self) -> Option<&Report> {
        let Part::Follower { master, epoch, .. } = self.part else { return None };
        let report = &self.peers.get(&master.replica)?.report;
        (report.from == master && report.leads == Some(epoch)).then_some(report)
    }

    /// Whether the master that this replica follows was heard lately.
    pub(super) fn hears_master(&self, now: Duration) -> bool {
        let Part::Follower { master, .. } = self.part else { return false };
        self.master_report().is_some()
            && self.peers.get(&master.replica).is_some_and(|peer| self.is_linked(peer, now))
    }

    pub(super) fn is_linked(&self, peer: &Peer, now: Duration) -> bool {
        now.saturating_sub(peer.heard) < self.settings.link_timeout
    }

    /// What this start of another replica says, while it is connected.
    pub(super) fn linked_report(&self, now: Duration, member: Member) -> Option<Report> {
        let peer = self.peers.get(&member.replica)?;
        (peer.report.from == member && self.is_linked(peer, now)).then_some(peer.report)
    }

    /// Takes in what the master says is confirmed, as far as it is in this log.
    pub(super) fn remember_confirmed(&mut self) {
        if let Part::Follower { is_aligned: true, .. } = self.part
            && let Some(report) = self.master_report()
        {
            let here = report.confirmed.min(self.position.counted(&self.settings));
            self.confirmed = self.confirmed.max(here);
        }
    }
}
