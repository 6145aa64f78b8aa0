//! `kubectl weir status`: Brokers, their groups, and each replica.

use std::collections::BTreeMap;

use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde::Serialize;
use weirmq_operator::kinds::{Broker, BrokerGroup};

use super::view::{BrokerView, GroupView, ReplicaView};
use super::{Place, failed};
use crate::output::{Row, Tone};

/// Show Brokers, their groups, and role, lag and node of each replica
#[derive(clap::Args)]
pub(super) struct StatusArgs {
    /// Only this Broker [default: all of the namespace]
    name: Option<String>,
    /// Of all namespaces
    #[arg(short = 'A', long, conflicts_with_all = ["name", "namespace"])]
    all_namespaces: bool,
}

pub(super) async fn run(args: StatusArgs, place: &Place) -> anyhow::Result<()> {
    let namespace = (!args.all_namespaces).then_some(&*place.namespace);
    let views = match &args.name {
        Some(name) => vec![one(place, name).await?],
        None => all(place, namespace).await?,
    };
    if place.output.is_json() {
        return Ok(place.output.json(&views)?);
    }
    if views.is_empty() {
        let namespace = namespace.map(|name| format!(" in namespace {name}")).unwrap_or_default();
        eprintln!("there is no Broker{namespace}");
        return Ok(());
    }
    if place.output.is_terminal() {
        let rows: Vec<TreeRow> =
            views.iter().flat_map(|view| tree(view, args.all_namespaces)).collect();
        place.output.rows(&rows)?;
    } else {
        let rows: Vec<FlatRow> = views.iter().flat_map(flat).collect();
        place.output.rows(&rows)?;
    }
    for complaint in views.iter().flat_map(BrokerView::complaints) {
        eprintln!("{complaint}");
    }
    Ok(())
}

/// One Broker as it is.
pub(super) async fn one(place: &Place, name: &str) -> anyhow::Result<BrokerView> {
    let api: Api<Broker> = Api::namespaced(place.client.clone(), &place.namespace);
    let broker = api.get(name).await;
    let broker =
        broker.map_err(failed(format!("read broker/{name} in namespace {}", place.namespace)))?;
    let groups = groups(place, Some(&place.namespace)).await?;
    Ok(BrokerView::new(&broker, groups.get(&place.namespace).unwrap_or(&BTreeMap::new())))
}

/// All Brokers of a namespace, or of all.
pub(super) async fn all(place: &Place, namespace: Option<&str>) -> anyhow::Result<Vec<BrokerView>> {
    let client = place.client.clone();
    let api: Api<Broker> = match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let brokers = api.list(&ListParams::default()).await.map_err(failed("list Brokers"))?;
    let groups = groups(place, namespace).await?;
    let none = BTreeMap::new();
    let view = |broker: &Broker| {
        let namespace = broker.namespace().unwrap_or_default();
        BrokerView::new(broker, groups.get(&namespace).unwrap_or(&none))
    };
    Ok(brokers.iter().map(view).collect())
}

/// The groups by namespace and name.
async fn groups(
    place: &Place,
    namespace: Option<&str>,
) -> anyhow::Result<BTreeMap<String, BTreeMap<String, BrokerGroup>>> {
    let client = place.client.clone();
    let api: Api<BrokerGroup> = match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let found = api.list(&ListParams::default()).await.map_err(failed("list BrokerGroups"))?;
    let mut groups: BTreeMap<String, BTreeMap<String, BrokerGroup>> = BTreeMap::new();
    for group in found {
        let of_namespace = groups.entry(group.namespace().unwrap_or_default()).or_default();
        of_namespace.insert(group.name_any(), group);
    }
    Ok(groups)
}

/// A line of the tree on a terminal.
#[derive(Serialize)]
struct TreeRow {
    cells: [String; 7],
    #[serde(skip)]
    tone: Tone,
}

impl Row for TreeRow {
    const HEADER: &'static [&'static str] =
        &["NAME", "ROLE", "READY", "EPOCH", "IN SYNC", "LAG", "NODE"];

    fn cells(&self) -> Vec<String> {
        self.cells.to_vec()
    }

    fn tone(&self) -> Tone {
        self.tone
    }
}

fn tree(broker: &BrokerView, with_namespace: bool) -> Vec<TreeRow> {
    let name = match with_namespace {
        true => format!("{}/{}", broker.namespace, broker.name),
        false => broker.name.clone(),
    };
    let paused = if broker.paused { " (paused)" } else { "" };
    let tone = match broker.ready {
        Some(true) => Tone::Plain,
        Some(false) | None => Tone::Bad,
    };
    let ready = format!("{} {}", known(broker.ready.map(yes)), broker.pods);
    let cells = [
        format!("{name}{paused}"),
        String::new(),
        ready.trim_end().to_owned(),
        String::new(),
        String::new(),
        String::new(),
        String::new(),
    ];
    let mut rows = vec![TreeRow { cells, tone }];
    for (at, group) in broker.groups.iter().enumerate() {
        let is_last = at + 1 == broker.groups.len();
        rows.extend(group_rows(group, is_last));
    }
    rows
}

