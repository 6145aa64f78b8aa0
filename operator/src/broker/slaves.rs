//! What masters say of their slaves: how much each of them lacks, and whether it keeps up.
//!
//! A master is asked once in a while and not in each round. What it says stands in the status, and a status that
//! was written is a reason for the next round: slaves that are now a little behind and now not would have the
//! operator write as fast as it can.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::future::join_all;
use parking_lot::Mutex;
use weirmq_client::Admin;
use weirmq_remoting::body::HaRuntimeInfo;

use super::Round;
use super::observe::{ASK_TIMEOUT, GroupView, PodView};

/// A master is asked again after this long.
const FRESH: Duration = Duration::from_secs(10);
/// The same where messages seem to wait for a slave.
const FRESH_IN_DOUBT: Duration = Duration::from_secs(1);
/// What it said stands for so long while it does not answer.
const KEPT: Duration = Duration::from_secs(60);

/// So many groups are remembered before those are forgotten that nobody asked for a while.
const REMEMBERED: usize = 4_096;

/// What masters said, by namespace and group.
#[derive(Default)]
pub(crate) struct Slaves(Mutex<BTreeMap<(String, String), Known>>);

struct Known {
    asked: Instant,
    /// The epoch and number of the master.
    master: (u64, u32),
    said: Option<(Instant, Said)>,
}

/// What a master says of its slaves.
#[derive(Default)]
struct Said {
    /// How many bytes it lacks, and whether it is in sync. Of one that is not there a master knows nothing, nor of
    /// one that was started anew since.
    slaves: BTreeMap<Slave, (i64, bool)>,
    /// With roles by configuration: whom it counts on, also those that are away. There is no record that would say so.
    counted: Option<BTreeSet<u32>>,
}

/// The pod's name and uid.
type Slave = (String, Option<String>);

fn slave(pod: &PodView) -> Slave {
    (pod.name.clone(), pod.uid.clone())
}

impl Slaves {
    fn is_due(
        &self,
        now: Instant,
        key: &(String, String),
        master: (u64, u32),
        fresh: Duration,
    ) -> bool {
        let all = self.0.lock();
        let fresh =
            |known: &&Known| known.master == master && now.duration_since(known.asked) < fresh;
        all.get(key).filter(fresh).is_none()
    }

    fn note(&self, now: Instant, key: (String, String), master: (u64, u32), said: Option<Said>) {
        let mut all = self.0.lock();
        let before = all.remove(&key).filter(|known| known.master == master);
        let before = before.and_then(|known| known.said);
        let before = before.filter(|(since, _)| now.duration_since(*since) < KEPT);
        let said = match (said, before) {
            // It answered the first question only.
            (Some(said), Some((_, before))) if said.counted.is_none() => {
                Some((now, Said { counted: before.counted, ..said }))
            }
            (Some(said), _) => Some((now, said)),
            (None, before) => before,
        };
        if all.len() >= REMEMBERED {
            all.retain(|_, known| now.duration_since(known.asked) < KEPT);
        }
        all.insert(key, Known { asked: now, master, said });
    }

    /// Tells `view` what its master said, if it is still the same one.
    pub(super) fn tell(&self, namespace: &str, view: &mut GroupView) {
        let Some(master) = view.master() else { return };
        let key = (namespace.to_owned(), view.name.clone());
        let all = self.0.lock();
        let known = all.get(&key).filter(|known| known.master == (view.epoch(), master));
        let Some((_, said)) = known.and_then(|known| known.said.as_ref()) else { return };
        view.counted.clone_from(&said.counted);
        for pod in &mut view.pods {
            let (lag, keeps_up) = match said.slaves.get(&slave(pod)) {
                _ if pod.replica == master => (Some(0), true),
                Some((lag, is_in_sync)) => (Some(*lag), *is_in_sync),
                None => (None, false),
            };
            (pod.lag_bytes, pod.keeps_up) = (lag, Some(keeps_up));
        }
    }
}

impl Round<'_> {
    /// Asks the masters that are due.
    pub(super) async fn hear_masters(&self) {
        let (slaves, namespace) = (&self.context.slaves, self.namespace());
        let asked = self.seen().into_iter().filter(|view| view.pods.len() > 1).map(async |view| {
            let Some(pod) = view.answering_master() else { return };
            let Some(address) = pod.broker_address() else { return };
            let (key, master) =
                ((namespace.clone(), view.name.clone()), (view.epoch(), pod.replica));
            // A slave that ends in good order is counted on no more: not by a master of a moment ago.
            let (there, needed) = view.acknowledging();
            let fresh = if !view.is_elected && there < needed { FRESH_IN_DOUBT } else { FRESH };
            if !slaves.is_due(Instant::now(), &key, master, fresh) {
                return;
            }
            let Ok(admin) = self.context.admin(&self.client_name_servers()) else { return };
            let said = ask(&admin, &address, &view).await;
            slaves.note(Instant::now(), key, master, said);
        });
        join_all(asked).await;
    }
}

