//! What is measured of the other replicas, for administrators. It changes with every report, so it
//! is no part of the status, whose changes wake others.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

/// Over how long a rate is measured.
const WINDOW: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Peers(Mutex<BTreeMap<u32, Peer>>);

/// Another replica, or this one. Times are of the store's clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Where clients reach it.
    pub(crate) address: String,
    /// When it was heard last.
    pub(crate) heard: Duration,
    /// Bytes by which its log grew in the last second that was measured.
    pub(crate) bytes_per_second: u64,
    /// When it had all that was written here by then.
    caught_up: Option<Duration>,
    /// Where this replica's log ended at the last report, and when that was.
    then: (Duration, u64),
    /// Where the measuring began: when, and the end of its log.
    window: Option<(Duration, u64)>,
}

impl Peer {
    /// For how long it has not had all that was written here by then; `None` if it never had.
    pub(crate) fn lag(&self, end: u64, own_end: u64, now: Duration) -> Option<Duration> {
        if end >= own_end {
            return Some(Duration::ZERO);
        }
        Some(now.saturating_sub(self.caught_up?))
    }
}

impl Peers {
    pub(super) fn connected(&self, replica: u32, address: &str) {
        self.0.lock().entry(replica).or_default().address = address.to_owned();
    }

    /// A replica's log ends at `end`, this one's at `own_end`.
    pub(super) fn reported(&self, replica: u32, now: Duration, end: u64, own_end: u64) {
        let mut peers = self.0.lock();
        let peer = peers.entry(replica).or_default();
        peer.heard = now;
        let (then, end_then) = peer.then;
        if end >= own_end {
            peer.caught_up = Some(now);
        } else if end >= end_then && then > Duration::ZERO {
            peer.caught_up = peer.caught_up.max(Some(then));
        }
        if end >= end_then {
            peer.then = (now, own_end);
        }
        let (since, end_since) = *peer.window.get_or_insert((now, end));
        let elapsed = now.saturating_sub(since);
        if elapsed >= WINDOW {
            let bytes = u128::from(end.saturating_sub(end_since)) * 1000;
            let rate = bytes / elapsed.as_millis().max(1);
            peer.bytes_per_second = u64::try_from(rate).unwrap_or(u64::MAX);
            peer.window = Some((now, end));
        }
    }

    pub(crate) fn get(&self, replica: u32) -> Option<Peer> {
        self.0.lock().get(&replica).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_counts_from_when_the_replica_last_had_everything() {
        let peers = Peers::default();
        let at = Duration::from_secs;
        peers.reported(1, at(10), 50, 100);
        let lag = |end, own_end, now| peers.get(1).unwrap().lag(end, own_end, now);
        assert_eq!(lag(50, 100, at(10)), None, "it never had everything");
        // It has what was here at 10, but not what is now.
        peers.reported(1, at(12), 100, 300);
        assert_eq!(lag(100, 300, at(12)), Some(at(2)));
        assert_eq!(peers.get(1).unwrap().bytes_per_second, 25);
        // Still not what was here at 12.
        peers.reported(1, at(13), 200, 400);
        assert_eq!(lag(200, 400, at(14)), Some(at(4)));
        peers.reported(1, at(15), 400, 400);
        assert_eq!(lag(400, 400, at(20)), Some(Duration::ZERO));
        assert_eq!(lag(400, 500, at(20)), Some(at(5)));
    }
}
