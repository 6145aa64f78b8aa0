//! How long to wait before something is tried again that was in vain.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// After the first time.
const SHORTEST: Duration = Duration::from_secs(2);
/// So many things are remembered before those are forgotten that nobody tried for a while.
const REMEMBERED: usize = 4_096;
const WHILE: Duration = Duration::from_secs(600);

/// What was in vain, and when it is due again: after 2 s, then twice as long each time, as long as it is
/// in vain for the same reason.
#[derive(Default)]
pub(crate) struct Patience(Mutex<BTreeMap<String, Tried>>);

struct Tried {
    why: String,
    count: u32,
    due: Instant,
}

impl Patience {
    /// Whether `what` was not in vain yet, or long enough ago.
    pub(crate) fn is_due(&self, what: &str) -> bool {
        self.is_due_at(Instant::now(), what)
    }

    fn is_due_at(&self, now: Instant, what: &str) -> bool {
        self.not_due_at(now, what).is_none()
    }

    /// Why `what` was in vain, until it is due again.
    pub(crate) fn not_due(&self, what: &str) -> Option<String> {
        self.not_due_at(Instant::now(), what)
    }

    fn not_due_at(&self, now: Instant, what: &str) -> Option<String> {
        let all = self.0.lock();
        let tried = all.get(what).filter(|tried| now < tried.due)?;
        Some(tried.why.clone())
    }

    /// `what` was in vain, and why. Returns how long to wait, `longest` at most.
    pub(crate) fn in_vain(&self, what: &str, why: &str, longest: Duration) -> Duration {
        self.in_vain_at(Instant::now(), what, why, longest)
    }

    fn in_vain_at(&self, now: Instant, what: &str, why: &str, longest: Duration) -> Duration {
        let mut all = self.0.lock();
        if all.len() >= REMEMBERED {
            all.retain(|_, tried| now < tried.due + WHILE);
        }
        let count = match all.get(what) {
            Some(tried) if tried.why == why => tried.count.saturating_add(1),
            _ => 0,
        };
        let pause = SHORTEST.saturating_mul(1 << count.min(16)).min(longest);
        let tried = Tried { why: why.to_owned(), count, due: now + pause };
        all.insert(what.to_owned(), tried);
        pause
    }

    /// It worked, or is not to be tried any more.
    pub(crate) fn forget(&self, what: &str) {
        self.0.lock().remove(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(30);

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_with_another_reason() {
        let patience = Patience::default();
        let mut now = Instant::now();
        assert!(patience.is_due_at(now, "a"));
        let mut seconds = Vec::new();
        for _ in 0..6 {
            let pause = patience.in_vain_at(now, "a", "refused", LONGEST);
            assert!(!patience.is_due_at(now, "a"));
            assert_eq!(patience.not_due_at(now, "a").as_deref(), Some("refused"));
            now += pause;
            assert!(patience.is_due_at(now, "a"));
            assert_eq!(patience.not_due_at(now, "a"), None);
            seconds.push(pause.as_secs());
        }
        assert_eq!(seconds, [2, 4, 8, 16, 30, 30]);
        assert!(patience.is_due_at(now, "b"), "another thing");
        assert_eq!(patience.in_vain_at(now, "a", "no answer", LONGEST).as_secs(), 2);
        patience.forget("a");
        assert!(patience.is_due_at(now, "a"));
        assert_eq!(patience.in_vain_at(now, "a", "no answer", LONGEST).as_secs(), 2);
    }

    #[test]
    fn what_nobody_tries_any_more_is_forgotten() {
        let patience = Patience::default();
        let now = Instant::now();
        for at in 0..REMEMBERED {
            patience.in_vain_at(now, &at.to_string(), "refused", LONGEST);
        }
        patience.in_vain_at(now + WHILE * 2, "new", "refused", LONGEST);
        assert_eq!(patience.0.lock().len(), 1);
    }
}
