//! Damaged blocks of this replica's log come back from another one, and others' from here.
//!
//! A slave asks its master, a master those who follow it. What comes is compared with what this log
//! says of itself ([`weirmq_store::Store::repair_block`]); what nobody has stays damaged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use weirmq_authority::{Member, ReplicaId};
use weirmq_store::DamagedRange;

use super::Driver;
use super::said::Said;
use crate::replication::frame::{Frame, Lacking, LogBytes, Lost};
use crate::replication::refusals::in_short;

/// From this version of the protocol on it has frames for that.
const PROTOCOL: u32 = 2;
/// So many blocks are asked for at once, and read at once for others.
const BLOCKS: usize = 8;
/// When a block is asked for again that did not come, or was of no use.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// What was asked for, by where it begins.
pub(super) struct Repairs {
    asked: BTreeMap<u64, Asked>,
    /// Where the logs of others begin, as far as they said so: nothing before that is asked for.
    begins: BTreeMap<ReplicaId, u64>,
    reading: Arc<Semaphore>,
    /// Why what came, or did not, was of no use: of which place, from whom.
    useless: Arc<Mutex<Said<(u64, ReplicaId)>>>,
}

struct Asked {
    of: ReplicaId,
    at: Duration,
    is_answered: bool,
    /// How often; each time somebody else has the first turn.
    times: usize,
}

impl Default for Repairs {
    fn default() -> Self {
        let reading = Arc::new(Semaphore::new(BLOCKS));
        let (asked, begins, useless) = Default::default();
        Self { asked, begins, reading, useless }
    }
}

impl Driver {
    /// Asks for what is damaged here and not asked for yet.
    pub(super) fn ask_for_lost(&mut self) {
        let damaged = self.broker.store.damaged();
        if damaged.is_empty() {
            if !self.repairs.asked.is_empty() {
                self.repairs.asked.clear();
                self.repairs.useless.lock().retain(|_| false);
            }
            return;
        }
        let now = self.now();
        let is_damaged =
            |from: &u64| damaged.binary_search_by_key(from, |range| range.from).is_ok();
        self.repairs.asked.retain(|from, _| is_damaged(from));
        self.repairs.useless.lock().retain(|(from, _)| is_damaged(from));
        let is_out = |asked: &&Asked| !asked.is_answered && now < asked.at + ASK_AGAIN;
        let mut room = BLOCKS.saturating_sub(self.repairs.asked.values().filter(is_out).count());
        for range in &damaged {
            if room == 0 {
                return;
            }
            let asked = self.repairs.asked.get(&range.from);
            if asked.is_some_and(|asked| now < asked.at + ASK_AGAIN) {
                continue;
            }
            let times = asked.map_or(0, |asked| asked.times);
            let owners = self.owners_of(range);
            let Some(of) = owners.get(times % owners.len().max(1)).copied() else { continue };
            let epoch = self.epochs.at(range.to - 1);
            let lost = Lost { from: range.from, to: range.to, epoch };
            if let Some(link) = self.links.get(&of)
                && link.later().try_send(Frame::Lost(lost)).is_ok()
            {
                let asked = Asked { of, at: now, is_answered: false, times: times + 1 };
                self.repairs.asked.insert(range.from, asked);
                room -= 1;
            }
        }
    }

    /// Who should have what is damaged here, those in sync first.
    fn owners_of(&self, range: &DamagedRange) -> Vec<ReplicaId> {
        let can_answer = |replica: &ReplicaId| {
            self.links.get(replica).is_some_and(|link| link.protocol >= PROTOCOL)
                && self.repairs.begins.get(replica).is_none_or(|begin| *begin <= range.from)
        };
        if let Some(following) = &self.following {
            let master = following.master.replica;
            let has_it = following.is_aligned && following.master_start <= range.from;
            return Some(master)
                .filter(|master| has_it && can_answer(master))
                .into_iter()
                .collect();
        }
        let Some(epoch) = self.leading else { return Vec::new() };
        let record = self.replica.record();
        let is_in_sync = |member| record.is_some_and(|record| record.in_sync.has(member));
        let mut owners: Vec<_> = self
            .reports
            .values()
            .map(|(report, _)| report)
            .filter(|report| report.follows == Some(epoch) && report.position.end >= range.to)
            .filter(|report| can_answer(&report.from.replica))
            .map(|report| (!is_in_sync(report.from), report.from.replica))
            .collect();
        owners.sort_unstable();
        owners.into_iter().map(|(_, replica)| replica).collect()
    }

