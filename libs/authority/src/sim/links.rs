//! The connections between replicas: as with TCP, what is sent arrives in its order, and nothing of a
//! connection that has ended arrives on the next one.

use std::time::Duration;

pub(super) struct Links {
    /// How many connections two have had.
    numbers: Vec<Vec<u64>>,
    /// When the last message from one to another arrives.
    arrivals: Vec<Vec<Duration>>,
}

impl Links {
    pub(super) fn new(replicas: usize) -> Self {
        let arrivals = vec![vec![Duration::ZERO; replicas]; replicas];
        Self { numbers: vec![vec![0; replicas]; replicas], arrivals }
    }

    pub(super) fn number(&self, from: usize, to: usize) -> u64 {
        self.numbers[from][to]
    }

    /// When something arrives that is sent now and could at this time.
    pub(super) fn arrival(&mut self, from: usize, to: usize, earliest: Duration) -> Duration {
        let last = &mut self.arrivals[from][to];
        *last = earliest.max(*last);
        *last
    }

    /// The connection of two has ended.
    pub(super) fn end(&mut self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            self.numbers[from][to] += 1;
            self.arrivals[from][to] = Duration::ZERO;
        }
    }
}
