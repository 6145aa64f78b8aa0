//! What was said of something last, so that it is said again only when it is another thing.

use std::collections::BTreeMap;

/// So many are remembered; then everything is news again.
const SAID_MAX: usize = 256;

/// The last words about each of many.
pub(super) struct Said<K>(BTreeMap<K, String>);

impl<K> Default for Said<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord> Said<K> {
    /// Notes what is to be said of this one; returns whether it was not what was said of it last.
    pub(super) fn is_news(&mut self, of: K, words: &str) -> bool {
        if self.0.get(&of).is_some_and(|known| known == words) {
            return false;
        }
        if self.0.len() >= SAID_MAX {
            self.0.clear();
        }
        self.0.insert(of, words.to_owned());
        true
    }

    /// Forgets what was said of others than these.
    pub(super) fn retain(&mut self, is_kept: impl Fn(&K) -> bool) {
        self.0.retain(|of, _| is_kept(of));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_of_each_whoever_has_its_turn_between() {
        let mut said = Said::default();
        for round in 0..3 {
            assert_eq!(said.is_news("one", "no room"), round == 0);
            assert_eq!(said.is_news("two", "no room"), round == 0);
        }
        assert!(said.is_news("one", "another epoch"));
        assert!(said.is_news("one", "no room"));
        said.retain(|of| *of == "one");
        assert!(said.is_news("two", "no room") && !said.is_news("one", "no room"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut said = Said::default();
        assert!((0..10 * SAID_MAX).all(|of| said.is_news(of, "no")));
        assert!(said.0.len() <= SAID_MAX);
    }
}
