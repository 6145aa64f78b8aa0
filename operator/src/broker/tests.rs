//! What is built from resources, without a cluster; and resources and groups for the tests of other files.

use kube::ResourceExt as _;
use serde_json::Value;
use weirmq_authority::{Incarnation, Member, Phase, Record, ReplicaId};
use weirmq_broker::BrokerConfig;

use super::build::{self, Group, Plan};
use super::observe::{GroupView, PodView};
use super::roll::{self, Step};
use crate::annotations::RESTARTED_AT;
use crate::children::sha256;
use crate::kinds::Broker;
use crate::name_server;
use crate::restart::Configuration;

/// A group that is well: replica 0 of three is master, each on a node of its own.
pub(super) fn three_replicas() -> GroupView {
    let pods = (0..3).map(|replica| PodView {
        name: format!("mq-0-{replica}"),
        replica,
        node: Some(format!("n{replica}")),
        is_ready: true,
        is_up_to_date: true,
        ..PodView::default()
    });
    GroupView {
        name: "mq-0".to_owned(),
        is_elected: true,
        is_current: true,
        wanted: 3,
        declared: 3,
        min_in_sync: 2,
        record: Some(Record {
            epoch: 4,
            phase: Phase::Stable,
            master: Some(member(0)),
            in_sync: (0..3).map(member).collect(),
            ..Record::default()
        }),
        pods: pods.collect(),
        ..GroupView::default()
    }
}

pub(super) fn member(replica: u32) -> Member {
    Member { replica: ReplicaId(replica), incarnation: Incarnation(1) }
}

pub(super) fn broker(spec: &str) -> Broker {
    let text = format!(
        "{{apiVersion: weirmq.io/v1alpha1, kind: Broker, \
         metadata: {{name: mq, namespace: shop, uid: 7, generation: 1}}, spec: {spec}}}"
    );
    serde_yaml::from_str(&text).unwrap()
}

fn objects(resource: &Broker) -> Vec<Value> {
    let names =
        (0..resource.spec.groups).map(|index| build::group_name(&resource.name_any(), index));
    let replicas = resource.spec.replicas_per_group;
    let groups = names
        .map(|name| Group {
            name,
            is_draining: false,
            replicas,
            may_lose_one: true,
            may_lose_unready: true,
            ..Group::default()
        })
        .collect();
    let of_reference = || vec!["ns-namesrv-pods.shop.svc.cluster.local:9876".to_owned()];
    let name_servers = resource.spec.name_servers.clone().unwrap_or_else(of_reference);
    let (image, domain) = ("weirmq:1", "cluster.local");
    let external = resource.spec.external.as_ref().map(|_| {
        let services = (0..replicas).map(|replica| build::external::service_name("mq-0", replica));
        services.enumerate().map(|(at, name)| (name, format!("{{node}}:{}", 30_000 + at))).collect()
    });
    let external = external.unwrap_or_default();
    Plan { resource, image, domain, name_servers, external, groups }.objects()
}

/// Everything that is made for a Broker whose NameServers are there, in that order; the replicas' secret of
/// nothing but zeros. So many groups more than are declared are there and leave.
pub(crate) fn made(resource: &Broker, leaving: u32) -> Vec<Value> {
    let group = |index| Group {
        name: build::group_name(&resource.name_any(), index),
        is_draining: index >= resource.spec.groups,
        replicas: resource.spec.replicas_per_group,
        may_lose_one: true,
        may_lose_unready: true,
        ..Group::default()
    };
    let groups: Vec<Group> = (0..resource.spec.groups + leaving).map(group).collect();
    let name_server = resource.spec.name_server_ref.as_ref().unwrap();
    let namespace = resource.namespace().unwrap();
    let (image, domain) = ("weirmq:1", "cluster.local");
    let name_servers = name_server::brokers_address(&name_server.name, &namespace, domain);
    let name_servers = vec![name_servers];
    let external = Default::default();
    let plan = Plan { resource, image, domain, name_servers, external, groups };
    let mut made = Vec::new();
    let tls = resource.spec.tls.as_ref();
    if let Some(issuer) = tls.and_then(|tls| tls.issuer_ref.as_ref()) {
        made.push(build::tls::certificate(&plan, issuer, &build::tls::hosts(&plan)));
    }
    if resource.spec.replicas_per_group > 1 {
        made.push(plan.secret(&[0; 32]));
    }
    for group in plan.groups.iter().filter(|_| plan.is_elected()) {
        made.push(plan.lease(&group.name));
        made.push(build::endpoint_slice(&plan, &group.name));
    }
    made.extend(plan.objects());
    made
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
    objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
}

