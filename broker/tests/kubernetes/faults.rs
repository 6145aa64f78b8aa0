//! Faults between a broker and the API server.

use std::time::{Duration, Instant};

use tokio::time::timeout;
use weirmq_authority::{Lease, Record, Swapped};
use weirmq_broker::coordination::Error;
use weirmq_kube_stand_in::{Effect, Fault};

use crate::support::{PATIENCE, Server, first, held, member};

/// Long enough for a slow machine, short enough to be waited for.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(800);

/// How many requests with this method and path there were.
fn count(requests: &[String], method: &str, path: &str) -> usize {
    requests.iter().filter(|asked| asked.starts_with(method) && asked.contains(path)).count()
}

/// Whatever hides the answer, the swap took effect: so it is unknown, and is not sent again.
#[tokio::test]
async fn a_swap_whose_answer_is_lost_is_unknown_and_not_repeated() {
    let effects = [500, 502, 503, 504, 429, 408, 200, 302].map(Effect::AnswerWrongly);
    for effect in effects.into_iter().chain([Effect::LoseAnswer, Effect::AnswerLateMs(2_000)]) {
        let server = Server::stand_in().await.with_group().await;
        let replica = server.replica_within(REQUEST_TIMEOUT);
        let ((record, _), (lease, _), _) = replica.read().await.unwrap();
        let stand_in = server.faulty();
        stand_in.take_requests();
        stand_in.fault(Fault::once("PUT", "/brokergroups/", effect));
        stand_in.fault(Fault::once("PATCH", "/leases/", effect));
        let swapped = replica.swap_record(&record, &first()).await;
        assert_eq!(swapped, Swapped::Unknown, "{effect:?}");
        let taken = held(member(0, 7), 1);
        assert_eq!(replica.swap_lease(&lease, &taken).await, Swapped::Unknown, "{effect:?}");
        let requests = stand_in.take_requests();
        assert_eq!(count(&requests, "PUT", "/brokergroups/"), 1, "{effect:?}: {requests:?}");
        assert_eq!(count(&requests, "PATCH", "/leases/"), 1, "{effect:?}: {requests:?}");
        let ((_, record), (_, lease), _) = server.replica().read().await.unwrap();
        assert_eq!((record, lease), (first(), taken), "{effect:?}");
    }
}

