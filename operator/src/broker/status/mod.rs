//! What is said of a `Broker`. Pure.

mod failover;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use weirmq_authority::kubernetes::ReplicationMode;

use super::Draining;
use super::build::{ROLE, is_elected, is_manual, min_in_sync, tls};
use super::observe::{GroupView, PodView};
use super::regressed::Regressed;
use crate::annotations::is_paused;
use crate::conditions::{self, Finding};
use crate::context::Error;
use crate::kinds::{Broker, BrokerStatus, ExternalType, GroupStatus, ReplicaStatus};
use crate::pods;
use crate::storage;

/// Conditions that are an event as well when they appear.
pub(super) const TOLD: [&str; 5] = [
    "AuthorityRegressed",
    "PossibleDataLoss",
    NAME_SHARED,
    storage::NOT_EXPANDED,
    storage::CLAIM_DELETED,
];
/// Why a Broker is not ready that no NameServer knows.
const UNREACHABLE: &str = "NameServersUnreachable";
/// What a broker says on its admin port that no NameServer takes.
const NOT_REGISTERED: &str = "broker/registered failing";
/// The condition that says that clients cannot tell this Broker's groups from another one's.
const NAME_SHARED: &str = "NameShared";

/// What a round found out beside what can be seen.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What is under way or waited for, by group.
    waits: BTreeMap<String, String>,
    /// Groups that have the topics of the others.
    pub(super) with_topics: Vec<String>,
    /// What pods need and is not there, so that none is ended: a kind and a name.
    pub(super) missing: Option<String>,
    /// Why disks cannot grow as they should.
    pub(super) storage: Option<String>,
    /// Services that have no address from outside yet.
    pub(super) without_address: Vec<String>,
    /// Of a Service that may have one: [`Error::NotUnderstood`].
    pub(super) service_not_understood: Option<Error>,
    /// What is said of a claim that somebody deleted, and whose disk has the last copy.
    pub(super) claim: Option<Finding>,
    /// What cert-manager says of a certificate that it has not issued.
    pub(super) certificate: Option<String>,
    /// Groups whose replicas know more than the authority record.
    pub(super) regressed: BTreeMap<String, Regressed>,
    /// NameServers should be there: a list of them, or a resource that is ready.
    pub(super) expects_name_servers: bool,
    /// Brokers whose groups have the same names at the same NameServers.
    pub(super) namesakes: Vec<String>,
    /// What keeps groups that leave from leaving.
    pub(super) draining: BTreeMap<String, Draining>,
}

impl Findings {
    /// The first thing that is said of a group stays.
    pub(super) fn wait(&mut self, group: &str, what: String) {
        self.waits.entry(group.to_owned()).or_insert(what);
    }
}

pub(super) fn status(
    resource: &Broker,
    views: &[GroupView],
    findings: &Findings,
    failure: Option<&Error>,
) -> BrokerStatus {
    let before = resource.status.as_ref();
    let masters = views.iter().filter(|view| view.serving().is_some()).count();
    let pods: usize = views.iter().map(|view| view.wanted as usize).sum();
    let ready = views.iter().flat_map(|view| &view.pods).filter(|pod| pod.is_ready).count();
    let mut found = vec![
        is_ready(resource, views, findings, failure),
        progress(resource, views, findings, failure),
        degradation(views),
        replication(resource, views),
        failover::possible(resource, views),
    ];
    found.extend(failover::regression(findings));
    found.extend(failover::loss(views));
    found.extend(failover::promotion(views));
    found.extend(shared_name(resource, findings));
    found.extend(ignored(resource));
    found.extend(scale_in(findings));
    found.extend(without_address(resource, findings));
    found.extend(findings.storage.as_deref().map(storage::not_expanded));
    found.extend(findings.claim.clone());
    let certificate = findings.certificate.as_ref();
    found.extend(certificate.map(|why| Finding::new("CertificateMissing", true, "NotIssued", why)));
    found.push(Finding::new("Insecure", true, "NoAccounts", insecurity(resource)));
    let known = before.map(|status| (status.observed_generation, &status.conditions[..]));
    let (observed_generation, conditions) = conditions::observe(resource, known, found);
    BrokerStatus {
        observed_generation,
        conditions,
        group_count: i32::try_from(views.len()).unwrap_or(i32::MAX),
        selector: pods::selector_text(ROLE, &resource.name_any()),
        masters: format!("{masters}/{}", views.len()),
        ready_pods: format!("{ready}/{pods}"),
        groups: views.iter().map(|view| group_status(view, findings, before)).collect(),
    }
}

