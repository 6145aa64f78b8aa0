//! What happens to the replicas, one after the other.

use crate::sim::node::Stream;
use crate::sim::objects::Found;
use crate::{Lease, Member, Promotion, Record, Report, Settings, Swapped, Version};

#[derive(Clone)]
pub(super) enum Event {
    /// To a start of a node's process; gone with it.
    Process {
        node: usize,
        start: u64,
        input: Input,
    },
    /// To whatever process of the node runs then, if the connection is still the same.
    Message {
        from: usize,
        to: usize,
        connection: u64,
        message: Message,
    },
    Ask {
        node: usize,
        start: u64,
        ask: Ask,
    },
    Send,
    /// The consumer reads and commits.
    Consume,
    /// A slave writes what was committed at it.
    WriteOffsets {
        node: usize,
        start: u64,
    },
    Fault,
    Configure {
        node: usize,
        settings: Settings,
    },
    /// Somebody looks whether a replica has to be promoted.
    Look,
    Promote {
        node: usize,
        promotion: Promotion,
    },
    Part {
        node: usize,
    },
    /// A master of a succession is cut off, and the one before is there again.
    Relieve {
        node: usize,
    },
    /// A connection ends, or is there again, and so on.
    Flap {
        pair: (usize, usize),
        left: u32,
    },
    Fork {
        late: usize,
        step: u32,
    },
    Restart {
        node: usize,
    },
    /// A broker that has to begin anew has closed its store.
    BeginAnew {
        node: usize,
        start: u64,
    },
    /// Retention looks what has expired.
    Expire {
        node: usize,
    },
    Crash {
        node: usize,
    },
    /// A connection has ended, to this start of a replica.
    Disconnected {
        to: usize,
        from: Member,
    },
}

/// What one replica sends to another.
#[derive(Clone)]
pub(super) enum Message {
    Report(Report),
    Record(Member, Record),
    Stream(Stream),
}

#[derive(Clone)]
pub(super) enum Input {
    Tick,
    /// A watch says that the record changed.
    Changed,
    Flushed {
        end: u64,
    },
    /// A promise is durable, or could not be written.
    Promised,
    Read {
        request: u64,
        found: Found,
    },
    RecordSwapped {
        request: u64,
        swapped: Swapped,
    },
    LeaseSwapped {
        request: u64,
        swapped: Swapped,
    },
}

#[derive(Clone)]
pub(super) enum Ask {
    Read { request: u64 },
    SwapRecord { request: u64, expected: Version, record: Record },
    SwapLease { request: u64, expected: Version, lease: Lease },
}