/// The file of a group, as its brokers with this id read it.
fn config(objects: &[Value], group: &str, broker_id: u64) -> BrokerConfig {
    let map = find(objects, "ConfigMap", &format!("{group}-config")).unwrap();
    let text = map["data"]["broker.toml"].as_str().unwrap();
    let mut table: toml::Table = text.parse().unwrap();
    let mut config: BrokerConfig = table.remove("broker").unwrap().try_into().unwrap();
    assert!(table.is_empty(), "{text}");
    config.broker_id = broker_id;
    config.validate().unwrap();
    config
}

pub(super) const COMMON: &str = "nameServerRef: {name: ns}, storage: {size: 1Gi}";

#[test]
fn every_mode_gives_a_configuration_that_brokers_take() {
    for (spec, is_sync, is_elected) in [
        ("replicasPerGroup: 1", false, false),
        ("groups: 2, replicasPerGroup: 1, flush: Async", false, false),
        ("replicasPerGroup: 2, replication: {mode: Async}, flush: Async", false, true),
        ("replicasPerGroup: 2, replication: {minInSync: 2}", true, true),
        ("groups: 2", true, true),
        ("replicasPerGroup: 3, failover: {mode: Disabled}", true, false),
        (
            "failover: {leaseSeconds: 3}, config: {segmentSize: 64Mi, messageBytesMax: 33554432, \
          retentionAtHours: [1, 2], retentionHours: 9, topicsMax: 5, ioThreads: 2}",
            true,
            true,
        ),
    ] {
        let resource = broker(&format!("{{{COMMON}, {spec}}}"));
        let objects = objects(&resource);
        for index in 0..resource.spec.groups {
            let group = format!("mq-{index}");
            for replica in 0..resource.spec.replicas_per_group {
                let config = config(&objects, &group, u64::from(replica));
                assert_eq!(config.name, group);
                assert_eq!(config.replication.is_elected(), is_elected, "{spec}");
                assert_eq!(config.replication.min_in_sync.is_some(), is_sync, "{spec}");
            }
            let record = find(&objects, "BrokerGroup", &group);
            assert_eq!(record.is_some(), is_elected, "{spec}");
            assert!(find(&objects, "StatefulSet", &group).is_some());
        }
    }
}

#[test]
fn pods_keep_to_restricted_pod_security() {
    let resource = broker(&format!("{{{COMMON}}}"));
    let objects = objects(&resource);
    let pod = &find(&objects, "StatefulSet", "mq-0").unwrap()["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0]["securityContext"];
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["capabilities"]["drop"], serde_json::json!(["ALL"]));
    assert_eq!(container["readOnlyRootFilesystem"], true);
}

#[test]
fn brokers_may_only_touch_their_own_records() {
    let resource = broker(&format!("{{{COMMON}, groups: 2}}"));
    let objects = objects(&resource);
    let role = find(&objects, "Role", "mq-broker").unwrap();
    for rule in role["rules"].as_array().unwrap() {
        let names = rule["resourceNames"].as_array().unwrap();
        assert!(names.iter().all(|name| name.as_str().unwrap().starts_with("mq-")), "{rule}");
    }
    let granted = |resource: &str| {
        let is_of = |rule: &&serde_json::Value| rule["resources"][0] == resource;
        role["rules"].as_array().unwrap().iter().find(is_of).unwrap()["verbs"].clone()
    };
    // What `docs/replication.md` says that they need; the slices are there before they are.
    assert_eq!(granted("brokergroups"), serde_json::json!(["get", "watch"]));
    assert_eq!(granted("brokergroups/status"), serde_json::json!(["update"]));
    assert_eq!(granted("leases"), serde_json::json!(["get", "patch"]));
    assert_eq!(granted("endpointslices"), serde_json::json!(["get", "patch"]));
}

#[test]
fn the_authority_record_lives_as_long_as_the_disks() {
    let owners = |spec: &str| {
        let objects = objects(&broker(&format!("{{nameServerRef: {{name: ns}}, {spec}}}")));
        find(&objects, "BrokerGroup", "mq-0").unwrap()["metadata"]["ownerReferences"].clone()
    };
    assert!(owners("storage: {size: 1Gi}").is_null());
    let deleted = "storage: {size: 1Gi, whenDeleted: Delete}";
    assert_eq!(owners(deleted)[0]["kind"], "Broker");
    // Those of a group that leaves stay in any case.
    let made = made(&broker(&format!("{{nameServerRef: {{name: ns}}, {deleted}}}")), 1);
    for kind in ["BrokerGroup", "Lease"] {
        let owners = |name| &find(&made, kind, name).unwrap()["metadata"]["ownerReferences"];
        assert_eq!(owners("mq-0")[0]["kind"], "Broker", "{kind}");
        assert!(owners("mq-1").is_null(), "{kind}");
    }
    let retention = "persistentVolumeClaimRetentionPolicy";
    assert_eq!(
        find(&made, "StatefulSet", "mq-1").unwrap()["spec"][retention]["whenDeleted"],
        "Retain"
    );
}

