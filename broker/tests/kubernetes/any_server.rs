//! What holds with a stand-in holds with the real one.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use tokio::time::timeout;
use weirmq_authority::{Lease, Phase, Record, Swapped, Version};
use weirmq_broker::coordination::{Error, MasterEndpoint, Moved, Pod};

use crate::support::{PATIENCE, SLICES, Server, first, held, member, with_set};

#[track_caller]
fn won(swapped: Swapped) -> Version {
    match swapped {
        Swapped::Won(version) => version,
        lost => panic!("{lost:?}"),
    }
}

#[tokio::test]
async fn a_new_group_is_read_as_the_first_record_and_a_free_lease() {
    let server = Server::any().await.with_group().await;
    let replica = server.replica();
    let ((_, record), (_, lease), settings) = replica.read().await.unwrap();
    assert_eq!((record, lease), (Record::default(), Lease::default()));
    assert_eq!((settings.group.len(), settings.min_in_sync), (3, 2));
}

#[tokio::test]
async fn a_record_is_swapped_by_its_version() {
    let server = Server::any().await.with_group().await;
    let (one, other) = (server.replica(), server.replica());
    let ((unborn, _), ..) = one.read().await.unwrap();
    let elected = won(one.swap_record(&unborn, &first()).await);
    let ((version, record), ..) = other.read().await.unwrap();
    assert_eq!((&version, record), (&elected, first()));
    // Somebody who saw the version before.
    assert_eq!(other.swap_record(&unborn, &first()).await, Swapped::Lost);
    let larger = with_set(&first(), &[member(0, 7), member(1, u64::MAX)]);
    let added = won(one.swap_record(&elected, &larger).await);
    // A member that left is gone, not kept by a merge.
    let smaller = with_set(&larger, &[member(0, 7)]);
    let removed = won(other.swap_record(&added, &smaller).await);
    let ((version, record), ..) = one.read().await.unwrap();
    assert_eq!((version, record), (removed, smaller));
    let shown = server.get(&server.group_path()).await;
    assert_eq!(shown["status"]["inSyncReplicas"], "0");
    assert_eq!(shown["spec"]["replicas"], 3);
}

#[tokio::test]
async fn of_swaps_at_the_same_time_one_wins() {
    let server = Server::any().await.with_group().await;
    let (one, other) = (server.replica(), server.replica());
    let ((unborn, _), (free, _), _) = one.read().await.unwrap();
    let elected = |replica, incarnation| {
        let winner = member(replica, incarnation);
        Record { master: Some(winner), in_sync: [winner].into_iter().collect(), ..first() }
    };
    let (first, second) = (elected(0, 7), elected(1, 8));
    let (first, second) =
        tokio::join!(one.swap_record(&unborn, &first), other.swap_record(&unborn, &second));
    let is_won = |swapped: &Swapped| matches!(swapped, Swapped::Won(_));
    assert!(is_won(&first) != is_won(&second), "{first:?} {second:?}");
    let (first, second) = (held(member(0, 7), 1), held(member(1, 8), 1));
    let (first, second) =
        tokio::join!(one.swap_lease(&free, &first), other.swap_lease(&free, &second));
    assert!(is_won(&first) != is_won(&second), "{first:?} {second:?}");
}

/// The API server itself takes a write that changes nothing for done, without a new version. A swap
/// that somebody asked for before could then still succeed.
#[tokio::test]
async fn a_swap_for_the_same_record_makes_earlier_ones_fail() {
    let server = Server::any().await.with_group().await;
    let replica = server.replica();
    let ((unborn, _), ..) = replica.read().await.unwrap();
    let stable = Record { phase: Phase::Stable, ..first() };
    let before = won(replica.swap_record(&unborn, &stable).await);
    let after = won(replica.swap_record(&before, &stable).await);
    assert_ne!(before, after);
    let late = with_set(&stable, &[member(0, 7), member(1, 8)]);
    assert_eq!(server.replica().swap_record(&before, &late).await, Swapped::Lost);
}