#[tokio::test]
async fn a_swap_that_does_not_arrive_is_unknown_as_well() {
    for effect in [Effect::Cut, Effect::Hang, Effect::DelayMs(2_000), Effect::Refuse(503)] {
        let server = Server::stand_in().await.with_group().await;
        let replica = server.replica_within(REQUEST_TIMEOUT);
        let ((record, _), ..) = replica.read().await.unwrap();
        server.faulty().fault(Fault::once("PUT", "/brokergroups/", effect));
        let begun = Instant::now();
        let swapped = replica.swap_record(&record, &first()).await;
        assert_eq!(swapped, Swapped::Unknown, "{effect:?}");
        assert!(begun.elapsed() < REQUEST_TIMEOUT, "{effect:?}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_swap_that_is_refused_is_lost() {
    for code in [400, 401, 403, 404, 409, 413, 422] {
        let server = Server::stand_in().await.with_group().await;
        let replica = server.replica();
        let ((record, _), (lease, _), _) = replica.read().await.unwrap();
        server.faulty().fault(Fault::always("/default/", Effect::Refuse(code)));
        assert_eq!(replica.swap_record(&record, &first()).await, Swapped::Lost, "{code}");
        let taken = held(member(0, 7), 1);
        assert_eq!(replica.swap_lease(&lease, &taken).await, Swapped::Lost, "{code}");
        server.faulty().mend();
        let ((_, record), (_, lease), _) = replica.read().await.unwrap();
        assert_eq!((record, lease), (Record::default(), Lease::default()));
    }
}

/// A read that fails makes a candidate wait for the whole lease again.
#[tokio::test]
async fn a_read_survives_one_bad_answer() {
    let effects = [Effect::Cut, Effect::Hang, Effect::Refuse(500), Effect::Refuse(429)];
    for effect in effects {
        let server = Server::stand_in().await.with_group().await;
        let replica = server.replica_within(REQUEST_TIMEOUT);
        replica.read().await.unwrap();
        server.faulty().fault(Fault::once("GET", "/brokergroups/", effect));
        server.faulty().fault(Fault::once("GET", "/leases/", effect));
        let begun = Instant::now();
        replica.read().await.unwrap();
        assert!(begun.elapsed() < REQUEST_TIMEOUT, "{effect:?}: {:?}", begun.elapsed());
    }
}

/// The connections that were open are dead, as after the API server started again.
#[tokio::test]
async fn a_read_survives_a_server_that_starts_again() {
    let server = Server::stand_in().await.with_group().await;
    let replica = server.replica();
    for _ in 0..20 {
        replica.read().await.unwrap();
        server.faulty().cut();
    }
}

#[tokio::test]
async fn reads_end_in_time_and_with_a_reason() {
    let server = Server::stand_in().await.with_group().await;
    let replica = server.replica_within(REQUEST_TIMEOUT);
    let failing = [
        (Effect::Hang, "no answer from the API server for 600 ms"),
        (Effect::Cut, "cannot be reached"),
        (Effect::Refuse(500), "the API server fails (500): this fault was asked for"),
        (Effect::Refuse(403), "resources: [brokergroups], resourceNames: [group-"),
        (Effect::Refuse(401), "token of its service account"),
        (Effect::Refuse(404), "weir crds"),
        (Effect::Refuse(200), "no uid"),
    ];
    for (effect, reason) in failing {
        server.faulty().fault(Fault::always("/brokergroups/", effect));
        let begun = Instant::now();
        let error = replica.read().await.unwrap_err();
        assert!(begun.elapsed() < REQUEST_TIMEOUT, "{effect:?}: {:?}", begun.elapsed());
        let error = error.to_string();
        assert!(error.contains(reason) && error.contains("BrokerGroup"), "{error}");
        server.faulty().mend();
    }
    server.faulty().refuse(true);
    let error = replica.read().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    server.faulty().refuse(false);
    replica.read().await.unwrap();
}

/// What the machine refuses to obey, it has to see first.
#[tokio::test]
async fn a_record_that_was_restored_from_a_copy_is_read_as_it_is() {
    let server = Server::stand_in().await.with_group().await;
    let replica = server.replica();
    server.faulty().back_up();
    let ((unborn, _), ..) = replica.read().await.unwrap();
    let swapped = replica.swap_record(&unborn, &first()).await;
    server.faulty().restore();
    let ((version, record), ..) = replica.read().await.unwrap();
    assert_eq!(record, Record::default());
    assert_ne!(swapped, Swapped::Won(version.clone()));
    assert_ne!(version, unborn);
}

#[tokio::test]
async fn a_watch_comes_back_after_the_connection() {
    let server = Server::stand_in().await.with_group().await;
    let replica = server.replica();
    let mut watch = replica.watch();
    timeout(PATIENCE, watch.changed()).await.unwrap();
    server.faulty().refuse(true);
    let ((record, _), ..) = {
        server.faulty().refuse(false);
        server.replica().read().await.unwrap()
    };
    // The new watch begins with a hint, whether something was missed or not.
    timeout(PATIENCE, watch.changed()).await.unwrap();
    let other = server.replica();
    other.read().await.unwrap();
    let Swapped::Won(version) = other.swap_record(&record, &first()).await else { panic!("lost") };
    timeout(PATIENCE, async {
        while replica.read().await.unwrap().0.0 != version {
            watch.changed().await;
        }
    })
    .await
    .unwrap();
}

/// A watch names one object: so a Role with resourceNames is enough, and others' changes do not wake.
#[tokio::test]
async fn a_watch_asks_for_its_object_only_and_not_often() {
    let server = Server::stand_in().await.with_group().await;
    let replica = server.replica();
    server.faulty().take_requests();
    server.faulty().fault(Fault::always("/default/", Effect::Refuse(503)));
    let _watch = replica.watch();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let requests = server.faulty().take_requests();
    let selector = format!("fieldSelector=metadata.name%3D{}", server.group);
    assert!(requests.iter().all(|asked| asked.contains(&selector)), "{requests:?}");
    // With pauses of 50 to 100, 100 to 200, … ms.
    assert!((1..=7).contains(&requests.len()), "{requests:?}");
}