#[test]
fn the_number_of_replicas_and_min_in_sync_restart_nobody() {
    let template = |spec: &str| {
        let objects = objects(&broker(&format!("{{{COMMON}, {spec}}}")));
        find(&objects, "StatefulSet", "mq-0").unwrap()["spec"]["template"].clone()
    };
    let three = template("replicasPerGroup: 3");
    assert_eq!(three, template("replicasPerGroup: 5, replication: {minInSync: 3}"));
    // Nor what brokers take from their file while they run.
    let live = "autoCreateTopics: false, retentionHours: 1, retentionAtHours: [1], topicsMax: 9";
    assert_eq!(three, template(&format!("config: {{{live}}}")));
    assert_eq!(three, template("nameServers: ['a:9876', 'b:9876']"));
    assert_ne!(three, template("config: {messageBytesMax: 65536}"));
    assert_ne!(three, template("pod: {image: 'weirmq:2'}"));
}

#[test]
fn brokers_that_do_not_read_their_file_again_are_restarted_for_everything() {
    // What becomes of a group whose file says something already.
    let built =
        |spec: &str, file: Option<&str>, as_started: &[&str], hashed_whole: Option<&str>| {
            let resource = broker(&format!("{{{COMMON}, {spec}}}"));
            let group = Group {
                name: "mq-0".to_owned(),
                replicas: 3,
                may_lose_one: true,
                may_lose_unready: true,
                file: file.map(str::to_owned),
                not_rereading: as_started.iter().map(|image| (*image).to_owned()).collect(),
                hashed_whole: hashed_whole.map(str::to_owned),
                ..Group::default()
            };
            let (image, domain) = ("weirmq:1", "cluster.local");
            let (name_servers, external) = (vec!["ns:9876".to_owned()], Default::default());
            let groups = vec![group];
            let objects =
                Plan { resource: &resource, image, domain, name_servers, external, groups }
                    .objects();
            let file = &find(&objects, "ConfigMap", "mq-0-config").unwrap()["data"]["broker.toml"];
            let set = find(&objects, "StatefulSet", "mq-0").unwrap();
            let known = build::hashed_whole(&serde_json::from_value(set.clone()).unwrap());
            (file.as_str().unwrap().to_owned(), set["spec"]["template"].clone(), known)
        };
    let (before, after) = ("config: {retentionHours: 2}", "config: {retentionHours: 3}");
    let (file, first, known) = built(before, None, &["weirmq:1"], None);
    assert_eq!(known, None);
    let unchanged = built(before, Some(&file), &["weirmq:1"], None);
    assert_eq!(unchanged.1, first, "nothing is started anew because somebody looked");
    assert_eq!(built(after, Some(&file), &["weirmq:0"], None).1, first);
    let (file, second, known) = built(after, Some(&file), &["weirmq:1"], None);
    assert_ne!(second, first);
    assert_eq!(known.as_deref(), Some("weirmq:1"));
    // It stays so, whatever pods say meanwhile, until there is another image.
    assert_eq!(built(after, Some(&file), &[], known.as_deref()).1, second);
    assert_ne!(built(before, Some(&file), &[], known.as_deref()).1, second);
    let other = "pod: {template: {spec: {containers: [{name: broker, image: 'weirmq:2'}]}}}";
    assert_eq!(built(other, Some(&file), &["weirmq:1"], known.as_deref()).2, None);
    let other = built(other, Some(&file), &["weirmq:2"], known.as_deref());
    assert_eq!(other.2.as_deref(), Some("weirmq:2"));
}

#[test]
fn what_restarts_nobody_is_what_brokers_take_while_they_run() {
    for path in build::config::LIVE {
        assert!(weirmq_broker::LIVE.iter().any(|live| live.path == path), "{path}");
    }
    let text = |fields: &str| {
        let objects = objects(&broker(&format!("{{{COMMON}, config: {{{fields}}}}}")));
        let map = find(&objects, "ConfigMap", "mq-0-config").unwrap();
        map["data"]["broker.toml"].as_str().unwrap().to_owned()
    };
    let before = text("retentionHours: 2, connectionsMax: 5");
    let after = text("retentionAtHours: [3, 4], connectionsMax: 6");
    let changed = build::config::changed(&before, &after);
    let expected =
        ["store.retention_hours 2 -> default", "store.retention_at_hours default -> [3, 4]"];
    assert_eq!(changed, expected);
}