/// Why it is not ready, if that is an event as well.
pub(super) fn why_not_ready_any_more<'a>(
    before: &[Condition],
    now: &'a [Condition],
) -> Option<&'a Condition> {
    conditions::why_not_ready(before, now, &[UNREACHABLE])
}

/// What does not keep strangers out.
fn insecurity(resource: &Broker) -> String {
    let accounts = "there are no accounts yet: whoever reaches a broker may do everything. Let only those \
                    reach it whom you trust";
    let clients =
        "; connections of clients are encrypted with a certificate that nobody can verify";
    let replicas = "; what replicas send each other is not encrypted";
    let mut text = accounts.to_owned();
    if resource.spec.tls.is_none() {
        text.push_str(clients);
    }
    if resource.spec.replicas_per_group > 1 && !tls::are_made(resource) {
        text.push_str(replicas);
    }
    text
}

fn is_ready(
    resource: &Broker,
    views: &[GroupView],
    findings: &Findings,
    failure: Option<&Error>,
) -> Finding {
    let wanted = resource.spec.groups as usize;
    if views.len() < wanted {
        if let Some(error) = failure {
            return Finding::new("Ready", false, error.reason(), error.to_string());
        }
        let message = format!("{} of {wanted} groups are there", views.len());
        let reason = if is_paused(resource) { "Paused" } else { "Creating" };
        return Finding::new("Ready", false, reason, message);
    }
    let min = min_in_sync(resource) as usize;
    for view in views {
        let name = &view.name;
        if findings.regressed.contains_key(name) {
            let message = format!("{name}: see the condition AuthorityRegressed");
            return Finding::new("Ready", false, "AuthorityRegressed", message);
        }
        if view.serving().is_none() {
            let trouble = view
                .pods
                .iter()
                .find_map(|pod| Some(format!("; {}: {}", pod.name, pod.why_not_ready()?)));
            let mut message =
                format!("{name} has no master that serves{}", trouble.unwrap_or_default());
            let says_so = |pod: &PodView| {
                pod.complaint.as_ref().is_some_and(|text| text.contains(NOT_REGISTERED))
            };
            if findings.expects_name_servers && view.pods.iter().any(says_so) {
                let what = "see whether nameServers or nameServerRef name the right ones, and whether pods reach \
                            them (NetworkPolicy, firewall)";
                let message = format!("{message}; {what}");
                return Finding::new("Ready", false, UNREACHABLE, message);
            }
            if is_manual(resource) {
                let how = failover::how_to_promote(resource, view);
                message = format!("{message}; {how}");
            }
            return Finding::new("Ready", false, "NoMaster", message);
        }
        if view.is_elected && view.in_sync_count() < min {
            let message = format!(
                "{name} takes no messages: {} in sync, minInSync is {min}",
                view.in_sync_count()
            );
            return Finding::new("Ready", false, "TooFewInSync", message);
        }
        let (there, needed) = view.acknowledging();
        if !view.is_elected && waits_for_slaves(resource) && there < needed {
            let message = format!(
                "{name} takes no messages: {there} of {needed} replicas that have to acknowledge are there and in \
                 sync, and with failover.mode Disabled nobody is left out for being away; get them back"
            );
            return Finding::new("Ready", false, "TooFewInSync", message);
        }
    }
    Finding::new(
        "Ready",
        true,
        "Serving",
        format!("{} groups have a master that serves", views.len()),
    )
}

fn waits_for_slaves(resource: &Broker) -> bool {
    let spec = &resource.spec;
    spec.replicas_per_group > 1 && spec.replication.mode == ReplicationMode::Sync
}

fn progress(
    resource: &Broker,
    views: &[GroupView],
    findings: &Findings,
    failure: Option<&Error>,
) -> Finding {
    if is_paused(resource) {
        return Finding::paused_progress();
    }
    let waits = findings.waits.iter().map(|(group, what)| format!("{group}: {what}"));
    let waits: Vec<String> = waits.collect();
    if let Some(error) = failure {
        return Finding::new("Progressing", false, error.reason(), error.to_string());
    }
    if !waits.is_empty() {
        return Finding::new("Progressing", true, "RollingOut", waits.join("; "));
    }
    let outdated = views.iter().flat_map(|view| &view.pods).any(|pod| !pod.is_up_to_date);
    let unseen = views.iter().any(|view| !view.is_current || view.wanted != view.declared);
    if outdated || unseen || views.len() != resource.spec.groups as usize {
        return Finding::new("Progressing", true, "RollingOut", "");
    }
    Finding::new("Progressing", false, "Done", "")
}

