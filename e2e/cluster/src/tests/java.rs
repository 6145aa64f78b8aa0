//! The official Java client, in a pod and outside of the cluster.

use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use serde_json::json;

use super::operator::deploy;
use crate::cluster::{Namespace, condition, wait};
use crate::run::Skipped;

const IMAGE: &str = "localhost/weirmq-java:e2e";
const FEATURES: &str = "sync,async,oneway,batch,ordered,push,tags,pull,query,offsets";

/// Puts the client's image onto the nodes.
fn load_image(namespace: &Namespace<'_>) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let archive = folder.path().join("java.tar");
    let mut command = Command::new("e2e/cluster/java-image");
    let built = command.arg(&archive).arg(IMAGE).output().context("run java-image")?;
    match built.status.code() {
        Some(0) => namespace.cluster.load(&archive),
        Some(3) => Err(Skipped(String::from_utf8_lossy(&built.stdout).trim().to_owned()).into()),
        _ => bail!("java-image: {}", String::from_utf8_lossy(&built.stderr)),
    }
}

/// Runs the client's program in a pod.
fn run(namespace: &Namespace<'_>, name: &str, namesrv: &str) -> anyhow::Result<usize> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "securityContext": {
                "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [{
                "name": "java", "image": IMAGE, "imagePullPolicy": "Never",
                "args": [namesrv, name, FEATURES],
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                },
                "volumeMounts": [{ "name": "tmp", "mountPath": "/tmp" }],
            }],
            "volumes": [{ "name": "tmp", "emptyDir": {} }],
        },
    });
    namespace.apply(&pod.to_string())?;
    wait("the Java client has ended", 180, || {
        let phase =
            namespace.object("pod", name)?.context("its pod is gone")?["status"]["phase"].take();
        Ok((phase == "Succeeded" || phase == "Failed").then_some(()))
    })?;
    passed(&namespace.kubectl(&["logs", name])?)
}

/// How many features passed, by the lines `RESULT feature ok seconds`; all have to.
fn passed(log: &str) -> anyhow::Result<usize> {
    let results: Vec<_> = log.lines().filter(|line| line.starts_with("RESULT ")).collect();
    let failed: Vec<_> =
        results.iter().filter(|line| line.split(' ').nth(2) != Some("ok")).copied().collect();
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    let wanted = FEATURES.split(',').count();
    ensure!(results.len() == wanted, "{} of {wanted} features: {log}", results.len());
    Ok(wanted)
}

pub(crate) fn inside_and_outside(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    load_image(namespace)?;
    let deployed = deploy(namespace, "external: {type: NodePort}")?;
    let inside = run(namespace, "inside", &deployed.namesrv).context("in a pod")?;
    namespace.kubectl(&[
        "patch",
        "nameserver",
        "ns",
        "--type=merge",
        "-p",
        "{\"spec\":{\"external\":{\"type\":\"NodePort\"}}}",
    ])?;
    // One after the other is started anew, and takes clients once it knows the routes again.
    wait("all NameServers have their outside port", 120, || {
        let found = namespace.object("nameserver", "ns")?.context("the NameServer is gone")?;
        let is_newest = found["status"]["observedGeneration"] == found["metadata"]["generation"];
        let is_done = condition(&found, "Progressing") == Some("False");
        Ok((is_newest && is_done).then_some(()))
    })?;
    let port = wait("the NameServers have a node port", 60, || {
        let services = namespace.objects("services", "")?;
        let ports = services.iter().filter(|service| service["spec"]["type"] == "NodePort");
        let of_name_server = ports.filter(|service| {
            service["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("ns"))
        });
        Ok(of_name_server
            .filter_map(|service| service["spec"]["ports"][0]["nodePort"].as_u64())
            .next())
    })?;
    let words = ["get", "nodes", "-o", "jsonpath={.items[0].status.addresses[0].address}"];
    let node = namespace.cluster.kubectl(&words)?;
    let outside = outside(namespace, &format!("{node}:{port}")).context("outside")?;
    Ok(format!("{inside} features in a pod, {outside} from outside"))
}

/// The same program beside the control plane, where only node ports and addresses of nodes are used.
fn outside(namespace: &Namespace<'_>, namesrv: &str) -> anyhow::Result<usize> {
    let cache = crate::run::cache()?.join("java55");
    let classes = format!("{0}/classes:{0}/lib/*", cache.display());
    let home = tempfile::tempdir()?;
    let home = format!("-Duser.home={}", home.path().display());
    let log = crate::cluster::output(&mut namespace.cluster.command(&[
        "java",
        &home,
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-Xmx256m",
        "-cp",
        &classes,
        "Matrix",
        namesrv,
        "outside",
        FEATURES,
    ]))?;
    passed(&log)
}
