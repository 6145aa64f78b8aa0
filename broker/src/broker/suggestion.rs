//! From which broker of the group a reader should pull next (`suggestWhichBrokerId` of each answer to a pull).

use super::Broker;
use crate::replication::RoleStatus;

/// Of so much of the end of its log, or of a segment where that is less, a slave takes it that the master has it
/// in memory: few enough for the page cache of a small container.
const NEAR_BYTES: u64 = 64 << 20;

/// A consumer group that reads a queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) group: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) queue: i32,
    /// The offset that it goes on with.
    pub(crate) next: i64,
    /// Where the group wants to read what is not in memory (`whichBrokerWhenConsumeSlowly`): 0 for the
    /// master, 1, the default, for any slave, or the id of one.
    pub(crate) when_slow: i64,
}

impl Reader<'_> {
    /// The slave that it is sent to, so that readers spread and each stays where it is; 0, the master,
    /// where there is none.
    fn slave(&self, mut slaves: Vec<i64>) -> i64 {
        const ANY: i64 = 1;
        if self.when_slow == 0 || slaves.is_empty() {
            return 0;
        }
        if self.when_slow != ANY && slaves.contains(&self.when_slow) {
            return self.when_slow;
        }
        slaves.sort_unstable();
        let reader = format!("{}@{}@{}", self.group, self.topic, self.queue);
        slaves[crc32fast::hash(reader.as_bytes()) as usize % slaves.len()]
    }
}

impl Broker {
    /// From which broker of the group a reader should pull next, after a pull that had to wait for the disk
    /// or not.
    ///
    /// The master sends a reader of old messages to a slave in sync, and that keeps it until it has reached
    /// what the master has in memory: the master would send it back at the next pull. While a slave does not
    /// reach its master it keeps everybody. Source: `PullMessageProcessor`, which goes by the distance to the end
    /// of the log alone, in parts of the machine's memory.
    pub(crate) fn suggested_broker(&self, is_cold: bool, reader: Reader<'_>) -> i64 {
        let Some(replication) = &self.replication else { return 0 };
        if let (RoleStatus::Master { .. }, false) = (replication.role(), is_cold) {
            return 0;
        }
        let status = replication.status();
        if let RoleStatus::Master { .. } = status.role {
            let in_sync = status.peers.iter().filter(|peer| peer.is_connected && peer.is_in_sync);
            return reader
                .slave(in_sync.map(|peer| self.config().slave_id(peer.replica)).collect());
        }
        let is_kept = reader.when_slow != 0 && self.is_far_behind(reader);
        if status.reaches_master() && !is_kept { 0 } else { self.own_slave_id() }
    }

    /// Whether what a reader goes on with lies so far behind the end of the log that the master may not have
    /// it in memory. Does not wait for the disk.
    fn is_far_behind(&self, reader: Reader<'_>) -> bool {
        let Some(range) = self.store.queue_range(reader.topic, reader.queue) else { return false };
        let next = u64::try_from(reader.next).ok();
        let Some(next) = next.filter(|next| (range.min..range.max).contains(next)) else {
            return false;
        };
        match self.store.queue_entry_cached(reader.topic, reader.queue, next) {
            Ok(Some(entry)) => {
                let near = NEAR_BYTES.min(self.store.segment_bytes());
                entry.physical_offset + near < self.store.max_offset()
            }
            // Entries that are not in memory are old ones.
            Ok(None) | Err(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_readers_spread_over_the_slaves_unless_their_group_says_otherwise() {
        let send = |slaves: &[i64], queue, when_slow| {
            let reader = Reader { group: "readers", topic: "t", queue, next: 0, when_slow };
            reader.slave(slaves.to_vec())
        };
        let sent: Vec<_> = (0..64).map(|queue| send(&[1, 2], queue, 1)).collect();
        let to_first = sent.iter().filter(|id| **id == 1).count();
        assert!((16..=48).contains(&to_first), "{to_first} of 64");
        let again: Vec<_> = (0..64).map(|queue| send(&[2, 1], queue, 1)).collect();
        assert_eq!(again, sent, "each stays where it is");
        assert_eq!((send(&[2], 0, 1), send(&[], 0, 1), send(&[], 0, 2)), (2, 0, 0));
        assert!((0..64).all(|queue| send(&[1, 2], queue, 2) == 2 && send(&[1, 2], queue, 0) == 0));
        assert!((0..64).all(|queue| send(&[1, 2], queue, 7) == sent[queue as usize]));
    }
}
