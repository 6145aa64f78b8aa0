//! NameServer and Broker without the operator, as manifests that a user could write.

use anyhow::ensure;

use crate::client::{self, Load, moment, outcome};
use crate::cluster::{Namespace, is_ready, wait};
use crate::group::Group;
use crate::images::WEIR;

const MANIFESTS: &str = include_str!("by_hand.yaml");
const REPLICATED: &str = include_str!("replicated.yaml");

pub(crate) fn pass_messages(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    namespace.cluster.provide(WEIR)?;
    namespace.apply(MANIFESTS)?;
    namespace.pod_ready("namesrv-0", 60)?;
    namespace.pod_ready("broker-0", 60)?;
    client::start(namespace, "client", &["idle"])?;
    let weir = |words: &[&str]| {
        let mut all = vec!["/weir"];
        all.extend(words);
        all.extend(["--namesrv", "namesrv:9876"]);
        namespace.exec("client", &all)
    };
    weir(&["topic", "create", "orders", "--queues", "4"])?;
    weir(&["produce", "orders", "-m", "one pear", "--key", "order-1"])?;
    let read = weir(&["consume", "orders", "--from", "earliest", "-n", "1"])?;
    ensure!(read == "one pear\n", "consumed {read:?}");

    let load = Load::start(namespace, "namesrv:9876", "orders", None)?;
    let pod = namespace.object("pod", "broker-0")?;
    let uid = pod.map(|pod| pod["metadata"]["uid"].clone());
    let deleted = moment();
    namespace.kubectl(&["delete", "pod", "broker-0", "--wait=false"])?;
    wait("another broker-0 is ready", 90, || {
        let pod = namespace.object("pod", "broker-0")?;
        let is_new = |pod: &serde_json::Value| Some(&pod["metadata"]["uid"]) != uid.as_ref();
        Ok(pod.filter(|pod| is_new(pod) && is_ready(pod)).map(drop))
    })?;
    load.until_more(100, 90)?;
    let account = load.end()?;
    Ok(format!("pod deleted: {}", outcome(namespace, &account, deleted)))
}

/// The NameServers of [`replicated`].
pub(crate) const NAMESRV: &str =
    "namesrv-0.namesrv:9876;namesrv-1.namesrv:9876;namesrv-2.namesrv:9876";
/// A topic that [`replicated`] makes.
pub(crate) const TOPIC: &str = "load";

/// Three replicas that elect their master, on three nodes, and three NameServers; as
/// docs/replication.md says that it is done by hand.
pub(crate) fn replicated<'a>(namespace: &'a Namespace<'a>) -> anyhow::Result<Group<'a>> {
    let crds = std::fs::read_to_string("crds/weirmq.yaml")?;
    namespace.cluster.kubectl_with(&["apply", "--server-side", "-f", "-"], &crds)?;
    let established = ["wait", "--for=condition=Established", "crd/brokergroups.weirmq.io"];
    namespace.cluster.kubectl(&established)?;
    namespace.cluster.provide(WEIR)?;
    namespace.apply(REPLICATED)?;
    let pods = (0..3).map(|replica| format!("broker-{replica}")).collect();
    let group = Group { namespace, name: "broker-a".to_owned(), pods };
    group.settled(120)?;
    client::start(namespace, "client", &["idle"])?;
    let create = ["/weir", "topic", "create", TOPIC, "--queues", "4", "--namesrv", NAMESRV];
    namespace.exec("client", &create)?;
    namespace.kubectl(&["delete", "pod", "client", "--wait=false"])?;
    Ok(group)
}