#[tokio::test]
async fn what_no_correct_replica_writes_is_refused_here_and_there() {
    let server = Server::any().await.with_group().await;
    let replica = server.replica();
    let ((unborn, _), ..) = replica.read().await.unwrap();
    let trail = |tags: &[&str]| serde_json::from_value(json!(tags)).unwrap();
    let (tag, next_tag) = ("00000000000000aa", "00000000000000bb");
    let old = Record { epoch: 5, in_sync_version: 9, trail: trail(&[tag]), ..first() };
    let version = won(replica.swap_record(&unborn, &old).await);
    let fallen = Record { epoch: 4, ..old.clone() };
    assert_eq!(replica.swap_record(&version, &fallen).await, Swapped::Lost);
    // Whoever goes by does so at the API server's rules.
    let whole = server.get(&server.group_path()).await;
    let path = format!("{}/status", server.group_path());
    type Damage = fn(&mut Value);
    let refused: [(&str, Damage); 11] = [
        ("the epoch never falls", |status| status["epoch"] = json!(4)),
        ("never falls", |status| status["inSyncVersion"] = json!(8)),
        ("only with a new version", |status| status["phase"] = json!("Stable")),
        ("made from the one that is there", |status| {
            status["inSyncVersion"] = json!(10);
            status["trail"] = json!(["00000000000000cc", "00000000000000dd"]);
        }),
        ("only with a new version", |status| status["eligible"] = json!({"1": "00000000000000aa"})),
        ("only with a new epoch", |status| {
            status["master"] = json!({"replica": 1, "incarnation": "00000000000000aa"});
        }),
        ("only with a new epoch", |status| status["master"] = Value::Null),
        ("is in the in-sync set", |status| {
            status["epoch"] = json!(6);
            status["inSync"] = json!({"0": "00000000000000aa"});
            status["inSyncVersion"] = json!(10);
        }),
        ("in sync or eligible before", |status| {
            status["epoch"] = json!(6);
            status["master"] = json!({"replica": 2, "incarnation": "00000000000000aa"});
            status["inSync"] = json!({"2": "00000000000000aa"});
            status["inSyncVersion"] = json!(10);
        }),
        ("", |status| status["inSync"] = json!({"0": "a word"})),
        ("", |status| status["epoch"] = json!(-1)),
    ];
    for (why, damage) in refused {
        let mut object = whole.clone();
        damage(&mut object["status"]);
        let (code, body) = server.send(Method::PUT, &path, "application/json", &object).await;
        assert_eq!(code, 422, "{why}: {body}");
        let said = body["message"].as_str().unwrap();
        assert!(server.stand_in.is_some() || said.contains(why), "{why}: {said}");
    }
    let mut taken = whole.clone();
    taken.as_object_mut().unwrap().remove("status");
    assert_eq!(server.send(Method::PUT, &path, "application/json", &taken).await.0, 422);
    let mut other = whole;
    let path = server.group_path();
    for change in [json!({"flush": "Async"}), json!({"replication": {"minInSync": 4}})] {
        let patch = json!({ "spec": change });
        let media = "application/merge-patch+json";
        assert_eq!(server.send(Method::PATCH, &path, media, &patch).await.0, 422, "{patch}");
    }
    other["spec"]["replicas"] = json!(5);
    assert_eq!(server.send(Method::PUT, &path, "application/json", &other).await.0, 200);
    // The record's version is another one by that, and nothing else.
    assert_eq!(replica.swap_record(&version, &old).await, Swapped::Lost);
    let ((version, record), _, settings) = replica.read().await.unwrap();
    assert_eq!((settings.group.len(), settings.min_in_sync), (5, 2));
    assert_eq!(record, old);
    // After all members may have lost something, another start of one of them may be elected.
    let winner = member(0, 8);
    let lossy = Record {
        epoch: 6,
        master: Some(winner),
        in_sync: [winner].into_iter().collect(),
        in_sync_version: 10,
        loss_epoch: 6,
        trail: trail(&[tag, next_tag]),
        ..old
    };
    won(replica.swap_record(&version, &lossy).await);
}