fn degradation(views: &[GroupView]) -> Finding {
    let away = views.iter().filter_map(|view| {
        let ready = view.pods.iter().filter(|pod| pod.is_ready).count();
        let is_whole = ready == view.wanted as usize;
        let trouble = view
            .pods
            .iter()
            .find_map(|pod| Some(format!(" ({}: {})", pod.name, pod.why_not_ready()?)));
        let message = || {
            format!(
                "{} has {ready} of {} pods ready{}",
                view.name,
                view.wanted,
                trouble.unwrap_or_default()
            )
        };
        (!is_whole).then(message)
    });
    let away: Vec<String> = away.collect();
    match away.is_empty() {
        true => Finding::new("Degraded", false, "AllReady", ""),
        false => Finding::new("Degraded", true, "PodsNotReady", away.join("; ")),
    }
}

fn replication(resource: &Broker, views: &[GroupView]) -> Finding {
    let type_ = "ReplicationHealthy";
    if resource.spec.replicas_per_group == 1 {
        return Finding::new(type_, true, "SingleReplica", "there is nothing to replicate to");
    }
    let behind: Vec<String> = views
        .iter()
        .filter(|view| view.in_sync_count() < view.wanted as usize)
        .map(|view| {
            format!(
                "{} has {} of {} replicas in sync",
                view.name,
                view.in_sync_count(),
                view.wanted
            )
        })
        .collect();
    match behind.is_empty() {
        true => Finding::new(type_, true, "AllInSync", ""),
        false => Finding::new(type_, false, "NotAllInSync", behind.join("; ")),
    }
}

fn shared_name(resource: &Broker, findings: &Findings) -> Option<Finding> {
    let namesakes = findings.namesakes.join(", ");
    (!namesakes.is_empty()).then(|| {
        let message = format!(
            "groups of the same names register with the same NameServers: {namesakes}. Clients are led to either \
             one's brokers, and what they send is mixed. A name does not change: give one of the two another \
             NameServer, or make it again under another name than {}",
            resource.name_any()
        );
        Finding::new(NAME_SHARED, true, "SameNameServers", message)
    })
}

/// What is declared and has no effect.
fn ignored(resource: &Broker) -> Option<Finding> {
    let is_ignored = resource.spec.failover.lease_seconds.is_some() && !is_elected(resource);
    is_ignored.then(|| {
        let message = "failover.leaseSeconds has no effect where nobody is elected, as with failover.mode \
                       Disabled or a single replica; take it away";
        Finding::new("SettingIgnored", true, "NobodyIsElected", message)
    })
}

fn without_address(resource: &Broker, findings: &Findings) -> Option<Finding> {
    let type_ = "ExternalAddressMissing";
    if let Some(error) = &findings.service_not_understood {
        let message = format!("{error}; brokers tell clients outside of the cluster no address");
        return Some(Finding::new(type_, true, error.reason(), message));
    }
    let first = findings.without_address.first()?;
    let count = findings.without_address.len();
    let (reason, has_none, how) = match resource.spec.external.as_ref()?.type_ {
        ExternalType::NodePort => {
            ("NoNodePort", "no port of the nodes", "gives them as it makes a Service")
        }
        ExternalType::LoadBalancer => (
            "NoLoadBalancer",
            "no address",
            "gives them where something in it provides load balancers",
        ),
    };
    let message = format!(
        "{count} Services for clients outside of the cluster have {has_none}, so that brokers tell them none. A cluster \
         {how}; `kubectl describe service {first}` says what it does"
    );
    Some(Finding::new(type_, true, reason, message))
}

fn scale_in(findings: &Findings) -> Option<Finding> {
    let first = findings.draining.values().max()?;
    let mut said: Vec<String> =
        findings.draining.iter().map(|(group, found)| format!("{group}: {found}")).collect();
    if first.is_for_somebody() {
        let what = "the annotation weirmq.io/drop-undrained=GROUP has a group leave all the same, and its disks stay";
        said.push(what.to_owned());
    }
    Some(Finding::new("ScaleInBlocked", true, first.reason(), said.join("; ")))
}

