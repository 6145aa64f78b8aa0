//! What a master does at the beginning and the end of its office, and for those who follow.

use std::time::Duration;

use weirmq_authority::{Member, ReplicaId};
use weirmq_store::StoreError;

use super::{Driver, DriverError, kept, named};
use crate::replication::Restart;
use crate::replication::frame::{Fetch, Frame, Lead};
use crate::replication::refusals::Reason;

/// How long a new master waits for what was committed at its slaves before it says what it knows.
/// Consumers wait for 5 s (Java's `queryConsumerOffset`), and slaves connect again within 2 s.
const OFFSETS_WITHIN: Duration = Duration::from_secs(3);

/// So many offsets that were committed here as a slave a new master logs before anything else, while the others
/// hear nothing from it; more have their turn with those of the others.
const OFFSETS_AT_ONCE: usize = 10_000;

impl Driver {
    pub(super) fn lead(&mut self, epoch: u64) -> Result<(), DriverError> {
        tracing::info!(epoch, replica = self.replica.me().replica.0, "master");
        self.await_offsets();
        self.following = None;
        self.leading = Some(epoch);
        let start = self.broker.store.close_for_appends();
        self.note_epoch(epoch, start)?;
        // They stand behind the beginning of the epoch, so in the log before anybody is served: if this master
        // dies soon, the next one does not ask it.
        let own = self.broker.state.offsets.at_slave(|at_slave| at_slave.not_logged());
        let soon = own.len().min(OFFSETS_AT_ONCE);
        self.broker.take_own_slave_offsets(&own[..soon]);
        let began = self.broker.state.begin_epoch(epoch, self.replica.me().replica.0)?;
        if began != start {
            // The record did not fit into its segment.
            self.epochs.truncate(start);
            self.note_epoch(epoch, began)?;
        }
        self.settle_at = Some(began);
        self.shared.knows_state();
        self.log_moved();
        if let Some(endpoint) = self.endpoint.clone() {
            let authority = self.authority.clone();
            self.holding.spawn(async move {
                authority.hold_master_endpoint(endpoint, epoch).await;
            });
        }
        Ok(())
    }

    /// Ends what this replica did as master, if it was one.
    pub(super) fn leave_office(&mut self) {
        self.holding.abort_all();
        if self.leading.take().is_some() {
            tracing::warn!("no longer master");
            // What was applied and is in nobody else's log goes with the process's tables.
            self.broker.restart(Restart::Demoted);
        }
    }

    /// Whoever may have been a slave has some time to say what was committed at it. The master before was
    /// none.
    fn await_offsets(&mut self) {
        let before = self.following.as_ref().map(|following| following.master.replica);
        let record = self.replica.record();
        let counted = record.into_iter().flat_map(|it| it.in_sync.iter().chain(it.eligible.iter()));
        let others = counted.map(|member| member.replica).chain(self.links.keys().copied());
        let me = self.replica.me().replica;
        self.unheard = others.filter(|other| *other != me && Some(*other) != before).collect();
        if !self.unheard.is_empty() {
            self.shared.hear_offsets_until(self.now() + OFFSETS_WITHIN);
        }
    }

    /// A slave has told what was committed at it.
    pub(super) fn heard_offsets(&mut self, replica: ReplicaId) {
        if self.unheard.remove(&replica) && self.unheard.is_empty() {
            self.shared.hear_offsets_until(Duration::ZERO);
        }
    }

    /// Notes, durably, where an epoch begins.
    fn note_epoch(&mut self, epoch: u64, start: u64) -> Result<(), DriverError> {
        if !self.epochs.begin(epoch, start) {
            let last = self.epochs.last();
            let cause = format!("epoch {epoch} cannot begin at {start}, after epoch {last}");
            return Err(StoreError::Poisoned { cause }.into());
        }
        Ok(kept::write_epochs(&self.broker.store, &self.epochs)?)
    }

    /// A replica wants to follow: it gets what it needs to find where its log parts from this one.
    pub(super) fn on_follow(&mut self, peer: Member, epoch: u64) {
        let Some(link) = self.links.get(&peer.replica) else { return };
        if self.leading != Some(epoch) {
            let why = format!("this replica does not lead in epoch {epoch}");
            self.refuse(peer.replica, Reason::Epoch, &why);
            link.send(Frame::Refused(why));
            return;
        }
        let store = &self.broker.store;
        link.send_log(None);
        link.send(Frame::Lead(Lead {
            epoch,
            store_id: store.store_id(),
            epochs: self.epochs.clone(),
            start: store.min_offset(),
            end: store.max_offset(),
            image: self.broker.state.newest_image().0,
            next_offsets: store.next_offsets(),
            since: self.authority.master_since(),
        }));
    }

    pub(super) fn on_fetch(&mut self, peer: Member, fetch: Fetch) {
        if self.leading != Some(fetch.epoch) {
            return;
        }
        let end = self.broker.store.max_offset();
        if fetch.from > end {
            let from = fetch.from;
            let why = format!("it asks for the log from {from} on, which ends at {end}");
            self.refuse(peer.replica, Reason::FutureFetch, why);
            self.end_link(peer);
        } else if let Some(link) = self.links.get(&peer.replica) {
            tracing::info!(replica = peer.replica.0, from = fetch.from, "replica takes the log");
            self.shared.counted.refusals.accepted(&named(peer.replica));
            link.send_log(Some(fetch));
        }
    }
}