    /// Another replica has lost this. The disk is read for it on a thread of its own; who asks for more at
    /// once than is read asks again.
    pub(super) fn on_lost(&self, peer: Member, lost: Lost) {
        let Some(link) = self.links.get(&peer.replica) else { return };
        let answer = link.later();
        let store = self.broker.store.clone();
        let start = store.min_offset();
        let lacking = move |why: &str| {
            let (from, to, why) = (lost.from, lost.to, why.to_owned());
            Frame::Lacking(Lacking { from, to, start, why })
        };
        if lost.to <= lost.from || self.epochs.at(lost.to - 1) != lost.epoch {
            let _ = answer.try_send(lacking("another epoch wrote that part of the log here"));
            return;
        }
        let Ok(turn) = self.repairs.reading.clone().try_acquire_owned() else { return };
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let frame = match store.read_block(lost.from, lost.to) {
                Ok(Some(bytes)) => {
                    let (epoch, position) = (lost.epoch.map_or(0, |it| it.epoch), lost.from);
                    Frame::Found(LogBytes { epoch, position, bytes: Bytes::from(bytes) })
                }
                Ok(None) => lacking("it is not here, or without a checksum that it fits"),
                Err(error) => lacking(&error.to_string()),
            };
            // It asks again.
            let _ = answer.try_send(frame);
        });
    }

    /// What another replica has at a place that is damaged here.
    pub(super) fn on_found(&mut self, peer: Member, found: LogBytes) {
        let (from, bytes) = (found.position, found.bytes.len());
        if !self.take_answer(peer, from) {
            return;
        }
        let (store, useless) = (self.broker.store.clone(), self.repairs.useless.clone());
        let of = peer.replica;
        let replica = of.0;
        tokio::task::spawn_blocking(move || match store.repair_block(from, &found.bytes) {
            Ok(true) => {
                tracing::warn!(from, bytes, replica, "a damaged range came back from a replica");
            }
            Ok(false) => {
                if useless.lock().is_news((from, of), "other bytes") {
                    tracing::error!(
                        from,
                        bytes,
                        replica,
                        "what a replica has is not what was written here; the range stays damaged"
                    );
                }
            }
            Err(error) => {
                if useless.lock().is_news((from, of), &error.to_string()) {
                    tracing::error!(%error, from, "a damaged range could not be repaired");
                }
            }
        });
    }

    /// Another replica does not have it either.
    pub(super) fn on_lacking(&mut self, peer: Member, lacking: Lacking) {
        let Lacking { from, to, start, why } = lacking;
        if !self.take_answer(peer, from) {
            return;
        }
        if start > from {
            self.repairs.begins.insert(peer.replica, start);
        }
        let why = in_short(&why);
        if self.repairs.useless.lock().is_news((from, peer.replica), &why) {
            let replica = peer.replica.0;
            tracing::error!(
                from,
                to,
                replica,
                why,
                "a replica cannot replace what is damaged here"
            );
        }
    }

    /// Whether it was asked for that.
    fn take_answer(&mut self, peer: Member, from: u64) -> bool {
        let asked = self.repairs.asked.get_mut(&from);
        let asked = asked.filter(|asked| asked.of == peer.replica && !asked.is_answered);
        asked.map(|asked| asked.is_answered = true).is_some()
    }
}
