//! `kubectl weir switchover`: has the master of a group hand over, by the operator.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;
use weirmq_operator::annotations::{SWITCH_OVER, is_paused};
use weirmq_operator::kinds::Broker;

use super::view::{BrokerView, GroupView};
use super::{Place, failed, group_name, status};
use crate::exit::Failure;

/// Have the master of a broker group hand over to a slave; producers wait for a moment
#[derive(clap::Args)]
pub(super) struct SwitchoverArgs {
    /// The Broker
    broker: String,
    /// The group: `mq-0`, or its number
    group: String,
    /// The replica that is to be master [default: the one that has most]
    #[arg(long, value_name = "ORDINAL")]
    to: Option<u32>,
    /// How long to wait for it
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    #[arg(value_parser = crate::units::parse_duration)]
    timeout: Duration,
}

/// How often it is looked at whether it is done.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The reason of the operator's event.
const REFUSED: &str = "SwitchoverRefused";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    group: String,
    before: String,
    master: String,
    epoch: Option<u64>,
}

pub(super) async fn run(args: SwitchoverArgs, place: &Place) -> anyhow::Result<()> {
    let name = group_name(&args.broker, &args.group);
    let view = status::one(place, &args.broker).await?;
    let before = before(&view, &name, args.to)?;
    let events = events(place, &args.broker).await;
    if let Err(error) = &events {
        eprintln!("a refusal will not be seen, only that the time is up: {error:#}");
    }
    let events = events.ok();
    ask(place, &args, &name).await?;
    let end = Instant::now() + args.timeout;
    loop {
        let view = status::one(place, &args.broker).await?;
        let group = view.groups.iter().find(|group| group.name == name);
        if let Some((master, epoch)) = group.and_then(|group| newer(group, &before)) {
            let text = format!("{master} is the master of {name} now; it was {}", before.0);
            let done = Done { group: name, before: before.0, master, epoch };
            return Ok(place.output.done(&text, &done)?);
        }
        if let Some(known) = &events
            && let Some(why) = refusal(place, &args.broker, known).await?
        {
            bail!("{name} was not switched over: {why}");
        }
        if Instant::now() >= end {
            let why = give_up(place, &args, &name).await?;
            return Err(Failure::Timeout(why).into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The master that is to hand over, and its epoch; or why nobody can.
fn before(
    view: &BrokerView,
    name: &str,
    to: Option<u32>,
) -> Result<(String, Option<u64>), Failure> {
    if view.paused {
        let broker = &view.name;
        return Err(Failure::Usage(format!(
            "{broker} is paused, so the operator does nothing; `kubectl weir resume {broker}` first"
        )));
    }
    let Some(group) = view.groups.iter().find(|group| group.name == name) else {
        let names: Vec<&str> = view.groups.iter().map(|group| group.name.as_str()).collect();
        let there = if names.is_empty() { "none yet".to_owned() } else { names.join(", ") };
        return Err(Failure::NotFound(format!(
            "{} has no group {name}; there are: {there}",
            view.name
        )));
    };
    let Some(master) = &group.master else {
        return Err(Failure::Usage(format!("{name} has no master that could hand over")));
    };
    let Some(to) = to else { return Ok((master.clone(), group.epoch)) };
    let heir = format!("{name}-{to}");
    let Some(replica) = group.replicas.iter().find(|replica| replica.pod == heir) else {
        return Err(Failure::NotFound(format!("{name} has no replica {to}")));
    };
    if heir == *master {
        return Err(Failure::Usage(format!("{heir} is the master of {name} already")));
    }
    if replica.in_sync == Some(false) {
        return Err(Failure::Usage(format!(
            "{heir} is not in sync: it may lack what was acknowledged"
        )));
    }
    Ok((master.clone(), group.epoch))
}

/// The master and its epoch, if it is another one than `before`.
fn newer(group: &GroupView, before: &(String, Option<u64>)) -> Option<(String, Option<u64>)> {
    let master = group.master.clone()?;
    (master != before.0 && group.epoch > before.1).then_some((master, group.epoch))
}

async fn ask(place: &Place, args: &SwitchoverArgs, group: &str) -> anyhow::Result<()> {
    let value = match args.to {
        Some(to) => format!("{group}={to}"),
        None => group.to_owned(),
    };
    let api: Api<Broker> = Api::namespaced(place.client.clone(), &place.namespace);
    let there = api.get_metadata(&args.broker).await.map_err(failed("read the Broker"))?;
    if let Some(other) = there.annotations().get(SWITCH_OVER) {
        bail!(
            "{} is asked for {other} already, and the operator has not begun; is it running?",
            args.broker
        );
    }
    if is_paused(&there) {
        bail!("{} was paused meanwhile", args.broker);
    }
    let patch = json!({ "metadata": {
        "annotations": { SWITCH_OVER: value },
        "resourceVersion": there.resource_version(),
    } });
    let patched = api.patch(&args.broker, &PatchParams::default(), &Patch::Merge(&patch)).await;
    patched.map_err(failed(format!("ask broker/{} for a hand-over", args.broker)))?;
    Ok(())
}

/// Takes the request back if nobody took it up, and says what is known.
async fn give_up(place: &Place, args: &SwitchoverArgs, group: &str) -> anyhow::Result<String> {
    let api: Api<Broker> = Api::namespaced(place.client.clone(), &place.namespace);
    let there = api.get_metadata(&args.broker).await.map_err(failed("read the Broker"))?;
    if !there.annotations().contains_key(SWITCH_OVER) {
        return Ok(format!(
            "the operator asked the master of {group}, and it has not handed over yet"
        ));
    }
    let patch = json!({ "metadata": {
        "annotations": { SWITCH_OVER: null },
        "resourceVersion": there.resource_version(),
    } });
    api.patch(&args.broker, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .map_err(failed("take the request back"))
        .context("the operator has not taken the request up; it may still do so")?;
    Ok("the operator did not take the request up, and it was taken back; is it running?".to_owned())
}

/// The refusals there are of a Broker, by name, and the version of each.
type Refusals = BTreeMap<String, String>;

async fn events(place: &Place, broker: &str) -> anyhow::Result<Refusals> {
    let found = refusals(place, broker).await?;
    let versions =
        found.iter().map(|event| (event.name_any(), event.resource_version().unwrap_or_default()));
    Ok(versions.collect())
}

async fn refusals(place: &Place, broker: &str) -> anyhow::Result<Vec<Event>> {
    let api: Api<Event> = Api::namespaced(place.client.clone(), &place.namespace);
    let found = api.list(&ListParams::default().fields(&format!("reason={REFUSED}"))).await;
    let events = found.map_err(failed("list events"))?;
    let is_of_broker = |event: &Event| {
        let about = event.regarding.as_ref();
        about.is_some_and(|about| {
            about.kind.as_deref() == Some("Broker") && about.name.as_deref() == Some(broker)
        })
    };
    Ok(events.into_iter().filter(is_of_broker).collect())
}

/// Why the operator or the master refused since `known`.
async fn refusal(place: &Place, broker: &str, known: &Refusals) -> anyhow::Result<Option<String>> {
    for event in refusals(place, broker).await? {
        match known.get(&event.name_any()) {
            None => return Ok(Some(event.note.unwrap_or_default())),
            // Events that differ in their note alone are one, which keeps the first one's.
            Some(version) if event.resource_version().as_ref() != Some(version) => {
                return Ok(Some("refused again; the log of the operator says why".to_owned()));
            }
            Some(_) => {}
        }
    }
    Ok(None)
}
