//! The image as such.

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::cluster::{Namespace, wait};
use crate::images::WEIR;

/// Standalone in a pod that may do nothing, with the health check of the image as its probes.
pub(crate) fn restricted(namespace: &Namespace<'_>) -> anyhow::Result<String> {
    namespace.cluster.provide(WEIR)?;
    let health = |probe: &str| {
        json!({
            "exec": { "command": ["/weir", "healthcheck", probe] }, "periodSeconds": 1, "timeoutSeconds": 5,
        })
    };
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "weir" },
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "weir", "image": WEIR, "imagePullPolicy": "Never",
                "args": ["standalone", "--bind", "0.0.0.0", "--advertise", "127.0.0.1:10911"],
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                },
                "readinessProbe": health("ready"), "livenessProbe": health("live"),
                "startupProbe": health("startup"),
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
            }],
            "volumes": [{ "name": "data", "emptyDir": {} }],
        },
    });
    namespace.apply(&pod.to_string())?;
    namespace.pod_ready("weir", 60)?;
    let health = namespace.exec("weir", &["/weir", "healthcheck"])?;
    ensure!(health.trim() == "readyz check passed", "the health check says {health}");
    let wrong = namespace.exec("weir", &["/weir", "healthcheck", "--admin-port", "1"]);
    ensure!(wrong.is_err(), "the health check of a port that nobody has opened passes");
    namespace.exec("weir", &["/weir", "produce", "hello", "-m", "from a pod"])?;
    let read = ["/weir", "consume", "hello", "--from", "earliest", "-n", "1"];
    let read = namespace.exec("weir", &read)?;
    ensure!(read == "from a pod\n", "consumed {read:?}");

    namespace.kubectl(&["delete", "pod", "weir", "--wait=false"])?;
    // SIGTERM is enough: Kubernetes would wait for 30 s before it kills.
    wait("the pod ends by itself", 15, || {
        Ok(namespace.object("pod", "weir")?.is_none().then_some(()))
    })?;
    refused(namespace)?;
    Ok("refused as root by the namespace, as it should be".to_owned())
}

/// The restricted profile is in force here, so what passes above passes because of the image.
fn refused(namespace: &Namespace<'_>) -> anyhow::Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "root" },
        "spec": { "containers": [{ "name": "weir", "image": WEIR }] },
    });
    let answer = namespace.apply(&pod.to_string());
    let error = answer.err().context("a pod with all rights was accepted")?;
    ensure!(error.to_string().contains("restricted"), "refused for another reason: {error}");
    Ok(())
}