#[test]
fn who_does_not_go_by_the_newest_file_is_named() {
    let said = |sha256: Option<&str>, error: Option<&str>| {
        let text = |text: &str| text.to_owned();
        let needs_restart = false;
        Configuration::File { sha256: sha256.map(text), error: error.map(text), needs_restart }
    };
    let new = sha256("new");
    let behind = |configuration: Configuration| {
        let mut group = three_replicas();
        group.file = Some("new".to_owned());
        group.pods.iter_mut().for_each(|pod| pod.configuration = said(Some(&new), None));
        group.pods[1].configuration = configuration;
        group.not_configured()
    };
    assert_eq!(behind(said(Some(&new), Some("of a later one"))), None);
    assert_eq!(behind(said(None, None)), None, "it was started without a file");
    assert_eq!(behind(Configuration::AsStarted), None);
    assert!(behind(Configuration::Unknown).unwrap().starts_with("mq-0-1 does not say"));
    assert!(behind(said(Some("old"), None)).unwrap().contains("has not read"));
    assert!(behind(said(Some("old"), Some("x is y"))).unwrap().ends_with(": x is y"));
}

#[test]
fn a_pod_that_says_of_the_newest_file_that_it_needs_a_restart_is_outdated() {
    let said = |text: &str, needs_restart| {
        let mut group = three_replicas();
        group.file = Some("new".to_owned());
        group.pods[1].configuration =
            Configuration::File { sha256: Some(sha256(text)), error: None, needs_restart };
        group.note_restarts_needed();
        roll::next(&group, |_| false)
    };
    let why = "ConfigurationChanged";
    assert_eq!(said("new", true), Step::Restart { pod: "mq-0-1".to_owned(), why });
    assert_eq!(said("new", false), Step::Nothing, "it was started by it");
    assert_eq!(said("old", true), Step::Nothing, "perhaps what it has yet to read takes that back");
}

#[test]
fn replicas_encrypt_where_certificates_are_made_for_them() {
    let made = |spec: &str| objects(&broker(&format!("{{{COMMON}, {spec}}}")));
    let mounted = |objects: &[Value]| {
        let volumes =
            &find(objects, "StatefulSet", "mq-0").unwrap()["spec"]["template"]["spec"]["volumes"];
        let volumes = volumes.as_array().unwrap().iter();
        let tls = volumes.clone().find(|volume| volume["name"] == "tls");
        tls.map(|volume| volume["secret"]["secretName"].as_str().unwrap().to_owned())
    };
    for (spec, secret, encrypts) in [
        ("flush: Sync", None, false),
        ("tls: {secret: {name: own}}", Some("own"), false),
        ("tls: {}", Some("mq-certificates"), true),
        ("tls: {issuerRef: {name: ca}}", Some("mq-certificates"), true),
    ] {
        let objects = made(spec);
        assert_eq!(mounted(&objects).as_deref(), secret, "{spec}");
        let config = config(&objects, "mq-0", 1);
        assert_eq!(config.tls.certificate.is_some(), secret.is_some(), "{spec}");
        let tls = config.replication.tls;
        assert_eq!(tls.is_some(), encrypts, "{spec}");
        assert!(tls.is_none_or(|tls| tls.ca.ends_with("ca.crt")));
        assert!(config.replication.secret_file.is_some(), "{spec}");
    }
    let single = made("replicasPerGroup: 1, tls: {}");
    assert_eq!(config(&single, "mq-0", 0).replication.tls, None);
    assert_eq!(mounted(&single).as_deref(), Some("mq-certificates"));
}

