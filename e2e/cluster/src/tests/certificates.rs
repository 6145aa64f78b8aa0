//! How replicas know each other: by certificates of the operator's authority, and by a secret.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use serde_json::json;

use super::bad_input::says;
use super::operator::{BROKER, Deployed, TOPIC, deploy, deploy_only, install_with};
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

/// A slave that has another secret than the others is refused until it has the same one. It says so, the
/// Broker says which one is missing, and messages go on.
pub(crate) fn another_secret(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let deployed = deploy(namespace, "")?;
    let group = deployed.group()?;
    let master = group.settled(60)?;
    let slave = group.pods.iter().rfind(|pod| **pod != master.pod).context("no slave")?;
    let name = format!("{BROKER}-replication");
    let secret = namespace.object("secret", &name)?.context("there is no secret")?;
    let shared = secret["data"]["secret"].as_str().context("the secret is empty")?.to_owned();
    let load = Load::start(namespace, &deployed.namesrv, TOPIC, None)?;
    let begun = moment();
    let change = |field: &str, value: &str| -> anyhow::Result<()> {
        let patch = json!({ field: { "secret": value } }).to_string();
        namespace.kubectl(&["patch", "secret", &name, "--type=merge", "-p", &patch])?;
        namespace.kubectl(&["delete", "pod", slave, "--wait=true", "--timeout=60s"]).map(drop)
    };

    change("stringData", "what no other replica was told")?;
    let unhealthy = ("ReplicationHealthy", "False", "NotAllInSync");
    let message = says(namespace, "broker", BROKER, unhealthy)?;
    ensure!(message.contains(&group.name), "it does not name the group: {message}");
    let message = wait(&format!("the Broker says why {slave} is not ready"), 90, || {
        let why = "the secrets of the two replicas differ";
        let message = says(namespace, "broker", BROKER, ("Degraded", "True", "PodsNotReady"))?;
        ensure!(message.contains(slave) && message.contains(why), "it says {message}");
        Ok(Some(message))
    })?;
    deployed.ready("broker", BROKER, 30).context("without one of three replicas")?;
    load.until_more(200, 60).context("without one of three replicas")?;

    change("data", &shared)?;
    let after = group.settled(90).context("with one secret again")?;
    ensure!(after == master, "{after:?} took the office of {master:?} without need");
    load.until_more(200, 60)?;
    let account = load.end()?;
    Ok(format!("the Broker says {message}; {}", outcome(namespace, &account, begun)))
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
