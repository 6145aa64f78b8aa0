//! Which messages of a queue are pulled and not done yet, and so how far it may be committed.

use std::collections::BTreeMap;

/// The unfinished messages of one queue, by queue offset.
///
/// Invariant: everything before [`InFlight::committable`] is done or was never wanted.
#[derive(Debug)]
pub(super) struct InFlight {
    /// Queue offset → bytes.
    pending: BTreeMap<u64, usize>,
    bytes: usize,
    /// Behind everything that was pulled.
    next: u64,
}

/// When to stop pulling.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) span: u64,
}

impl InFlight {
    pub(super) fn starting_at(offset: u64) -> Self {
        Self { pending: BTreeMap::new(), bytes: 0, next: offset }
    }

    /// A message was pulled.
    pub(super) fn add(&mut self, offset: u64, bytes: usize) {
        let before = self.pending.insert(offset, bytes).unwrap_or(0);
        self.bytes = self.bytes - before + bytes;
        self.next = self.next.max(offset.saturating_add(1));
    }

    /// Everything wanted before `offset` was pulled.
    pub(super) fn pulled_up_to(&mut self, offset: u64) {
        self.next = self.next.max(offset);
    }

    /// A message is done; one that is not pending is passed over.
    pub(super) fn done(&mut self, offset: u64) {
        self.bytes -= self.pending.remove(&offset).unwrap_or(0);
    }

    /// The offset to begin with after a crash: nothing before it is needed any more.
    pub(super) fn committable(&self) -> u64 {
        self.pending.first_key_value().map_or(self.next, |(oldest, _)| *oldest)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn has_room(&self, room: Room) -> bool {
        let span = match (self.pending.first_key_value(), self.pending.last_key_value()) {
            (Some((oldest, _)), Some((newest, _))) => newest - oldest,
            _ => 0,
        };
        self.pending.len() < room.messages && self.bytes < room.bytes && span <= room.span
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { messages: 3, bytes: 100, span: 50 };

    #[test]
    fn the_oldest_unfinished_message_holds_the_offset_back() {
        let mut queue = InFlight::starting_at(10);
        assert_eq!(queue.committable(), 10);
        for offset in [10, 11, 13] {
            queue.add(offset, 1);
        }
        queue.done(11);
        assert_eq!(queue.committable(), 10);
        queue.done(10);
        assert_eq!(queue.committable(), 13);
        queue.done(13);
        assert_eq!(queue.committable(), 14);
        queue.done(13);
        assert_eq!((queue.bytes, queue.is_empty()), (0, true));
    }

    #[test]
    fn filtered_messages_move_the_offset_once_nothing_is_pending() {
        let mut queue = InFlight::starting_at(0);
        queue.add(2, 1);
        queue.pulled_up_to(32);
        assert_eq!(queue.committable(), 2);
        queue.done(2);
        assert_eq!(queue.committable(), 32);
        queue.pulled_up_to(5);
        assert_eq!(queue.committable(), 32);
    }

    #[test]
    fn each_limit_stops_the_pulling() {
        let mut queue = InFlight::starting_at(0);
        queue.add(0, 99);
        assert!(queue.has_room(ROOM));
        queue.add(0, 100);
        assert!(!queue.has_room(ROOM), "bytes");
        queue.add(0, 1);
        queue.add(51, 1);
        assert!(!queue.has_room(ROOM), "span");
        queue.done(51);
        queue.add(1, 1);
        assert!(queue.has_room(ROOM));
        queue.add(2, 1);
        assert!(!queue.has_room(ROOM), "messages");
    }
}
