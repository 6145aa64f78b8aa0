//! Replicas that know each other by certificates of the operator's authority.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use jiff::Timestamp;

use super::operator::{BROKER, Deployed, TOPIC, deploy_only, install_with};
use crate::client::{Load, moment, outcome};
use crate::cluster::{Namespace, wait};
use crate::group::Group;

/// How long a kubelet takes at most to put a changed Secret into a pod that is touched.
const SETTLE: &str = "20s";
const STAGE_SECONDS: u64 = 120;

/// What the mounted Secret holds, base64 as it stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Files {
    certificate: String,
    trusted: String,
}

/// All certificates and their authority are renewed under load. After each step a slave is started anew,
/// so that replicas that read their files at different times have to know each other.
pub(crate) fn renewed(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let settle = format!("extraEnv[0].value={SETTLE}");
    let rights = format!("rbac.certificates={{{}}}", namespace.name);
    let values = ["extraEnv[0].name=WEIRMQ_CERTIFICATE_SETTLE", &settle, &rights];
    install_with(namespace.cluster, &values)?;
    let deployed = deploy_only(namespace, "tls: {}")?;
    let group = deployed.group()?;
    group.settled(60).context("with certificates")?;
    let config = namespace.object("configmap", &format!("{}-config", group.name))?;
    let config = config.context("there is no configuration")?["data"]["broker.toml"].to_string();
    ensure!(config.contains("[broker.replication.tls]"), "replicas do not encrypt: {config}");

    let load = Load::start(namespace, &deployed.namesrv, TOPIC, None)?;
    let begun = moment();
    let first = files(namespace)?;
    let asked = format!("weirmq.io/renew-certificates={}", Timestamp::now());
    namespace.kubectl(&["annotate", "broker", BROKER, &asked])?;

    let announced = stage(&deployed, "both are trusted", |now| {
        now.certificate == first.certificate && now.trusted.len() > first.trusted.len()
    })?;
    again(&group)?;
    let promoted = stage(&deployed, "the new one issues", |now| {
        now.certificate != first.certificate && now.trusted == announced.trusted
    })?;
    again(&group)?;
    let done = stage(&deployed, "the new one alone is trusted", |now| {
        now.trusted.len() < announced.trusted.len() && now.trusted != first.trusted
    })?;
    ensure!(done.certificate == promoted.certificate, "renewed once more");
    // Every pod has to have read the last change before it is asked to show what it trusts.
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        touch(&group)?;
        std::thread::sleep(Duration::from_secs(2));
    }
    again(&group)?;
    load.until_more(200, 60)?;
    let account = load.end()?;

    let mut read_again = 0;
    for pod in &group.pods {
        let log = namespace.kubectl(&["logs", pod])?;
        read_again += log.matches("certificates of the replication port were read again").count();
    }
    ensure!(read_again > 0, "no broker read its certificates again");
    Ok(format!("{read_again} times read again; {}", outcome(namespace, &account, begun)))
}

/// Waits until the Secret is so; meanwhile pods are touched, which has kubelets look at their Secrets.
fn stage(
    deployed: &Deployed<'_>,
    what: &str,
    is_so: impl Fn(&Files) -> bool,
) -> anyhow::Result<Files> {
    let group = deployed.group()?;
    wait(what, STAGE_SECONDS, || {
        touch(&group)?;
        Ok(Some(files(deployed.namespace)?).filter(&is_so))
    })
}

fn touch(group: &Group<'_>) -> anyhow::Result<()> {
    let time = format!("e2e/touched={}", moment());
    for pod in &group.pods {
        group.namespace.kubectl(&["annotate", "pod", pod, &time, "--overwrite"])?;
    }
    Ok(())
}

/// Starts a slave anew and waits until it is back.
fn again(group: &Group<'_>) -> anyhow::Result<()> {
    let master = group.settled(60)?;
    let slave = group.pods.iter().find(|pod| **pod != master.pod).context("no slave")?;
    group.namespace.kubectl(&["delete", "pod", slave, "--wait=true", "--timeout=60s"])?;
    group.settled(90).map(drop).context("after a slave was started anew")
}

fn files(namespace: &Namespace<'_>) -> anyhow::Result<Files> {
    let secret = namespace.object("secret", &format!("{BROKER}-certificates"))?;
    let secret = secret.context("there are no certificates")?;
    let text = |key: &str| {
        let text = secret["data"][key].as_str().with_context(|| format!("there is no {key}"));
        text.map(str::to_owned)
    };
    Ok(Files { certificate: text("tls.crt")?, trusted: text("ca.crt")? })
}