fn group_rows(group: &GroupView, is_last: bool) -> Vec<TreeRow> {
    let (branch, trunk) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
    let leaves = if group.draining.is_some() { " (leaves)" } else { "" };
    let cells = [
        format!("{branch}{}{leaves}", group.name),
        if group.master.is_none() { "no master".to_owned() } else { String::new() },
        String::new(),
        known(group.epoch),
        known(group.in_sync()),
        String::new(),
        String::new(),
    ];
    let tone = if group.master.is_none() { Tone::Bad } else { Tone::Plain };
    let mut rows = vec![TreeRow { cells, tone }];
    for (at, replica) in group.replicas.iter().enumerate() {
        let branch = if at + 1 == group.replicas.len() { "└─ " } else { "├─ " };
        rows.push(replica_row(replica, &format!("{trunk}{branch}")));
    }
    rows
}

fn replica_row(replica: &ReplicaView, branch: &str) -> TreeRow {
    let outdated = if replica.up_to_date { "" } else { " (outdated)" };
    let cells = [
        format!("{branch}{}{outdated}", replica.pod),
        replica.role.to_lowercase(),
        yes(replica.ready).to_owned(),
        String::new(),
        known(replica.in_sync.map(yes)),
        known(replica.lag_bytes.map(size)),
        known(replica.node.as_ref()),
    ];
    let tone = match (replica.ready, &*replica.role) {
        (false, _) => Tone::Bad,
        (true, "Master") => Tone::Good,
        (true, _) => Tone::Plain,
    };
    TreeRow { cells, tone }
}

/// A line for other programs: one for each replica, and one for a Broker that has none yet.
#[derive(Serialize)]
struct FlatRow {
    cells: Vec<String>,
}

impl Row for FlatRow {
    const HEADER: &'static [&'static str] = &[
        "NAMESPACE",
        "BROKER",
        "GROUP",
        "POD",
        "ROLE",
        "READY",
        "EPOCH",
        "IN SYNC",
        "LAG BYTES",
        "NODE",
        "UP TO DATE",
    ];

    fn cells(&self) -> Vec<String> {
        self.cells.clone()
    }
}

fn flat(broker: &BrokerView) -> Vec<FlatRow> {
    let mut rows = Vec::new();
    for group in &broker.groups {
        for replica in &group.replicas {
            let cells = vec![
                broker.namespace.clone(),
                broker.name.clone(),
                group.name.clone(),
                replica.pod.clone(),
                replica.role.to_lowercase(),
                yes(replica.ready).to_owned(),
                known(group.epoch),
                known(replica.in_sync.map(yes)),
                known(replica.lag_bytes),
                known(replica.node.as_ref()),
                yes(replica.up_to_date).to_owned(),
            ];
            rows.push(FlatRow { cells });
        }
    }
    if rows.is_empty() {
        let mut cells = vec![broker.namespace.clone(), broker.name.clone()];
        cells.resize(FlatRow::HEADER.len(), "-".to_owned());
        rows.push(FlatRow { cells });
    }
    rows
}

/// `-` is what is not known.
fn known(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

/// `4 MiB`: a power of two, or 0.
fn size(bytes: i64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = 0;
    let mut value = bytes;
    while value >= 1024 && unit + 1 < units.len() {
        value /= 1024;
        unit += 1;
    }
    format!("{value} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_a_line_for_each_group_and_replica() {
        let replica = |number: u32, role: &str| ReplicaView {
            pod: format!("mq-0-{number}"),
            role: role.to_owned(),
            ready: number == 0,
            in_sync: Some(true),
            lag_bytes: (number == 1).then_some(4 << 20),
            node: None,
            up_to_date: number == 0,
        };
        let broker = BrokerView {
            namespace: "shop".to_owned(),
            name: "mq".to_owned(),
            ready: Some(true),
            paused: true,
            masters: "1/1".to_owned(),
            pods: "1/2".to_owned(),
            groups: vec![GroupView {
                name: "mq-0".to_owned(),
                master: Some("mq-0-0".to_owned()),
                epoch: Some(3),
                draining: None,
                replicas: vec![replica(0, "Master"), replica(1, "Slave")],
            }],
            conditions: Vec::new(),
            observed: true,
        };
        let lines: Vec<String> =
            tree(&broker, true).iter().map(|row| row.cells().join("|")).collect();
        assert_eq!(
            lines,
            [
                "shop/mq (paused)||yes 1/2||||",
                "└─ mq-0|||3|2/2||",
                "   ├─ mq-0-0|master|yes||yes|-|-",
                "   └─ mq-0-1 (outdated)|slave|no||yes|4 MiB|-",
            ]
        );
        assert!(flat(&broker).iter().all(|row| row.cells().len() == FlatRow::HEADER.len()));
        assert_eq!(flat(&broker).len(), 2);
        let empty = BrokerView { groups: Vec::new(), ..broker };
        assert_eq!(flat(&empty)[0].cells().len(), FlatRow::HEADER.len());
    }
}