async fn ask(admin: &Admin, master: &str, view: &GroupView) -> Option<Said> {
    let answer = tokio::time::timeout(ASK_TIMEOUT, admin.ha_status(master)).await.ok()?.ok()?;
    let counted = if view.is_elected { None } else { counted(admin, master, &view.name).await };
    answer.master.then(|| Said { slaves: said(&answer, &view.pods), counted })
}

/// Whom a master by configuration counts on. Its slaves have their numbers for ids.
async fn counted(admin: &Admin, master: &str, group: &str) -> Option<BTreeSet<u32>> {
    let asked = tokio::time::timeout(ASK_TIMEOUT, admin.in_sync_set(master, group)).await;
    let members = asked.ok()?.ok()?.in_sync_replicas;
    Some(members.iter().filter_map(|member| u32::try_from(member.broker_id).ok()).collect())
}

fn said(answer: &HaRuntimeInfo, pods: &[PodView]) -> BTreeMap<Slave, (i64, bool)> {
    let of_pod = |pod: &PodView| {
        let host = format!("{}.", pod.name);
        let mut slaves = answer.ha_connection_info.iter();
        let found = slaves.find(|slave| slave.addr.starts_with(&host))?;
        Some((slave(pod), (found.diff.max(0), found.in_sync)))
    };
    pods.iter().filter_map(of_pod).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::tests::three_replicas;

    fn key() -> (String, String) {
        ("shop".to_owned(), "mq-0".to_owned())
    }

    fn one(lag: i64, is_in_sync: bool) -> Said {
        let slaves = BTreeMap::from([(slave(&three_replicas().pods[1]), (lag, is_in_sync))]);
        Said { slaves, counted: Some(BTreeSet::from([0, 1])) }
    }

    fn told(slaves: &Slaves) -> Vec<(Option<i64>, Option<bool>)> {
        let mut view = three_replicas();
        slaves.tell("shop", &mut view);
        view.pods.iter().map(|pod| (pod.lag_bytes, pod.keeps_up)).collect()
    }

    #[test]
    fn a_master_is_asked_once_in_a_while_however_often_somebody_looks() {
        let (slaves, now, master) = (Slaves::default(), Instant::now(), (4, 0));
        assert!(slaves.is_due(now, &key(), master, FRESH));
        slaves.note(now, key(), master, Some(one(5, true)));
        assert!(!slaves.is_due(now + FRESH / 2, &key(), master, FRESH));
        assert!(slaves.is_due(now + FRESH, &key(), master, FRESH));
        assert!(slaves.is_due(now, &key(), (5, 1), FRESH), "another master");
        // Also one that does not answer.
        slaves.note(now + FRESH, key(), master, None);
        assert!(!slaves.is_due(now + FRESH, &key(), master, FRESH));
    }

    #[test]
    fn a_master_that_answers_one_question_only_counts_on_whom_it_did() {
        let (slaves, now, master) = (Slaves::default(), Instant::now(), (4, 0));
        slaves.note(now, key(), master, Some(one(5, true)));
        slaves.note(now, key(), master, Some(Said { counted: None, ..one(7, true) }));
        let mut view = three_replicas();
        slaves.tell("shop", &mut view);
        assert_eq!((view.pods[1].lag_bytes, view.counted), (Some(7), Some(BTreeSet::from([0, 1]))));
    }

    #[test]
    fn a_master_is_asked_that_only_a_sidecar_keeps_unready() {
        let mut view = three_replicas();
        (view.pods[0].is_ready, view.pods[0].is_held_up) = (false, true);
        assert!(view.serving().is_none());
        assert_eq!(view.answering_master().map(|pod| pod.replica), Some(0));
        view.pods[0].is_terminating = true;
        assert!(view.answering_master().is_none());
    }

    #[test]
    fn what_a_master_says_of_its_slaves_is_known_for_a_while() {
        let (slaves, now, master) = (Slaves::default(), Instant::now(), (4, 0));
        assert_eq!(told(&slaves), [(None, None); 3]);
        slaves.note(now, key(), master, Some(one(5, true)));
        let known = [(Some(0), Some(true)), (Some(5), Some(true)), (None, Some(false))];
        assert_eq!(told(&slaves), known);
        slaves.note(now + FRESH, key(), master, None);
        assert_eq!(told(&slaves), known);
        slaves.note(now + KEPT, key(), master, None);
        assert_eq!(told(&slaves), [(None, None); 3]);
        // A pod that was started anew does not count as the one before did.
        let mut view = three_replicas();
        slaves.note(now, key(), master, Some(one(5, true)));
        view.pods[1].uid = Some("another".to_owned());
        slaves.tell("shop", &mut view);
        assert_eq!((view.pods[1].lag_bytes, view.pods[1].keeps_up), (None, Some(false)));
        assert_eq!(view.counted, Some(BTreeSet::from([0, 1])), "also who was started anew");
        // Of another master nothing is known.
        slaves.note(now, key(), (3, 0), Some(one(5, true)));
        assert_eq!(told(&slaves), [(None, None); 3]);
    }
}
