//! Client pods: one that sends and receives all the time, and one to run `weir` in.

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde_json::json;

use crate::cluster::{Namespace, wait};
use crate::images;
use crate::load::{Account, Gap, now_ms};

/// A pod of this image, as the restricted profile wants it, that runs this program with
/// `arguments`.
pub(crate) fn start(
    namespace: &Namespace<'_>,
    name: &str,
    arguments: &[&str],
) -> anyhow::Result<()> {
    start_on(namespace, name, arguments, None)
}

fn start_on(
    namespace: &Namespace<'_>,
    name: &str,
    arguments: &[&str],
    node: Option<&str>,
) -> anyhow::Result<()> {
    namespace.cluster.provide(images::CLIENT)?;
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": "client", "image": images::CLIENT, "imagePullPolicy": "Never",
                "command": ["/e2e-cluster"], "args": arguments,
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                },
                "volumeMounts": [{ "name": "tmp", "mountPath": "/tmp" }],
            }],
            "volumes": [{ "name": "tmp", "emptyDir": {} }],
        },
    });
    if let Some(node) = node {
        pod["spec"]["nodeSelector"] = json!({ "kubernetes.io/hostname": node });
    }
    namespace.apply(&pod.to_string())?;
    namespace.pod_ready(name, 60)
}

/// Producers and consumers at work in a pod of their own.
pub(crate) struct Load<'a> {
    namespace: &'a Namespace<'a>,
    /// Sends that had failed when the first messages had gone through: kube-proxy may have had the address of the
    /// master yet to write.
    failed_before: u64,
    pod: &'static str,
}

impl<'a> Load<'a> {
    /// Starts it, on `node` if one is named, and waits until messages go through.
    pub(crate) fn start(
        namespace: &'a Namespace<'a>,
        namesrv: &str,
        topic: &str,
        node: Option<&str>,
    ) -> anyhow::Result<Self> {
        let arguments = ["load", "run", "--namesrv", namesrv, "--topic", topic];
        Self::start_as(namespace, "load", &arguments, node)
    }

    /// Another one beside it, on `node`, that sends to the broker at `address` alone, whoever is master. The topic
    /// has to be of no other load.
    pub(crate) fn start_beside(
        namespace: &'a Namespace<'a>,
        namesrv: &str,
        topic: &str,
        node: &str,
        address: &str,
    ) -> anyhow::Result<Self> {
        let arguments = ["load", "run", "--namesrv", namesrv, "--topic", topic];
        let more = ["--address", address, "--producers", "2", "--rate", "25"];
        Self::start_as(namespace, "beside", &[&arguments[..], &more].concat(), Some(node))
    }

    fn start_as(
        namespace: &'a Namespace<'a>,
        pod: &'static str,
        arguments: &[&str],
        node: Option<&str>,
    ) -> anyhow::Result<Self> {
        start_on(namespace, pod, arguments, node)?;
        let load = Self { namespace, pod, failed_before: 0 };
        load.until_more(100, 60).context("messages go through")?;
        let failed_before = load.status()?.failed;
        namespace.measured("failed_before", failed_before as f64);
        Ok(Self { failed_before, ..load })
    }

    pub(crate) fn status(&self) -> anyhow::Result<Account> {
        let text = self.namespace.exec(self.pod, &["/e2e-cluster", "load", "status"])?;
        serde_json::from_str(&text).context("read the status of the load")
    }

    /// Waits until so many more messages than now are acknowledged and consumed.
    pub(crate) fn until_more(&self, messages: u64, seconds: u64) -> anyhow::Result<()> {
        let before = wait("the load has a status", 30, || self.status().map(Some))?;
        wait(&format!("{messages} more messages go through"), seconds, || {
            let now = self.status()?;
            let sent = now.acknowledged >= before.acknowledged + messages;
            Ok((sent && now.consumed >= before.consumed + messages).then_some(()))
        })
    }

    /// Ends it, and fails if a promise was not kept. What failed before it was under way is not in the account.
    pub(crate) fn end(self) -> anyhow::Result<Account> {
        let account = self.close()?;
        if account.left > 0 {
            bail!("queues with {} acknowledged messages are in no route any more", account.left);
        }
        kept(account)
    }

    /// As [`Load::end`] where broker groups may have left, once everything in them was consumed.
    pub(crate) fn end_without_groups(self) -> anyhow::Result<Account> {
        kept(self.close()?)
    }

    /// Ends it, whatever became of the promises.
    pub(crate) fn close(self) -> anyhow::Result<Account> {
        let text = self.namespace.exec(self.pod, &["/e2e-cluster", "load", "end"])?;
        let mut account: Account = serde_json::from_str(&text).context("read the account")?;
        account.failed = account.failed.saturating_sub(self.failed_before);
        self.namespace.kubectl(&["delete", "pod", self.pod, "--wait=true"])?;
        Ok(account)
    }
}

fn kept(account: Account) -> anyhow::Result<Account> {
    if !account.problems.is_empty() {
        bail!("{} promises were not kept: {}", account.problems.len(), account.problems.join("; "));
    }
    if account.acknowledged == 0 {
        bail!("nothing was acknowledged");
    }
    Ok(account)
}

/// How many pauses a result names beside the longest one.
const PAUSES_KEPT: usize = 5;

/// The longest time without an acknowledgement since `time_ms` and when it began (UTC), and what became of
/// all messages. Its numbers are kept.
pub(crate) fn outcome(namespace: &Namespace<'_>, account: &Account, time_ms: u64) -> String {
    let mut gaps: Vec<_> = account.gaps_since(time_ms).collect();
    gaps.sort_by_key(|gap| std::cmp::Reverse(gap.length_ms));
    let seconds = |gap: &Gap| gap.length_ms as f64 / 1000.0;
    let outage = gaps.first().map_or(0.0, |gap| seconds(gap));
    let begun = gaps.first().and_then(|gap| {
        let time = Timestamp::from_millisecond(i64::try_from(gap.from_ms).ok()?).ok()?;
        Some(format!(" from {} on", time.strftime("%H:%M:%S%.1f")))
    });
    let begun = begun.unwrap_or_default();
    for (place, gap) in gaps.iter().enumerate().skip(1).take(PAUSES_KEPT) {
        namespace.measured(&format!("pause_{}_s", place + 1), seconds(gap));
    }
    namespace.measured("outage_s", outage);
    namespace.measured("acknowledged", account.acknowledged as f64);
    namespace.measured("failed", account.failed as f64);
    namespace.measured("stored_twice", account.duplicates as f64);
    let causes =
        if account.failed > 0 { format!(" ({})", account.causes()) } else { String::new() };
    format!(
        "nothing acknowledged for {outage:.1} s{begun}; {} kept and consumed, {} sends failed{causes}, {} stored twice",
        account.acknowledged, account.failed, account.duplicates
    )
}

/// When something is about to be done, to be compared with the gaps of an [`Account`].
pub(crate) fn moment() -> u64 {
    now_ms()
}