#[tokio::test]
async fn a_lease_is_taken_renewed_and_given_back() {
    let server = Server::any().await.with_group().await;
    let (one, other) = (server.replica(), server.replica());
    let (_, (free, _), _) = one.read().await.unwrap();
    let taken = won(one.swap_lease(&free, &held(member(2, 0xab), 1)).await);
    let renewed = won(one.swap_lease(&taken, &held(member(2, 0xab), 2)).await);
    assert_ne!(taken, renewed);
    assert_eq!(other.swap_lease(&taken, &held(member(1, 1), 2)).await, Swapped::Lost);
    let (_, (version, lease), _) = other.read().await.unwrap();
    assert_eq!((&version, lease), (&renewed, held(member(2, 0xab), 2)));
    let passed_on = won(other.swap_lease(&version, &held(member(1, 1), 3)).await);
    let shown = server.get(&server.lease_path()).await;
    assert_eq!(shown["spec"]["holderIdentity"], "1-0000000000000001");
    assert_eq!(shown["spec"]["leaseTransitions"], 2);
    assert_eq!(shown["metadata"]["labels"]["app.kubernetes.io/part-of"], "weirmq");
    let free = Lease { holder: None, renewals: 4 };
    let given_back = won(other.swap_lease(&passed_on, &free).await);
    let (_, (version, lease), _) = one.read().await.unwrap();
    assert_eq!((version, lease), (given_back, free));
}

#[tokio::test]
async fn an_object_that_was_made_again_is_another_one() {
    let server = Server::any().await.with_group().await;
    let replica = server.replica();
    let ((unborn, _), (free, _), _) = replica.read().await.unwrap();
    let elected = won(replica.swap_record(&unborn, &first()).await);
    for path in [server.group_path(), server.lease_path()] {
        assert_eq!(
            server.send(Method::DELETE, &path, "application/json", &Value::Null).await.0,
            200
        );
    }
    let error = replica.read().await.unwrap_err();
    assert!(matches!(&error, Error::Missing(_)), "{error}");
    assert!(error.to_string().contains(&server.group), "{error}");
    assert_eq!(replica.swap_record(&elected, &first()).await, Swapped::Lost);
    assert_eq!(replica.swap_lease(&free, &held(member(0, 7), 1)).await, Swapped::Lost);
    let _server = server.with_group().await;
    // Its epoch is not the one that was there; who swaps by the old version cannot tell, and loses.
    let next = with_set(&first(), &[member(0, 7), member(1, 8)]);
    assert_eq!(replica.swap_record(&elected, &next).await, Swapped::Lost);
    assert_eq!(replica.swap_lease(&free, &held(member(0, 7), 1)).await, Swapped::Lost);
    let ((version, record), ..) = replica.read().await.unwrap();
    assert_ne!(version, elected);
    assert_eq!(record, Record::default());
}

/// As after etcd was restored from a copy, where resourceVersions begin again.
#[tokio::test]
async fn another_object_with_the_same_resource_version_is_another_one() {
    let server = Server::any().await.with_group().await;
    let replica = server.replica();
    let ((record, _), (lease, _), _) = replica.read().await.unwrap();
    let of_another = |version: &Version| {
        let (_, version) = version.0.rsplit_once('/').unwrap();
        Version(format!("00000000-0000-4000-8000-000000000000/{version}"))
    };
    assert_eq!(replica.swap_record(&of_another(&record), &first()).await, Swapped::Lost);
    let taken = held(member(0, 7), 1);
    assert_eq!(replica.swap_lease(&of_another(&lease), &taken).await, Swapped::Lost);
    let (_, (_, found), _) = replica.read().await.unwrap();
    assert_eq!(found, Lease::default());
}

#[tokio::test]
async fn a_lease_that_somebody_else_took_is_not_taken_for_free() {
    let server = Server::any().await.with_group().await;
    let taken = json!({ "spec": { "holderIdentity": "somebody" } });
    let path = server.lease_path();
    let patched = server.send(Method::PATCH, &path, "application/merge-patch+json", &taken).await;
    assert_eq!(patched.0, 200);
    let error = server.replica().read().await.unwrap_err();
    assert!(matches!(&error, Error::Unreadable { .. }), "{error}");
    assert!(error.to_string().contains("spec.holderIdentity"), "{error}");
}

