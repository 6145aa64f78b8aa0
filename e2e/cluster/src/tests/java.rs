//! The official Java client, in a pod and outside of the cluster.

use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use serde_json::json;

use super::operator::{deploy, install};
use crate::cluster::{Namespace, condition, is_ready, wait};
use crate::run::Skipped;

const IMAGE: &str = "localhost/weirmq-java:e2e";
const FEATURES: &str = "sync,async,oneway,batch,ordered,push,tags,pull,query,offsets";
/// What is tried in each of [`MODES`].
const MODE_FEATURES: &str = "sync,ordered,push,tags,pull,offsets";
/// The deployment modes that users of RocketMQ know, as files of examples/.
const MODES: [&str; 4] =
    ["single-master", "multi-master", "multi-master-multi-slave-async", "sync-double-write"];

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
fn run(
    namespace: &Namespace<'_>,
    name: &str,
    namesrv: &str,
    features: &str,
) -> anyhow::Result<usize> {
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
                "args": [namesrv, name, features],
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
    passed(&namespace.kubectl(&["logs", name])?, features)
}

/// How many features passed, by the lines `RESULT feature ok seconds`; all have to.
fn passed(log: &str, features: &str) -> anyhow::Result<usize> {
    let results: Vec<_> = log.lines().filter(|line| line.starts_with("RESULT ")).collect();
    let failed: Vec<_> =
        results.iter().filter(|line| line.split(' ').nth(2) != Some("ok")).copied().collect();
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    let wanted = features.split(',').count();
    ensure!(results.len() == wanted, "{} of {wanted} features: {log}", results.len());
    Ok(wanted)
}

pub(crate) fn inside_and_outside(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    load_image(namespace)?;
    let deployed = deploy(namespace, "external: {type: NodePort}")?;
    let inside = run(namespace, "inside", &deployed.namesrv, FEATURES).context("in a pod")?;
    open(namespace, "nameserver", "ns")?;
    // One after the other is started anew, and takes clients once it knows the routes again.
    all_opened(namespace, "nameserver")?;
    let address = address(namespace, "ns")?;
    let outside = outside(namespace, &address, FEATURES).context("outside")?;
    Ok(format!("{inside} features in a pod, {outside} from outside"))
}

/// The four deployment modes, each from its file of examples/ with outside ports.
pub(crate) fn modes(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    load_image(namespace)?;
    install(namespace.cluster)?;
    for mode in MODES {
        let own = namespace.cluster.namespace(&format!("{}-{mode}", namespace.name))?;
        let manifests = std::fs::read_to_string(format!("examples/{mode}.yaml"))?;
        of_mode(&own, &manifests).with_context(|| format!("examples/{mode}.yaml"))?;
        own.kubectl(&["delete", "namespace", &own.name, "--timeout=120s"])?;
    }
    Ok(format!("{}, in a pod and from outside", MODES.join(", ")))
}

fn of_mode(namespace: &Namespace<'_>, manifests: &str) -> anyhow::Result<()> {
    namespace.apply(manifests)?;
    for kind in ["nameserver", "broker"] {
        for object in namespace.objects(kind, "")? {
            open(namespace, kind, object["metadata"]["name"].as_str().context("no name")?)?;
        }
    }
    for kind in ["nameserver", "broker"] {
        all_opened(namespace, kind)?;
    }
    let servers = namespace.objects("nameserver", "")?;
    let server = servers.first().context("the file has no NameServer")?;
    let namesrv = server["status"]["address"].as_str().context("it has no address")?;
    run(namespace, "inside", namesrv, MODE_FEATURES).context("in a pod")?;
    let address = address(namespace, server["metadata"]["name"].as_str().context("no name")?)?;
    outside(namespace, &address, MODE_FEATURES).context("outside")?;
    Ok(())
}

/// Gives what is there ports for clients outside of the cluster.
fn open(namespace: &Namespace<'_>, kind: &str, name: &str) -> anyhow::Result<()> {
    let external = "{\"spec\":{\"external\":{\"type\":\"NodePort\"}}}";
    namespace.kubectl(&["patch", kind, name, "--type=merge", "-p", external]).map(drop)
}

/// Waits until everything of a kind is ready and as it was last declared.
fn all_opened(namespace: &Namespace<'_>, kind: &str) -> anyhow::Result<()> {
    wait(&format!("every {kind} is ready, and open to the outside"), 180, || {
        let found = namespace.objects(kind, "")?;
        let is_done = |object: &serde_json::Value| {
            is_ready(object)
                && condition(object, "Progressing") == Some("False")
                && object["status"]["observedGeneration"] == object["metadata"]["generation"]
        };
        Ok((!found.is_empty() && found.iter().all(is_done)).then_some(()))
    })
}

/// A node, and its port that leads to the NameServers of this resource.
fn address(namespace: &Namespace<'_>, name_server: &str) -> anyhow::Result<String> {
    let labels = format!(
        "app.kubernetes.io/name=weirmq-nameserver,app.kubernetes.io/instance={name_server}"
    );
    let port = wait("the NameServers have a node port", 60, || {
        let services = namespace.objects("services", &labels)?;
        let mut open = services.iter().filter(|service| service["spec"]["type"] == "NodePort");
        Ok(open.find_map(|service| service["spec"]["ports"][0]["nodePort"].as_u64()))
    })?;
    let words = ["get", "nodes", "-o", "jsonpath={.items[0].status.addresses[0].address}"];
    let node = namespace.cluster.kubectl(&words)?;
    Ok(format!("{node}:{port}"))
}

/// The same program beside the control plane, where only node ports and addresses of nodes are used.
fn outside(namespace: &Namespace<'_>, namesrv: &str, features: &str) -> anyhow::Result<usize> {
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
        features,
    ]))?;
    passed(&log, features)
}
