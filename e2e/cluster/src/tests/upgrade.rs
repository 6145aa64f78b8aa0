//! The chart of before and the chart of now over it, and brokers of two versions in one group.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::OPERATOR_NAMESPACE;
use super::lifecycle::{all_run, end_smoothly};
use super::operator::{
    BROKER, DEPLOYMENT, Deployed, TOPIC, deploy, deploy_only, install, install_chart, uninstall,
};
use super::settings::{done, said};
use crate::client::{Load, moment, outcome};
use crate::cluster::{Namespace, output, wait};
use crate::images::{BEFORE, WEIR};
use crate::run::Skipped;

const CHART: &str = "charts/weirmq-operator";

/// A cluster of the chart before this one goes on under load while the chart of now is put over it: the
/// kinds are the new ones, and brokers come to the new operator's image.
pub(crate) fn from_the_chart_before(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let cluster = namespace.cluster;
    let folder = tempfile::tempdir()?;
    let commit = chart_before(folder.path())?;
    // Another release of other tests would be upgraded instead.
    uninstall(cluster)?;
    let image = cluster.image_before();
    let old = folder.path().join(CHART);
    install_chart(cluster, old.to_str().context("path of the chart")?, image, &[])?;
    let done = (|| {
        let deployed = deploy_only(namespace, "")?;
        let load = Load::start(namespace, &deployed.namesrv, TOPIC, None)?;
        let begun = moment();
        install(cluster)?;
        let system = cluster.existing(OPERATOR_NAMESPACE);
        system.kubectl(&["rollout", "status", DEPLOYMENT, "--timeout=60s"])?;
        let crds = std::fs::read_to_string("crds/weirmq.yaml")?;
        let differs =
            cluster.kubectl_with(&["diff", "--server-side", "--force-conflicts", "-f", "-"], &crds);
        differs.context("the kinds are not those of this chart")?;
        wait("all brokers run the new operator's image", 240, || {
            let pods = namespace.objects("pods", "app.kubernetes.io/name=weirmq-broker")?;
            let is_new = |pod: &serde_json::Value| pod["spec"]["containers"][0]["image"] == WEIR;
            Ok((pods.len() == 3 && pods.iter().all(is_new)).then_some(()))
        })?;
        deployed.ready("broker", BROKER, 60)?;
        deployed.ready("topic", TOPIC, 60)?;
        deployed.group()?.settled(60)?;
        let account = load.end()?;
        anyhow::Ok(outcome(namespace, &account, begun))
    })();
    if done.is_err() {
        // Whatever is left of it, the next test gets the chart of now.
        uninstall(cluster)?;
    }
    let program = if image == BEFORE { "its own program" } else { "the program of now" };
    done.map(|outcome| format!("from {commit}, with {program}: {outcome}"))
}

/// Brokers of an earlier version are rolled to the one of now and back under load, so that either sort has
/// each office beside the other.
pub(crate) fn between_programs(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let cluster = namespace.cluster;
    cluster.provide(BEFORE)?;
    cluster.provide(WEIR)?;
    let version = |image: &str| format!("{{\"pod\":{{\"image\":\"{image}\"}}}}");
    let deployed = deploy(namespace, &format!("pod: {{image: '{BEFORE}'}}"))?;
    all_run(&deployed, BEFORE, 10)?;
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, None)?;
    let begun = moment();
    let changed = change(&deployed)?;
    for image in [WEIR, BEFORE] {
        deployed.patch(&version(image))?;
        all_run(&deployed, image, 240)?;
        deployed.ready("broker", BROKER, 60)?;
        deployed.group()?.settled(90).with_context(|| format!("all run {image}"))?;
        load.until_more(200, 60)?;
    }
    let outcome = end_smoothly(namespace, load, begun)?;
    Ok(format!("{changed}; {outcome}"))
}

/// Changes a setting that brokers of now take while they run. Those of a version that reads its file when it
/// starts only have to be started anew for it, and nobody else.
fn change(deployed: &Deployed<'_>) -> anyhow::Result<&'static str> {
    let group = deployed.group()?;
    let before = group.uids()?;
    let takes_it = group.pods.iter().all(|pod| said(deployed.namespace, pod).is_ok());
    deployed.patch("{\"config\":{\"retentionHours\":7}}")?;
    if takes_it {
        done(deployed, 180)?;
        ensure!(group.uids()? == before, "a pod was started anew that reads its file again");
        return Ok("the earlier version takes a setting while it runs");
    }
    group.all_anew(&before, 180).context("for a setting that the earlier version reads once")?;
    done(deployed, 60)?;
    group.settled(60)?;
    Ok("the earlier version is started anew for a setting")
}

/// Puts the chart as it was before its last change into `folder`, and says of which commit it is.
fn chart_before(folder: &Path) -> anyhow::Result<String> {
    let changes = output(Command::new("git").args(["log", "-2", "--format=%h", "--", CHART]));
    let changes = changes.unwrap_or_default();
    let Some(commit) = changes.lines().nth(1) else {
        return Err(Skipped("the history has no chart before this one".to_owned()).into());
    };
    let archive = folder.join("chart.tar");
    let git = output(
        Command::new("git").args(["archive", "--output"]).arg(&archive).args([commit, CHART]),
    );
    git?;
    output(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(folder))?;
    ensure!(folder.join(CHART).join("Chart.yaml").exists(), "{commit} has no chart");
    Ok(commit.to_owned())
}
