//! `kubectl weir restart`, `pause` and `resume`: an annotation that the operator acts upon.

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde::Serialize;
use serde_json::{Value, json};
use weirmq_operator::annotations::{PAUSED, RESTARTED_AT};

use super::target::{Kind, Target};
use super::{Place, failed};
use crate::exit::Failure;

/// Start the pods of Brokers or NameServers anew, in the order of a roll: slaves, a hand-over, the old master
#[derive(clap::Args)]
pub(super) struct RestartArgs {
    /// Brokers, or `nameserver/NAME`
    #[arg(required = true, value_name = "NAME")]
    targets: Vec<Target>,
}

/// Have the operator leave alone what belongs to a resource; failover goes on
#[derive(clap::Args)]
pub(super) struct PauseArgs {
    /// Brokers, or KIND/NAME with nameserver, topic, consumergroup
    #[arg(required = true, value_name = "NAME")]
    targets: Vec<Target>,
}

/// Have the operator look after a resource again
#[derive(clap::Args)]
pub(super) struct ResumeArgs {
    /// Brokers, or KIND/NAME with nameserver, topic, consumergroup
    #[arg(required = true, value_name = "NAME")]
    targets: Vec<Target>,
}

pub(super) async fn restart(args: RestartArgs, place: &Place) -> anyhow::Result<()> {
    let without_pods =
        args.targets.iter().find(|target| matches!(target.kind, Kind::Topic | Kind::ConsumerGroup));
    if let Some(target) = without_pods {
        return Err(Failure::Usage(format!("{target} has no pods to restart")).into());
    }
    let time = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let value = json!(time);
    annotate(&args.targets, RESTARTED_AT, &value, "is being restarted, pod by pod", place).await
}

pub(super) async fn pause(args: PauseArgs, place: &Place) -> anyhow::Result<()> {
    annotate(&args.targets, PAUSED, &json!("true"), "is left alone by the operator", place).await
}

pub(super) async fn resume(args: ResumeArgs, place: &Place) -> anyhow::Result<()> {
    annotate(&args.targets, PAUSED, &Value::Null, "is looked after again", place).await
}

#[derive(Serialize)]
struct Done {
    resource: String,
    namespace: String,
    /// What the annotation was set to; `null`: it was taken off.
    annotation: Value,
}

async fn annotate(
    targets: &[Target],
    annotation: &str,
    value: &Value,
    done: &str,
    place: &Place,
) -> anyhow::Result<()> {
    let patch = json!({ "metadata": { "annotations": { annotation: value } } });
    for target in targets {
        let api = target.api(place.client.clone(), &place.namespace);
        let patched = api.patch(&target.name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        patched.map_err(failed(format!("annotate {target} in namespace {}", place.namespace)))?;
        let said = Done {
            resource: target.to_string(),
            namespace: place.namespace.clone(),
            annotation: json!({ annotation: value }),
        };
        place.output.done(&format!("{target} {done}"), &said)?;
    }
    Ok(())
}