#[tokio::test]
async fn a_change_of_the_record_or_of_the_settings_wakes() {
    let server = Server::any().await.with_group().await;
    let (one, other) = (server.replica(), server.replica());
    let ((record, _), ..) = one.read().await.unwrap();
    let mut watch = other.watch();
    // Each watch begins with a hint.
    timeout(PATIENCE, watch.changed()).await.unwrap();
    let version = won(one.swap_record(&record, &first()).await);
    timeout(PATIENCE, async {
        while other.read().await.unwrap().0.0 != version {
            watch.changed().await;
        }
    })
    .await
    .unwrap();
    let patch = json!({ "spec": { "replicas": 5 } });
    let path = server.group_path();
    assert_eq!(
        server.send(Method::PATCH, &path, "application/merge-patch+json", &patch).await.0,
        200
    );
    timeout(PATIENCE, async {
        while other.read().await.unwrap().2.group.len() != 5 {
            watch.changed().await;
        }
    })
    .await
    .unwrap();
}

fn endpoint(
    server: &Server,
    group: weirmq_broker::coordination::Kubernetes,
    address: &str,
) -> MasterEndpoint {
    let pod = Pod { name: "broker-0".to_owned(), node: Some("n1".to_owned()) };
    let ports = vec![("remoting".to_owned(), 10911), ("vip".to_owned(), 10909)];
    let address = address.parse().unwrap();
    MasterEndpoint::new(Arc::new(group), &server.group, address, ports, Some(pod)).unwrap()
}

#[tokio::test]
async fn a_new_master_leads_clients_to_itself() {
    let server = Server::any().await.with_group().await;
    let (one, other) = (server.replica(), server.replica());
    one.read().await.unwrap();
    other.read().await.unwrap();
    let (one, other) = (endpoint(&server, one, "10.1.2.3"), endpoint(&server, other, "10.1.2.4"));
    let path = format!("{SLICES}/{}-ipv4", server.group);
    assert_eq!(one.move_here(1).await.unwrap(), Moved::Here);
    let made = server.get(&path).await;
    assert_eq!(made["endpoints"][0]["addresses"], json!(["10.1.2.3"]));
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/service-name"], json!(server.group));
    // Somebody else's label stays.
    let label = json!({ "metadata": { "labels": { "team": "orders" } } });
    let labelled = server.send(Method::PATCH, &path, "application/merge-patch+json", &label).await;
    // What is there already is not written.
    assert_eq!(one.move_here(1).await.unwrap(), Moved::Here);
    let same = server.get(&path).await;
    assert_eq!(same["metadata"]["resourceVersion"], labelled.1["metadata"]["resourceVersion"]);
    assert_eq!(other.move_here(2).await.unwrap(), Moved::Here);
    let moved = server.get(&path).await;
    assert_eq!(moved["endpoints"].as_array().unwrap().len(), 1);
    assert_eq!(moved["endpoints"][0]["addresses"], json!(["10.1.2.4"]));
    assert_eq!(moved["metadata"]["labels"]["team"], "orders");
    // The master before does not take it back.
    assert_eq!(one.move_here(1).await.unwrap(), Moved::Superseded { epoch: 2 });
    assert_eq!(timeout(PATIENCE, one.hold(1)).await.unwrap(), 2);
    assert_eq!(server.get(&path).await["endpoints"], moved["endpoints"]);
}

#[tokio::test]
async fn a_group_that_was_made_again_takes_the_endpoint_from_the_one_before() {
    let server = Server::any().await.with_group().await;
    let one = server.replica();
    one.read().await.unwrap();
    let one = endpoint(&server, one, "10.1.2.3");
    assert_eq!(one.move_here(57).await.unwrap(), Moved::Here);
    for path in [server.group_path(), server.lease_path()] {
        assert_eq!(
            server.send(Method::DELETE, &path, "application/json", &Value::Null).await.0,
            200
        );
    }
    let server = server.with_group().await;
    let other = server.replica();
    other.read().await.unwrap();
    let other = endpoint(&server, other, "10.1.2.4");
    assert_eq!(other.move_here(1).await.unwrap(), Moved::Here);
}