#[test]
fn a_certificate_is_for_every_host_under_which_brokers_are_reached() {
    let spec = "groups: 2, tls: {issuerRef: {name: ca, kind: ClusterIssuer}}, external: {type: LoadBalancer}";
    let resource = broker(&format!("{{{COMMON}, {spec}}}"));
    let group = |name: &str| Group {
        name: name.to_owned(),
        is_draining: false,
        replicas: 3,
        may_lose_one: true,
        may_lose_unready: true,
        ..Group::default()
    };
    let outside = [
        ("a", "lb.example.org:10911"),
        ("b", "10.0.0.7:10911"),
        ("c", "[FD00:0::7]:10911"),
        ("d", "{node}:1"),
    ];
    let plan = Plan {
        resource: &resource,
        image: "weirmq:1",
        domain: "cluster.local",
        name_servers: vec!["ns:9876".to_owned()],
        external: outside.map(|(name, address)| (name.to_owned(), address.to_owned())).into(),
        groups: vec![group("mq-0"), group("mq-1")],
    };
    let hosts = build::tls::hosts(&plan);
    let issuer = resource.spec.tls.as_ref().unwrap().issuer_ref.as_ref().unwrap();
    let certificate = build::tls::certificate(&plan, issuer, &hosts);
    assert_eq!(
        certificate["spec"],
        serde_json::json!({
            "secretName": "mq-certificates",
            "dnsNames": [
                "*.mq-brokers.shop.svc.cluster.local",
                "lb.example.org",
                "mq-0-master.shop.svc.cluster.local",
                "mq-1-master.shop.svc.cluster.local",
            ],
            "ipAddresses": ["10.0.0.7", "fd00::7"],
            "usages": ["digital signature", "server auth", "client auth"],
            "privateKey": { "algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always" },
            "issuerRef": { "group": "cert-manager.io", "kind": "ClusterIssuer", "name": "ca" },
        })
    );
    // What others dial, by the configuration.
    let peers = config(&plan.objects(), "mq-1", 0).replication.peers;
    assert_eq!(peers, ["mq-1-{}.mq-brokers.shop.svc.cluster.local:10912"]);
}

#[test]
fn a_restart_that_is_asked_for_is_a_change_of_the_template() {
    let mut resource = broker(&format!("{{{COMMON}}}"));
    let template = |resource: &Broker| {
        find(&objects(resource), "StatefulSet", "mq-0").unwrap()["spec"]["template"].clone()
    };
    let before = template(&resource);
    let time = "2026-11-27T21:00:00Z";
    resource.annotations_mut().insert(RESTARTED_AT.to_owned(), time.to_owned());
    let after = template(&resource);
    assert_eq!(after["metadata"]["annotations"][RESTARTED_AT], time);
    assert_eq!(before["spec"], after["spec"]);
    assert_ne!(before, after);
}

#[test]
fn a_group_that_leaves_takes_no_messages() {
    let resource = broker(&format!("{{{COMMON}}}"));
    let group = |is_draining| Group {
        name: "mq-0".to_owned(),
        is_draining,
        replicas: 3,
        may_lose_one: true,
        may_lose_unready: true,
        ..Group::default()
    };
    let permission = |is_draining| {
        let plan = Plan {
            resource: &resource,
            image: "weirmq:1",
            domain: "cluster.local",
            name_servers: vec!["ns:9876".to_owned()],
            external: Default::default(),
            groups: vec![group(is_draining)],
        };
        config(&plan.objects(), "mq-0", 0).permission
    };
    assert_eq!((permission(false), permission(true)), (6, 4));
}

#[test]
fn replicas_are_told_their_outside_addresses() {
    let resource = broker(&format!("{{{COMMON}, external: {{type: NodePort}}}}"));
    let made = objects(&resource);
    let config = config(&made, "mq-0", 1);
    assert_eq!(config.advertise_of_replicas["external"][1], "{node}:30001");
    let service = find(&made, "Service", "mq-0-2-external").unwrap();
    assert_eq!(service["spec"]["type"], "NodePort");
}

#[test]
fn the_port_of_an_outside_address_is_told_from_the_host() {
    let service =
        serde_json::json!({ "spec": { "ports": [{ "port": 10_911, "nodePort": 30_001 }] } });
    let service = serde_json::from_value(service).unwrap();
    for (host, wanted) in
        [("mq.example.org", "mq.example.org:30001"), ("fd00::7", "[fd00::7]:30001")]
    {
        let resource =
            broker(&format!("{{{COMMON}, external: {{type: NodePort, host: '{host}'}}}}"));
        let external = resource.spec.external.as_ref().unwrap();
        assert_eq!(build::external::address(&service, external).as_deref(), Some(wanted));
    }
}

#[test]
fn brokers_are_restarted_for_outside_addresses_of_their_own_and_not_for_those_of_others() {
    let template = |spec: &str| {
        let objects = objects(&broker(&format!("{{{COMMON}, {spec}}}")));
        find(&objects, "StatefulSet", "mq-0").unwrap()["spec"]["template"].clone()
    };
    let three = template("external: {type: NodePort}");
    assert_ne!(three, template("replicasPerGroup: 3"));
    assert_ne!(three, template("external: {type: NodePort, host: mq.example.org}"));
    assert_eq!(three, template("external: {type: NodePort}, replicasPerGroup: 4"));
}
