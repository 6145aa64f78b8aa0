//! What is kept of a test that failed: objects, events, logs.

use std::fs;
use std::path::Path;

use crate::cluster::{Cluster, Namespace};

/// Everything that a namespace can have and that says something.
const KINDS: &str = "pods,statefulsets,deployments,services,endpointslices,configmaps,leases,\
                     poddisruptionbudgets,networkpolicies,persistentvolumeclaims,roles,\
                     rolebindings,serviceaccounts";
/// Kinds of our own, if they are installed.
const OWN_KINDS: &str = "nameservers.weirmq.io,brokers.weirmq.io,brokergroups.weirmq.io,\
                         topics.weirmq.io,consumergroups.weirmq.io";

/// Writes what `namespaces` hold into `folder`, a file each. Nothing that cannot be had stops it.
pub(crate) fn keep(cluster: &Cluster, namespaces: &[&str], folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let keep = |name: &str, text: anyhow::Result<String>| {
        let text = text.unwrap_or_else(|error| format!("{error:#}\n"));
        fs::write(folder.join(name), text)
    };
    keep("nodes.txt", cluster.kubectl(&["describe", "nodes"]))?;
    for name in namespaces {
        let namespace = cluster.existing(name);
        let get = |kinds: &str| namespace.kubectl(&["get", kinds, "-o", "yaml"]);
        keep(&format!("{name}.objects.yaml"), get(KINDS))?;
        keep(&format!("{name}.weirmq.yaml"), get(OWN_KINDS))?;
        let events = namespace.kubectl(&["get", "events", "--sort-by=.lastTimestamp"]);
        keep(&format!("{name}.events.txt"), events)?;
        for pod in pods(&namespace) {
            for previous in [false, true] {
                let mut words = vec!["logs", &pod, "--all-containers", "--timestamps"];
                if previous {
                    words.push("--previous");
                }
                let log = namespace.kubectl(&words);
                if previous && log.is_err() {
                    continue;
                }
                let which = if previous { "previous.log" } else { "log" };
                keep(&format!("{name}.{pod}.{which}"), log)?;
            }
        }
    }
    Ok(())
}

fn pods(namespace: &Namespace<'_>) -> Vec<String> {
    let names = namespace.kubectl(&["get", "pods", "-o", "name"]).unwrap_or_default();
    names.lines().map(|line| line.trim_start_matches("pod/").to_owned()).collect()
}
