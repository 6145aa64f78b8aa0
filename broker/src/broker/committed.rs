//! Offsets that consumers commit, here or at a slave that is here no more.

use weirmq_remoting::ResponseCode;
use weirmq_store::StoreError;

use super::Broker;
use crate::offsets::CommittedOffset;
use crate::request::Refusal;
use crate::slave_offsets::{self, SLAVE_OFFSETS_MAX, SlaveOffsets};

impl Broker {
    /// Notes an offset; `true` where it went to the offsets that a slave keeps.
    ///
    /// # Errors
    /// When those are too many, and at a master of before until it has begun anew: nobody would ask it for them.
    pub(crate) fn commit_offset(
        &self,
        group: &str,
        topic: &str,
        queue: i32,
        offset: i64,
    ) -> Result<bool, Refusal> {
        let offsets = &self.state.offsets;
        if !self.is_slave() {
            if offsets.commit(group, topic, queue, offset) {
                self.offsets_committed.notify_one();
            }
            return Ok(false);
        }
        if self.replication.as_ref().is_some_and(|replication| replication.was_master()) {
            let remark = "this replica is not the master any more; commit at the next one";
            return Err(Refusal::new(ResponseCode::SystemBusy, remark));
        }
        let marks = self.store.watermarks();
        let safe = marks.visible().min(marks.flushed());
        let is_settled = marks.written() <= safe;
        if !offsets.commit_at_slave(group, topic, queue, offset, is_settled) {
            let remark = format!(
                "this slave keeps {SLAVE_OFFSETS_MAX} offsets for its next master, which is all it can"
            );
            return Err(Refusal::new(ResponseCode::SystemError, remark));
        }
        self.slave_offsets_changed.notify_one();
        Ok(true)
    }

    /// Takes over what was committed at replicas while they were slaves, each queue's offset only
    /// where it is greater. Of a queue that is not there, or ends before it, nothing is taken: the
    /// sender asks again until the log says what it wants.
    pub(crate) fn take_slave_offsets(&self, offsets: &[CommittedOffset]) {
        self.take_offsets(offsets, |topic, queue| {
            self.store.queue_range(topic, queue).map_or(0, |range| range.max)
        });
    }

    /// The same of what was committed here, at a replica that becomes the master: nobody cuts its log any more,
    /// so what is in it counts, and not only what it has heard to be confirmed.
    pub(crate) fn take_own_slave_offsets(&self, offsets: &[CommittedOffset]) {
        self.take_offsets(offsets, |topic, queue| self.store.queue_end(topic, queue));
    }

    fn take_offsets(&self, offsets: &[CommittedOffset], end: impl Fn(&str, i32) -> u64) {
        let mut is_first = false;
        for CommittedOffset { group, topic, queue, offset } in offsets {
            let is_there = self.has_queue(topic, *queue)
                && u64::try_from(*offset).is_ok_and(|offset| offset <= end(topic, *queue));
            if is_there && self.group_or_create(group).is_ok() {
                is_first |= self.state.offsets.commit_forward(group, topic, *queue, *offset);
            }
        }
        if is_first {
            self.offsets_committed.notify_one();
        }
    }

    /// The log has all that the master's had, so what was committed here as a slave is compared with its
    /// queues.
    pub(crate) fn settle_slave_offsets(&self) {
        let end = |topic: &str, queue: i32| {
            let range =
                self.store.queue_range(topic, queue).filter(|_| self.has_queue(topic, queue))?;
            i64::try_from(range.max).ok()
        };
        self.state.offsets.at_slave(|at_slave| at_slave.settle(end));
        self.slave_offsets_changed.notify_one();
    }

    /// Forgets what was committed here as a slave and is in the log for good.
    pub(crate) fn forget_slave_offsets(&self) {
        self.state.forget_slave_offsets(|topic, queue| self.has_queue(topic, queue));
        self.slave_offsets_changed.notify_one();
    }

    fn has_queue(&self, topic: &str, queue: i32) -> bool {
        let topic = self.state.topics.get(topic);
        topic.is_some_and(|topic| u32::try_from(queue).is_ok_and(|queue| queue < topic.queues()))
    }

    /// Writes the file of the offsets that were committed here as a slave, if they have changed.
    /// Waits for the disk.
    pub(crate) fn write_slave_offsets(&self) -> Result<(), StoreError> {
        let offsets = &self.state.offsets;
        let Some(changed) = offsets.at_slave(SlaveOffsets::take_changed) else { return Ok(()) };
        let written = slave_offsets::write(&self.store, &changed);
        offsets.at_slave(|at_slave| at_slave.written(changed, written.is_ok()));
        written
    }
}
