//! Both charts as their READMEs say: installed, tested with `helm test`, changed and taken away.

use std::time::Instant;

use anyhow::{Context as _, ensure};

use super::OPERATOR_NAMESPACE;
use super::operator::{RELEASE, install};
use crate::cluster::{Namespace, wait};
use crate::images::WEIR;

const CHART: &str = "charts/weirmq";
const CLUSTER: &str = "orders";
/// What is not as the chart has it: a small disk, and images that are on the nodes already.
const VALUES: &str = "broker.storage.size=1Gi,broker.config.segmentSize=64Mi,\
                      topics.Paid.queues=4,consumerGroups.billing.retry.maxTimes=5,\
                      tests.imagePullPolicy=Never";

pub(crate) fn installed(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    let cluster = namespace.cluster;
    install(cluster)?;
    let test = |release: &str, place: &str| {
        let words = ["test", release, "--namespace", place, "--timeout", "180s"];
        cluster.helm(&words).with_context(|| format!("helm test {release}"))
    };
    test(RELEASE, OPERATOR_NAMESPACE)?;

    let image = format!("tests.image={WEIR}");
    let helm = |verb: &str, more: &[&str]| {
        let words = [verb, CLUSTER, CHART, "--namespace", &namespace.name, "--set", VALUES];
        cluster.helm(&[&words[..], &["--set-string", &image], more].concat())
    };
    let begun = Instant::now();
    helm("install", &[])?;
    let broker = format!("broker/{CLUSTER}");
    namespace.kubectl(&["wait", "--for=condition=Ready", "--timeout=180s", &broker])?;
    let took = begun.elapsed().as_secs_f64();
    test(CLUSTER, &namespace.name)?;
    for kind in ["topics.weirmq.io", "consumergroups.weirmq.io"] {
        namespace.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", kind, "--all"])?;
    }

    helm("upgrade", &["--set", "nameServer.replicas=3"])?;
    wait("there is a third NameServer", 60, || {
        namespace.object("pod", &format!("{CLUSTER}-namesrv-2"))
    })?;
    test(CLUSTER, &namespace.name).context("after the upgrade")?;

    let uninstall = ["uninstall", CLUSTER, "--namespace", &namespace.name, "--wait"];
    cluster.helm(&uninstall)?;
    wait("its pods are gone", 90, || Ok(namespace.objects("pods", "")?.is_empty().then_some(())))?;
    let disks = namespace.objects("persistentvolumeclaims", "")?.len();
    ensure!(disks == 3, "{disks} of 3 disks stayed");
    namespace.measured("install_to_ready_s", took);
    Ok(format!("from helm install to Ready {took:.1} s; helm test of both passed, 3 disks stayed"))
}
