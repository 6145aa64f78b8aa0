//! `kubectl weir`, as a person types it.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::lifecycle::end_smoothly;
use super::operator::{BROKER, TOPIC, deploy};
use crate::client::{Load, moment};
use crate::cluster::Namespace;

/// Looks, switches over, restarts and reports, while clients send and receive.
pub(crate) fn plugin(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "")?;
    let group = deployed.group()?;
    let before = group.settled(60)?;
    let folder = tempfile::tempdir().context("make a folder")?;
    namespace.cluster.link_plugin(folder.path())?;
    let weir = |words: &[&str]| {
        let mut all = vec![words[0], "-n", &namespace.name];
        all.extend(&words[1..]);
        namespace.cluster.kubectl_weir(folder.path(), &all)
    };
    ensure!(master(&weir(&["status", BROKER, "-o", "json"])?)? == before.pod, "another master");

    let load = Load::start(namespace, &deployed.namesrv, TOPIC, None)?;
    let begun = moment();
    let heir = group.pods.iter().position(|pod| *pod != before.pod).context("no slave")?;
    let asked = Instant::now();
    let said = weir(&["switchover", BROKER, &group.name, "--to", &heir.to_string()])?;
    let took = asked.elapsed().as_secs_f64();
    ensure!(said.contains("is the master of"), "it says {said}");
    let after = group.settled(60)?;
    ensure!(after.pod == group.pods[heir], "{after:?} is master, not replica {heir}");
    ensure!(master(&weir(&["status", BROKER, "-o", "json"])?)? == after.pod, "status is behind");
    load.until_more(200, 60)?;
    let outcome = end_smoothly(namespace, load, begun)?;

    let again = weir(&["switchover", BROKER, &group.name, "--to", &heir.to_string()]);
    let error = again.err().context("it was switched to its own master")?.to_string();
    ensure!(error.contains("is the master of"), "it says {error}");

    let old = group.uids()?;
    weir(&["restart", BROKER])?;
    group.all_anew(&old, 180)?;
    group.settled(60)?;
    report(&weir, folder.path())?;
    Ok(format!("switched over in {took:.1} s; {outcome}"))
}

/// The pod of the only group's master.
fn master(status: &str) -> anyhow::Result<String> {
    let status: Value = serde_json::from_str(status).context("read the status")?;
    let master = status[0]["groups"][0]["master"].as_str();
    master.map(str::to_owned).with_context(|| format!("there is no master in {status}"))
}

fn report(weir: &impl Fn(&[&str]) -> anyhow::Result<String>, folder: &Path) -> anyhow::Result<()> {
    let file = folder.join("report.tar.gz");
    let file = file.to_str().context("path of the report")?;
    let said = weir(&["report", "--file", file, "-o", "json"])?;
    let said: Value = serde_json::from_str(&said).context("read what the report says")?;
    ensure!(said["errors"] == serde_json::json!([]), "not in the report: {}", said["errors"]);
    let list = crate::cluster::output(std::process::Command::new("tar").args(["-tzf", file]))?;
    for part in ["/brokers/mq.yaml", "/logs/mq-0-0/broker.log", "/logs/weirmq-operator-"] {
        ensure!(list.contains(part), "there is no {part} in the report: {list}");
    }
    Ok(())
}
