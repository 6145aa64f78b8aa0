//! The tests. Each has a namespace of its own with restricted pod security, which is there when it
//! begins and removed when it has ended.

mod authority;
mod bad_input;
mod by_hand;
mod certificates;
mod charts;
mod drain;
mod faults;
mod image;
mod java;
mod lifecycle;
mod numbers;
mod operator;
mod operator_away;
mod operator_killed;
mod plugin;
mod power;
mod scale;
mod settings;
mod sizes;
mod upgrade;

use self::faults::Fault;
use crate::cluster::Namespace;

/// Where the operator is installed.
pub(crate) const OPERATOR_NAMESPACE: &str = "weirmq-system";

/// A test.
pub(crate) struct Test {
    pub(crate) name: &'static str,
    /// What it shows, in a line.
    pub(crate) about: &'static str,
    /// Part of `make test`.
    pub(crate) smoke: bool,
    /// Says in its result what was measured.
    pub(crate) run: fn(&Namespace<'_>) -> anyhow::Result<String>,
}

pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "image",
        about: "the image runs without root, with a read-only root, and is healthy by its own check",
        smoke: true,
        run: image::restricted,
    },
    Test {
        name: "by-hand",
        about: "NameServer and Broker as plain StatefulSets pass messages, also after a new pod",
        smoke: false,
        run: by_hand::pass_messages,
    },
    Test {
        name: "by-hand-kill",
        about: "SIGKILL of a master under load, three replicas by hand",
        smoke: false,
        run: |namespace| faults::by_hand(namespace, Fault::Kill),
    },
    Test {
        name: "by-hand-crash",
        about: "power cut of the master's node under load",
        smoke: false,
        run: |namespace| faults::by_hand(namespace, Fault::Crash),
    },
    Test {
        name: "by-hand-partition",
        about: "the master's node is cut off from everything and runs on",
        smoke: false,
        run: |namespace| faults::by_hand(namespace, Fault::Partition),
    },
    Test {
        name: "by-hand-peers-only",
        about: "the master's node is cut off from the other nodes, not from the API server",
        smoke: false,
        run: |namespace| faults::by_hand(namespace, Fault::PeersOnly),
    },
    Test {
        name: "by-hand-freeze",
        about: "the master's node stands still for two leases",
        smoke: false,
        run: |namespace| faults::by_hand(namespace, Fault::Freeze),
    },
    Test {
        name: "install",
        about: "the operator from its chart, twice",
        smoke: true,
        run: operator::install_from_chart,
    },
    Test {
        name: "charts",
        about: "both charts as their READMEs say: install, helm test, upgrade, uninstall",
        smoke: false,
        run: charts::installed,
    },
    Test {
        name: "modes",
        about: "what each file of examples/ declares becomes ready and passes messages",
        smoke: false,
        run: operator::modes,
    },
    Test {
        name: "java",
        about: "the official Java client, in a pod and from outside by a node port",
        smoke: false,
        run: java::inside_and_outside,
    },
    Test {
        name: "java-modes",
        about: "the same client with each of the four deployment modes",
        smoke: false,
        run: java::modes,
    },
    Test {
        name: "kill",
        about: "SIGKILL of a master under load",
        smoke: true,
        run: |namespace| lifecycle::struck(namespace, Fault::Kill),
    },
    Test {
        name: "crash",
        about: "power cut of the master's node under load",
        smoke: false,
        run: |namespace| lifecycle::struck(namespace, Fault::Crash),
    },
    Test {
        name: "partition",
        about: "the master's node is cut off from everything and runs on",
        smoke: false,
        run: |namespace| lifecycle::struck(namespace, Fault::Partition),
    },
    Test {
        name: "freeze",
        about: "the master's node stands still for two leases",
        smoke: false,
        run: |namespace| lifecycle::struck(namespace, Fault::Freeze),
    },
    Test {
        name: "power",
        about: "the master's node loses power and its disk what had not reached it",
        smoke: false,
        run: power::of_a_master,
    },
    Test {
        name: "power-single",
        about: "the same without slaves, with synchronous flush",
        smoke: false,
        run: power::of_a_single_broker,
    },
    Test {
        name: "power-control",
        about: "the same with asynchronous flush: something has to be lost",
        smoke: false,
        run: power::control,
    },
    Test {
        name: "drain",
        about: "kubectl drain of the master's node under load",
        smoke: false,
        run: drain::of_the_masters_node,
    },
    Test {
        name: "cordon",
        about: "kubectl cordon of the master's node: another one is master, and no pod ends",
        smoke: false,
        run: drain::cordon_alone,
    },
    Test {
        name: "operator-down",
        about: "power cut of the master's node while no operator runs",
        smoke: false,
        run: |namespace| operator_away::struck(namespace, Fault::Crash),
    },
    Test {
        name: "operator-down-kill",
        about: "SIGKILL of the master while no operator runs",
        smoke: false,
        run: |namespace| operator_away::struck(namespace, Fault::Kill),
    },
    Test {
        name: "operator-down-partition",
        about: "the master's node is cut off while no operator runs",
        smoke: false,
        run: |namespace| operator_away::struck(namespace, Fault::Partition),
    },
    Test {
        name: "operator-down-freeze",
        about: "the master's node stands still while no operator runs",
        smoke: false,
        run: |namespace| operator_away::struck(namespace, Fault::Freeze),
    },
    Test {
        name: "operator-down-power",
        about: "the master's node and disk lose power while no operator runs",
        smoke: false,
        run: operator_away::power,
    },
    Test {
        name: "manual",
        about: "with failover.mode Manual nobody takes over until a replica is promoted",
        smoke: false,
        run: authority::manual,
    },
    Test {
        name: "record-deleted",
        about: "a BrokerGroup is deleted by hand under load: the operator puts it back, or somebody does from a copy",
        smoke: false,
        run: authority::record_deleted,
    },
    Test {
        name: "roll-image",
        about: "another image under load: no send fails, no pause of a second",
        smoke: false,
        run: lifecycle::roll_image,
    },
    Test {
        name: "roll-config",
        about: "another setting under load: the same",
        smoke: false,
        run: settings::at_start,
    },
    Test {
        name: "roll-disabled",
        about: "another setting under load where nobody is elected: all pods are started anew, nothing is lost",
        smoke: false,
        run: settings::without_elections,
    },
    Test {
        name: "live-config",
        about: "settings that brokers take while they run, and NameServers that come, under load: no pod is started anew",
        smoke: false,
        run: settings::live,
    },
    Test {
        name: "operator-node",
        about: "the operator's node dies, and another operator is at work within a minute or two",
        smoke: false,
        run: operator_away::its_node_dies,
    },
    Test {
        name: "operator-killed",
        about: "the operator is killed in the middle of a roll",
        smoke: false,
        run: operator_killed::in_a_roll,
    },
    Test {
        name: "operator-killed-config",
        about: "the operator is killed in the middle of a change of the configuration",
        smoke: false,
        run: operator_killed::in_a_change,
    },
    Test {
        name: "operator-killed-scale",
        about: "the operator is killed while a group comes, and again while it leaves",
        smoke: false,
        run: operator_killed::in_scaling,
    },
    Test {
        name: "operator-killed-replicas",
        about: "the operator is killed while two replicas come, and again while they leave with the master",
        smoke: false,
        run: operator_killed::with_replicas,
    },
    Test {
        name: "operator-killed-storage",
        about: "the operator is killed while a StatefulSet is deleted for larger disks and not yet made anew",
        smoke: false,
        run: operator_killed::without_a_set,
    },
    Test {
        name: "api-paused",
        about: "the API server stands still for a minute under load",
        smoke: false,
        run: lifecycle::api_paused,
    },
    Test {
        name: "scale",
        about: "a second group under load, and away with it",
        smoke: false,
        run: scale::there_and_back,
    },
    Test {
        name: "scale-elected",
        about: "the same with a group of three replicas, which comes back to its disks and leaves again",
        smoke: false,
        run: scale::of_elected,
    },
    Test {
        name: "scale-undrained",
        about: "a group with delayed messages and dead letters leaves when it is told to, and comes back with them",
        smoke: false,
        run: scale::undrained,
    },
    Test {
        name: "replicas",
        about: "three replicas become five and three again under load, and the master leaves",
        smoke: false,
        run: sizes::replicas,
    },
    Test {
        name: "storage",
        about: "a disk that may not grow is told in a condition, and asks for more once it may",
        smoke: false,
        run: sizes::storage,
    },
    Test {
        name: "certificates",
        about: "replicas under certificates of the operator, which are renewed under load with their authority",
        smoke: false,
        run: certificates::renewed,
    },
    Test {
        name: "another-secret",
        about: "a replica with another secret than the others is refused, and it is said",
        smoke: false,
        run: certificates::another_secret,
    },
    Test {
        name: "plugin",
        about: "kubectl weir, the plugin: status, switchover and restart under load, a report",
        smoke: false,
        run: plugin::plugin,
    },
    Test {
        name: "ready",
        about: "how long it takes from kubectl apply to a Broker of three replicas that is ready",
        smoke: false,
        run: numbers::ready,
    },
    Test {
        name: "topics",
        about: "200 Topics in 20 s, with an operator of at most 40 MiB",
        smoke: false,
        run: numbers::topics,
    },
    Test {
        name: "upgrade",
        about: "the chart of now over the one before it, under load",
        smoke: false,
        run: upgrade::from_the_chart_before,
    },
    Test {
        name: "versions",
        about: "brokers of an earlier version, rolled to the one of now and back under load",
        smoke: false,
        run: upgrade::between_programs,
    },
    Test {
        name: "bad-declaration",
        about: "the API server refuses what contradicts itself; what is missing is named",
        smoke: true,
        run: bad_input::declaration,
    },
    Test {
        name: "bad-resources",
        about: "what cannot be as it says is told in a condition and an event, and nothing runs hot",
        smoke: false,
        run: bad_input::resources,
    },
    Test {
        name: "bad-hands",
        about: "StatefulSet, disk, Service and ConfigMap edited or deleted by hand",
        smoke: false,
        run: bad_input::hands_in_the_works,
    },
    Test {
        name: "deletion",
        about: "what goes with a Broker and what stays",
        smoke: false,
        run: lifecycle::deletion,
    },
    Test {
        name: "rights",
        about: "what the accounts of operator and brokers may not do",
        smoke: false,
        run: lifecycle::rights,
    },
];
