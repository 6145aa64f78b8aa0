//! Connections whose other end has not said who it is.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// The most that there are at once.
const STRANGERS_MAX: usize = 64;

/// Those that are about to say who they are. One more than there is room for ends the oldest of the
/// address that has most, so whoever connects often, or says nothing, keeps nobody else out.
#[derive(Default)]
pub(super) struct Strangers(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    next: u64,
    /// Oldest first.
    all: VecDeque<(u64, IpAddr, CancellationToken)>,
}

/// One of them; dropped when it is a stranger no more.
pub(super) struct Stranger<'a> {
    strangers: &'a Strangers,
    number: u64,
    /// Whether its place was needed.
    pub(super) is_ended: CancellationToken,
}

impl Strangers {
    pub(super) fn welcome(&self, address: IpAddr) -> Stranger<'_> {
        let mut waiting = self.0.lock();
        if waiting.all.len() >= STRANGERS_MAX {
            let mut counts = BTreeMap::<IpAddr, usize>::new();
            waiting
                .all
                .iter()
                .for_each(|(_, address, _)| *counts.entry(*address).or_default() += 1);
            let most = counts.iter().max_by_key(|(_, count)| **count).map(|(address, _)| *address);
            let place = waiting.all.iter().position(|(_, address, _)| Some(*address) == most);
            if let Some((_, _, end)) = place.and_then(|place| waiting.all.remove(place)) {
                end.cancel();
            }
        }
        let (number, is_ended) = (waiting.next, CancellationToken::new());
        waiting.next += 1;
        waiting.all.push_back((number, address, is_ended.clone()));
        Stranger { strangers: self, number, is_ended }
    }
}

impl Drop for Stranger<'_> {
    fn drop(&mut self) {
        self.strangers.0.lock().all.retain(|(number, ..)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_connects_often_keeps_nobody_out() {
        let strangers = Strangers::default();
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let mut rude: Vec<_> = (0..STRANGERS_MAX).map(|_| strangers.welcome(address(1))).collect();
        let replica = strangers.welcome(address(2));
        assert!(rude[0].is_ended.is_cancelled() && !rude[1].is_ended.is_cancelled());
        rude.extend((0..1000).map(|_| strangers.welcome(address(1))));
        assert!(!replica.is_ended.is_cancelled());
        let places = strangers.0.lock().all.len();
        assert_eq!(places, STRANGERS_MAX);
        drop(rude);
        drop(replica);
        assert!(strangers.0.lock().all.is_empty());
    }
}