fn group_status(
    view: &GroupView,
    findings: &Findings,
    before: Option<&BrokerStatus>,
) -> GroupStatus {
    let known =
        before.and_then(|status| status.groups.iter().find(|group| group.name == view.name));
    let record = view.record.as_ref();
    let in_sync = record.map(|record| {
        let members = record.in_sync.iter().map(|member| member.replica.0);
        let in_sync = members.filter(|replica| view.is_in_sync(*replica));
        in_sync.map(|replica| replica.to_string()).collect::<Vec<_>>().join(",")
    });
    GroupStatus {
        name: view.name.clone(),
        master: view.master().map(|replica| format!("{}-{replica}", view.name)),
        epoch: match findings.regressed.get(&view.name) {
            Some(regressed) => i64::try_from(regressed.obeyed).ok(),
            None => record.and_then(|record| i64::try_from(record.epoch).ok()),
        },
        in_sync,
        has_topics: known.is_some_and(|known| known.has_topics)
            || findings.with_topics.contains(&view.name),
        draining: findings.draining.get(&view.name).map(Draining::to_string),
        replicas: view.pods.iter().map(|pod| replica_status(view, pod)).collect(),
    }
}

fn replica_status(view: &GroupView, pod: &PodView) -> ReplicaStatus {
    let role = match view.master() {
        Some(master) if master == pod.replica => "Master",
        Some(_) => "Slave",
        None => "Unknown",
    };
    ReplicaStatus {
        pod: pod.name.clone(),
        node: pod.node.clone(),
        role: role.to_owned(),
        ready: pod.is_ready,
        // Where nobody writes who has most is told by the last byte (`GroupView::compare_logs`).
        lag_bytes: match view.may_be_written() {
            true => pod.lag_bytes.map(rounded),
            false => pod.lag_bytes,
        },
        up_to_date: pod.is_up_to_date,
    }
}

/// Up to the next power of two, and 0 below 1 MiB: a status that changes with each message would be
/// written each time.
fn rounded(lag: i64) -> i64 {
    match u64::try_from(lag) {
        Ok(lag) if lag >= 1 << 20 => lag
            .checked_next_power_of_two()
            .and_then(|lag| i64::try_from(lag).ok())
            .unwrap_or(i64::MAX),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::annotations::PAUSED;
    use crate::broker::tests::{COMMON, broker};

    #[test]
    fn a_lease_that_nobody_holds_is_said_to_have_no_effect() {
        let is_ignored = |more: &str| ignored(&broker(&format!("{{{COMMON}, {more}}}"))).is_some();
        let lease = "leaseSeconds: 9";
        assert!(is_ignored(&format!("replicasPerGroup: 1, failover: {{{lease}}}")));
        assert!(is_ignored(&format!("failover: {{mode: Disabled, {lease}}}")));
        assert!(!is_ignored(&format!("failover: {{mode: Manual, {lease}}}")));
        assert!(!is_ignored("replicasPerGroup: 1"));
    }

    #[test]
    fn a_broker_that_is_paused_does_not_claim_that_what_is_declared_is_done() {
        let mut resource = broker(&format!("{{{COMMON}}}"));
        let views = [crate::broker::tests::three_replicas()];
        let said = |resource: &Broker| status(resource, &views, &Findings::default(), None);
        resource.metadata.generation = Some(1);
        resource.status = Some(said(&resource));
        let annotations = &mut resource.metadata.annotations;
        annotations.get_or_insert_default().insert(PAUSED.to_owned(), "true".to_owned());
        resource.metadata.generation = Some(2);
        let told = |status: &BrokerStatus, type_: &str| {
            let found = status.conditions.iter().find(|one| one.type_ == type_).unwrap();
            (found.status.clone(), found.reason.clone(), found.observed_generation)
        };
        let words = |status: &str, reason: &str, generation| {
            (status.to_owned(), reason.to_owned(), Some(generation))
        };
        let paused = said(&resource);
        assert_eq!(paused.observed_generation, 1);
        assert_eq!(told(&paused, "Progressing"), words("Unknown", "Paused", 1));
        assert_eq!(told(&paused, "Ready"), words("True", "Serving", 1), "it serves all the same");
        assert_eq!(told(&paused, "Paused"), words("True", "Annotated", 2));
        resource.status = Some(paused.clone());
        assert_eq!(said(&resource), paused, "nothing is written anew");
        resource.metadata.annotations = None;
        let after = said(&resource);
        assert_eq!(after.observed_generation, 2);
        assert_eq!(told(&after, "Progressing"), words("False", "Done", 2));
    }

    #[test]
    fn what_is_left_on_a_group_may_be_dropped_only_where_something_may_be() {
        let empty = Draining::NothingSeen { log_end: "9".to_owned() };
        let taking = Draining::TakesMessages("its master still takes messages");
        let unknown = Draining::NotKnown("it has no master that serves".to_owned());
        let left = Draining::MessagesLeft("delayed messages: up to 8".to_owned());
        let said = |found: &[&Draining]| {
            let named = found.iter().enumerate();
            let draining = named.map(|(at, found)| (format!("mq-{at}"), (*found).clone()));
            let findings = Findings { draining: draining.collect(), ..Findings::default() };
            scale_in(&findings).map(|found| (found.reason, found.message))
        };
        assert_eq!(said(&[]), None);
        for (found, reason, offers) in [
            (&[&empty][..], "LookingAgain", false),
            (&[&taking], "StillTakesMessages", false),
            (&[&taking, &empty], "StillTakesMessages", false),
            (&[&unknown], "NotKnownWhatIsLeft", true),
            (&[&left], "MessagesLeft", true),
            (&[&left, &unknown, &taking], "MessagesLeft", true),
        ] {
            let (is, message) = said(found).unwrap();
            assert_eq!(is, reason, "{message}");
            assert_eq!(message.contains("weirmq.io/drop-undrained"), offers, "{message}");
        }
    }

    #[test]
    fn load_balancers_are_spoken_of_where_some_are_declared() {
        let said = |type_: &str, error: Option<Error>| {
            let findings = Findings {
                without_address: vec!["mq-0-0-external".to_owned()],
                service_not_understood: error,
                ..Findings::default()
            };
            let resource = broker(&format!("{{{COMMON}, external: {{type: {type_}}}}}"));
            let found = without_address(&resource, &findings).unwrap();
            (found.reason, found.message)
        };
        let (reason, message) = said("LoadBalancer", None);
        assert!(reason == "NoLoadBalancer" && message.contains("load balancers"), "{message}");
        let (reason, message) = said("NodePort", None);
        assert!(reason == "NoNodePort" && !message.contains("load balancer"), "{message}");
        assert!(message.contains("kubectl describe service mq-0-0-external"), "{message}");
        for type_ in ["LoadBalancer", "NodePort"] {
            let (name, error) = ("mq-0-0-external".to_owned(), "no number".to_owned());
            let (reason, message) =
                said(type_, Some(Error::NotUnderstood { kind: "Service", name, error }));
            assert_eq!(reason, "NotUnderstood");
            assert!(message.starts_with("Service mq-0-0-external cannot be read: no number; "));
        }
    }

    #[test]
    fn a_broker_says_with_whom_it_shares_its_name() {
        let resource = broker(&format!("{{{COMMON}}}"));
        let mut findings = Findings::default();
        let said = |findings: &Findings| status(&resource, &[], findings, None).conditions;
        let is_it = |conditions: &[Condition]| conditions.iter().any(|it| it.type_ == NAME_SHARED);
        let before = said(&findings);
        assert!(!is_it(&before));
        findings.namesakes.push("Broker mq of namespace mall at ns-namesrv.shop:9876".to_owned());
        let now = said(&findings);
        assert!(is_it(&now));
        assert_eq!(conditions::appeared(&before, &now, &TOLD).count(), 1, "an event as well");
    }

    #[test]
    fn name_servers_that_should_be_there_and_do_not_answer_are_the_reason() {
        let resource = broker(&format!("{{{COMMON}}}"));
        let complaint = Some("broker/registered failing: 192.0.2.1:9876: no answer".to_owned());
        let pod = PodView { name: "mq-0-0".to_owned(), complaint, ..PodView::default() };
        let view = GroupView { pods: vec![pod], ..GroupView::default() };
        let said = |expects_name_servers| {
            let findings = Findings { expects_name_servers, ..Findings::default() };
            status(&resource, std::slice::from_ref(&view), &findings, None).conditions
        };
        let (starting, unreachable) = (said(false), said(true));
        let reason = |told: Option<&Condition>| told.map(|told| told.reason.clone());
        assert_eq!(reason(why_not_ready_any_more(&[], &starting)), None, "it never was ready");
        let told = reason(why_not_ready_any_more(&starting, &unreachable));
        assert_eq!(told.as_deref(), Some("NameServersUnreachable"));
        assert_eq!(reason(why_not_ready_any_more(&unreachable, &unreachable)), None);
        let ready = Finding::new("Ready", true, "Serving", "");
        let ready = conditions::merge(&[], vec![ready], 1);
        let told = reason(why_not_ready_any_more(&ready, &starting));
        assert_eq!(told.as_deref(), Some("NoMaster"));
    }

    #[test]
    fn a_pod_that_is_not_ready_is_told_with_what_it_says_of_itself() {
        let complaint = Some("broker/registered failing: 192.0.2.1:9876: no answer".to_owned());
        let pod = PodView { name: "a-0-0".to_owned(), complaint, ..PodView::default() };
        let view = GroupView {
            name: "a-0".to_owned(),
            wanted: 1,
            pods: vec![pod],
            ..GroupView::default()
        };
        let found = degradation(&[view]);
        assert!(
            found.status == Some(true) && found.message.contains("192.0.2.1:9876"),
            "{found:?}"
        );
    }

    #[test]
    fn a_group_by_configuration_is_not_ready_while_messages_wait_for_who_is_away() {
        let whole = || {
            let record = None;
            let whole = crate::broker::tests::three_replicas();
            let mut whole = GroupView { is_elected: false, record, ..whole };
            whole.pods.iter_mut().for_each(|pod| pod.keeps_up = Some(true));
            whole.counted = Some((0..3).collect());
            whole
        };
        let reason = |more: &str, change: &dyn Fn(&mut GroupView)| {
            let spec = format!("{{{COMMON}, failover: {{mode: Disabled}}, {more}}}");
            let resource = broker(&spec);
            let mut view = whole();
            view.min_in_sync = min_in_sync(&resource);
            view.is_by_quorum = more.contains("Quorum");
            change(&mut view);
            is_ready(&resource, &[view], &Findings::default(), None).reason
        };
        let sync = "replication: {}";
        let gone = |view: &mut GroupView| drop(view.pods.pop());
        assert_eq!(reason(sync, &|_| ()), "Serving");
        assert_eq!(reason(sync, &gone), "TooFewInSync");
        assert_eq!(reason(sync, &|view| view.pods[1].is_ready = false), "TooFewInSync");
        assert_eq!(reason(sync, &|view| view.pods[2].keeps_up = Some(false)), "TooFewInSync");
        // What the master counts on decides, whatever `minInSync` is.
        assert_eq!(reason("replication: {minInSync: 1}", &gone), "TooFewInSync");
        let left = |view: &mut GroupView| {
            view.counted = Some((0..2).collect());
            view.pods.pop();
        };
        assert_eq!(reason(sync, &left), "Serving", "it said that it goes, and two are enough");
        assert_eq!(reason("replication: {minInSync: 3}", &left), "TooFewInSync");
        let unknown = |view: &mut GroupView| {
            view.counted = None;
            view.pods.iter_mut().for_each(|pod| pod.keeps_up = None);
        };
        assert_eq!(reason(sync, &unknown), "Serving", "nothing speaks against it");
        // A quorum goes on without one of three, and nobody waits with asynchronous replication.
        let quorum = "replication: {ackPolicy: Quorum}";
        assert_eq!(reason(quorum, &gone), "Serving");
        assert_eq!(reason(quorum, &|view| view.pods.truncate(1)), "TooFewInSync");
        let alone = |view: &mut GroupView| view.pods.truncate(1);
        assert_eq!(reason("replication: {mode: Async}", &alone), "Serving");
    }

    #[test]
    fn a_status_stays_while_a_master_writes_whom_no_name_server_knows() {
        let resource = broker(&format!("{{{COMMON}}}"));
        let said = |master: Option<u64>, slave: u64| {
            let mut view = crate::broker::tests::three_replicas();
            view.pods[0].is_ready = false;
            view.pods[0].position = master.map(|end| (4, end));
            view.pods[1].position = Some((4, slave));
            view.compare_logs();
            group_status(&view, &Findings::default(), resource.status.as_ref())
        };
        // Each round finds other positions, and a status that differs is a reason for another round.
        assert_eq!(said(Some(9_000), 8_000), said(Some(12_000), 11_500));
        assert_eq!(said(Some(9 << 20), 1 << 20).replicas[1].lag_bytes, Some(8 << 20));
        // Its position was not asked, or it did not answer.
        assert_eq!(said(Some(9_000), 8_000).replicas[2].lag_bytes, None);
        assert_ne!(said(None, 8_000), said(Some(9_000), 8_000), "it is gone");
    }
}
