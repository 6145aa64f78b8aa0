#!/usr/bin/env python3
"""Asks a real API server what it takes and what it refuses: resources, examples, charts, rights.

    e2e/kube/run.py --if-built -- e2e/admission/run.py [--weir target/fast/weir]

refused.yaml and accepted.yaml are the tables; each entry is laid over a resource that is taken:

| field | what |
| --- | --- |
| kind, name, with | the kind, its name (default `a`), and fields of its spec; null takes a field away |
| from | fields of the spec that is there before; then the entry is a change of it |
| by | PUT: the whole is replaced, where server-side apply makes null of a map that gets empty |
| says | words that the refusal has to contain, all of them |

Charts are installed, upgraded and taken away with helm, where it is built. With --weir the operator is
started beside the server, with a token of the account that its chart made and nothing else. There are no
nodes: no pod is started.
"""

import argparse
import base64
import copy
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

try:
    import yaml
except ImportError:
    print("SKIP admission: PyYAML is missing (apt-get install python3-yaml)\n0 passed, 0 failed, 1 skipped")
    sys.exit(0)

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = pathlib.Path(os.environ.get("WEIRMQ_CACHE") or "~/.cache/weirmq/e2e").expanduser()
API = "/apis/weirmq.io/v1alpha1/namespaces/default"
BASES = {
    "NameServer": {},
    "Broker": {"nameServerRef": {"name": "n"}, "storage": {"size": "10Gi"}},
    "Topic": {"brokerRef": {"name": "b"}},
    "ConsumerGroup": {"brokerRef": {"name": "b"}},
    "BrokerGroup": {"replicas": 3, "flush": "Sync", "replication": {"mode": "Sync", "minInSync": 2}},
}
# Kinds of others, which this server does not know.
FOREIGN = "monitoring.coreos.com"

COUNTS = {"passed": 0, "failed": 0, "skipped": 0}


def report(name, wrong=""):
    COUNTS["failed" if wrong else "passed"] += 1
    if wrong:
        print(f"FAIL {name}: {wrong}", flush=True)


def skip(name, why):
    COUNTS["skipped"] += 1
    print(f"SKIP {name}: {why}", flush=True)


class Server:
    def __init__(self):
        config = json.loads(pathlib.Path(os.environ["KUBECONFIG"]).read_text())
        self.base = config["clusters"][0]["cluster"]["server"]
        self.token = config["users"][0]["user"]["token"]
        self.context = ssl.create_default_context(cafile=config["clusters"][0]["cluster"]["certificate-authority"])

    def ask(self, method, path, body=None, media="application/json", account=None):
        """The answer's code and its JSON; of a refusal that is a Status. `account`: asks in its name."""
        request = urllib.request.Request(self.base + path, method=method,
                                         data=None if body is None else json.dumps(body).encode())
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", media)
        if account:
            request.add_header("Impersonate-User", account)
        try:
            with urllib.request.urlopen(request, timeout=30, context=self.context) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def create(self, resource, dry=True):
        path = f"{API}/{resource['kind'].lower()}s"
        return self.ask("POST", f"{path}?fieldValidation=Strict{'&dryRun=All' if dry else ''}", resource)

    def change(self, resource, dry=True):
        """Server-side apply of the whole, as `kubectl apply --server-side`."""
        path = f"{API}/{resource['kind'].lower()}s/{resource['metadata']['name']}"
        query = f"fieldManager=admission&force=true&fieldValidation=Strict{'&dryRun=All' if dry else ''}"
        return self.ask("PATCH", f"{path}?{query}", resource, "application/apply-patch+yaml")


def scaling(server):
    """The scale subresource, which knows nothing of the schema's words but its range."""
    broker = resource({"kind": "Broker"}, "scaled")
    server.change(broker, dry=False)
    for groups, wanted in ((0, "spec.groups"), (33, "spec.groups"), (2, "")):
        patch = {"spec": {"replicas": groups}}
        code, answer = server.ask("PATCH", f"{API}/brokers/scaled/scale?dryRun=All", patch, "application/merge-patch+json")
        said = answer.get("message", "")
        report(f"scale to {groups}", "" if (code == 200) == (not wanted) and wanted in said else f"code {code}: {said}")


def laid_over(below, over):
    if not isinstance(below, dict) or not isinstance(over, dict):
        return over
    merged = copy.deepcopy(below)
    for key, value in over.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = laid_over(merged.get(key), value)
    return merged


def resource(entry, name, *layers):
    spec = BASES[entry["kind"]]
    for layer in layers:
        spec = laid_over(spec, layer)
    return {"apiVersion": "weirmq.io/v1alpha1", "kind": entry["kind"], "metadata": {"name": name}, "spec": spec}


def tell(entry):
    return yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, width=10**6).strip()


def judge(server, entry, number):
    """Makes what was there before, then asks for the entry; the answer's code and what it says."""
    if "from" not in entry:
        return server.create(resource(entry, entry.get("name", "a"), entry.get("with", {})))
    before = resource(entry, f"c{number}", entry["from"])
    code, answer = server.change(before, dry=False)
    if code not in (200, 201):
        return 0, {"message": f"what is there before was refused: {answer['message']}"}
    after = resource(entry, f"c{number}", entry["from"], entry["with"])
    if "by" not in entry:
        return server.change(after)
    path = f"{API}/{entry['kind'].lower()}s/c{number}?dryRun=All"
    after["metadata"]["resourceVersion"] = answer["metadata"]["resourceVersion"]
    return server.ask(entry["by"], path, after)


def tables(server):
    refused = yaml.safe_load((HERE / "refused.yaml").read_text())
    for number, entry in enumerate(refused):
        code, answer = judge(server, entry, f"r{number}")
        said = answer.get("message", "")
        missing = [words for words in entry["says"] if words not in said]
        if code in (200, 201):
            report(tell(entry), "it was accepted")
        else:
            wrong = code not in (400, 422) or missing
            report(tell(entry), wrong and f"code {code}, without {missing}: {said}")
    accepted = yaml.safe_load((HERE / "accepted.yaml").read_text())
    for number, entry in enumerate(accepted):
        code, answer = judge(server, entry, f"a{number}")
        report(tell(entry), "" if code in (200, 201) else answer["message"])
    return len(refused), len(accepted)


def examples(server):
    for path in sorted((ROOT / "examples").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            code, answer = server.create(document)
            report(f"{path.name} {document['kind']}", "" if code == 201 else answer["message"])
        done = subprocess.run(["kubectl", "apply", "--dry-run=server", "-f", path], capture_output=True, text=True)
        report(f"kubectl apply {path.name}", done.returncode and done.stderr.strip())


def run(*command, stdin=None):
    done = subprocess.run(command, capture_output=True, text=True, input=stdin)
    return done.returncode, (done.stdout + done.stderr).strip(), done.stdout


def profiles(helm):
    """What the charts render with each profile, as far as this server knows the kinds."""
    for chart in ("weirmq-operator", "weirmq"):
        for values in [None, *sorted((ROOT / "charts" / chart / "ci").glob("*.yaml"))]:
            name = f"{chart} {values.stem if values else 'defaults'}"
            command = [helm, "template", "demo", ROOT / "charts" / chart, "--namespace", "default",
                       "--kube-version", "1.34.4"]
            code, said, out = run(*command, *(["--values", values] if values else []))
            if code != 0:
                report(name, said)
                continue
            known = [document for document in yaml.safe_load_all(out)
                     if document and not document["apiVersion"].startswith(FOREIGN)]
            for document in known:
                # The definitions are there already, and belong to whoever put them there.
                document["metadata"].setdefault("namespace", "default")
            code, said, _ = run("kubectl", "apply", "--server-side", "--force-conflicts", "--dry-run=server",
                                "--field-manager=admission", "-f", "-", stdin=yaml.safe_dump_all(known))
            report(f"kubectl apply {name}", code and said)


def may(server, account, verb, group, resource, namespace="default", name="", subresource=""):
    attributes = {"verb": verb, "group": group, "resource": resource, "subresource": subresource,
                  "namespace": namespace, "name": name}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
              "spec": {"user": account, "resourceAttributes": attributes}}
    return server.ask("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)[1]["status"]["allowed"]


# What brokers need: the operator grants it, and so has to have it itself.
BROKERS_ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "granted"},
    "rules": [
        {"apiGroups": ["weirmq.io"], "resources": ["brokergroups"], "resourceNames": ["a-0"], "verbs": ["get", "watch"]},
        {"apiGroups": ["weirmq.io"], "resources": ["brokergroups/status"], "resourceNames": ["a-0"], "verbs": ["update"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["a-0"],
         "verbs": ["get", "patch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "resourceNames": ["a-0-master-ipv4"],
         "verbs": ["get", "create", "patch"]},
    ],
}
DENIED = [
    ("create", "", "pods", ""), ("create", "", "pods", "exec"), ("get", "", "pods", "log"), ("list", "", "secrets", ""),
    ("delete", "", "secrets", ""), ("patch", "", "nodes", ""), ("delete", "", "persistentvolumeclaims", ""),
    ("delete", "", "namespaces", ""), ("delete", "weirmq.io", "brokers", ""), ("create", "weirmq.io", "topics", ""),
    ("create", "apps", "deployments", ""), ("escalate", "rbac.authorization.k8s.io", "roles", ""),
    ("bind", "rbac.authorization.k8s.io", "roles", ""), ("create", "rbac.authorization.k8s.io", "clusterroles", ""),
    ("impersonate", "", "users", ""), ("delete", "apiextensions.k8s.io", "customresourcedefinitions", ""),
    ("*", "*", "*", ""),
]


def rights(server, account, others):
    """Of the operator in namespace default, where it makes certificates, and whether it has any in namespace `other`:
    to read Secrets in neither case."""
    allowed = [("patch", "apps", "statefulsets", ""), ("patch", "weirmq.io", "brokers", "status"),
               ("create", "", "secrets", ""), ("delete", "", "pods", ""), ("create", "events.k8s.io", "events", ""),
               ("list", "", "persistentvolumeclaims", "")]
    for verb, group, kind in (("get", "", "secrets"), ("patch", "", "secrets"), ("patch", "cert-manager.io", "certificates")):
        report(f"{account} may {verb} {kind}", "" if may(server, account, verb, group, kind) else "no")
        report(f"{account} may not {verb} {kind} elsewhere", "yes" if may(server, account, verb, group, kind, "other") else "")
    for verb, group, kind, sub in allowed:
        report(f"{account} may {verb} {kind}/{sub}", "" if may(server, account, verb, group, kind, subresource=sub) else "no")
        elsewhere = may(server, account, verb, group, kind, "other", subresource=sub)
        report(f"{account} may {verb} {kind}/{sub} elsewhere: {others}", "" if elsewhere == others else str(elsewhere))
    for verb, group, kind, sub in DENIED:
        report(f"{account} may not {verb} {kind}/{sub}", "yes" if may(server, account, verb, group, kind, subresource=sub) else "")
    of_leases = lambda verb, namespace, name: may(server, account, verb, "coordination.k8s.io", "leases", namespace, name)
    for verb in ("get", "create", "update"):
        name = "" if verb == "create" else "weirmq-operator"
        report(f"{account} may {verb} its Lease", "" if of_leases(verb, "system", name) else "no")
    report(f"{account} may patch Leases of groups", "" if of_leases("patch", "default", "a-0") else "no")
    for verb in ("update", "watch", "list", "delete"):
        found = [space for space in ("default", "system", "kube-system") if of_leases(verb, space, "scheduler")]
        report(f"{account} may not {verb} Leases of others", found)
    path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles?dryRun=All"
    code, answer = server.ask("POST", path, BROKERS_ROLE, account=account)
    report(f"{account} may grant brokers their role", "" if code == 201 else answer["message"])
    more = copy.deepcopy(BROKERS_ROLE)
    more["rules"][0]["verbs"] = ["*"]
    code, _ = server.ask("POST", path, more, account=account)
    report(f"{account} may not grant more", "" if code == 403 else f"code {code}")


def kinds(server):
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    return {item["metadata"]["name"] for item in server.ask("GET", path)[1]["items"]}


class Operator:
    """A process `weir operator` with the rights of the chart's account. Ends with its `with` block."""

    def __init__(self, weir, server, *arguments):
        path = "/api/v1/namespaces/system/serviceaccounts/weirmq-operator/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
        token = server.ask("POST", path, request)[1]["status"]["token"]
        config = json.loads(pathlib.Path(os.environ["KUBECONFIG"]).read_text())
        config["users"][0]["user"] = {"token": token}
        self.folder = tempfile.TemporaryDirectory()
        kubeconfig = pathlib.Path(self.folder.name, "kubeconfig")
        kubeconfig.write_text(json.dumps(config))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.log = open(pathlib.Path(self.folder.name, "log"), "w+")
        environment = os.environ | {"KUBECONFIG": str(kubeconfig), "POD_NAME": "operator", "POD_NAMESPACE": "system"}
        self.process = subprocess.Popen(
            [weir, "operator", "--image=weirmq:1", "--bind=127.0.0.1", f"--admin-port={self.port}", *arguments],
            env=environment, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # It gives its Lease up.
        self.process.terminate()
        self.process.wait(timeout=60)
        self.log.close()
        self.folder.cleanup()

    def metrics(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
                return answer.read().decode()
        except OSError:
            return ""

    def said(self):
        return pathlib.Path(self.folder.name, "log").read_text()

    def forbidden(self):
        return "; ".join(line for line in self.said().splitlines() if "forbidden" in line.lower())[:2000]


def wait(seconds, condition):
    """Whether the condition became true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.2)
    return False


def certificate(server, namespace, secret):
    """The certificate in a Secret that the operator made, or nothing."""
    code, answer = server.ask("GET", f"/api/v1/namespaces/{namespace}/secrets/{secret}")
    text = answer.get("data", {}).get("ca.crt", "") if code == 200 else ""
    return base64.b64decode(text).startswith(b"-----BEGIN CERTIFICATE-----")


def operate(weir, server, namespace, *arguments):
    """The operator makes what the examples ask for, and is forbidden nothing of it."""
    made = f"/apis/apps/v1/namespaces/{namespace}/statefulsets"
    wanted = {"async-0", "async-1", "async-namesrv", "double-0", "double-1", "double-namesrv", "masters-0", "masters-1",
              "masters-namesrv", "sealed-0", "sealed-namesrv", "shop-0", "shop-namesrv", "single-0", "single-namesrv"}
    for path in sorted((ROOT / "examples").glob("*.yaml")):
        done = subprocess.run(["kubectl", "apply", "-n", namespace, "-f", path], capture_output=True, text=True)
        report(f"{path.name} for the operator", done.returncode and done.stderr)
    # A failure, so that there is a metric of it.
    server.change(resource({"kind": "Broker"}, "without-name-server"), dry=False)
    with Operator(weir, server, *arguments) as operator:
        sets = lambda: {item["metadata"]["name"] for item in server.ask("GET", made)[1]["items"]}
        report(f"the operator makes StatefulSets {arguments}", "" if wait(90, lambda: wanted <= sets())
               else f"without {sorted(wanted - sets())}: {operator.said()[-2000:]}")
        kinds = ("NameServer", "Broker", "Topic", "ConsumerGroup")
        counted = lambda text: "weirmq_operator_reconcile_failures_total{" in text and all(
            re.search(rf'weirmq_operator_reconciles_total{{[^}}]*kind="{kind}"', text) for kind in kinds)
        report(f"the operator looks at every kind {arguments}",
               "" if wait(60, lambda: counted(operator.metrics())) else operator.metrics())
        written = lambda: {name: certificate(server, namespace, name) for name in ("sealed-authority", "sealed-certificates")}
        report(f"the operator makes certificates {arguments}", "" if wait(30, lambda: all(written().values())) else written())
        report(f"the operator is forbidden nothing {arguments}", operator.forbidden())
        text = operator.metrics()
    for path in sorted((ROOT / "examples").glob("*.yaml")):
        subprocess.run(["kubectl", "delete", "-n", namespace, "-f", path, "--wait=false"], capture_output=True)
    return text


def alerts(helm, text):
    """Whether the operator shows every metric that its alerts ask for."""
    command = [helm, "template", "demo", ROOT / "charts/weirmq-operator", "--kube-version", "1.34.4",
               "--set", "metrics.prometheusRule.enabled=true", "--show-only", "templates/prometheusrule.yaml"]
    rule = yaml.safe_load(run(*command)[2])
    for alert in rule["spec"]["groups"][0]["rules"]:
        used = set(re.findall(r"\bweirmq_\w+", alert["expr"]))
        missing = [metric for metric in used if not re.search(rf"^{metric}\b", text, re.M)]
        report(f"metrics of {alert['alert']}", missing or (not used and "it uses none"))


def has_operator(weir):
    return bool(weir) and subprocess.run([weir, "operator", "--help"], capture_output=True).returncode == 0


def installed(helm, server, weir):
    """The chart of the operator as a user installs it on a new cluster: for all namespaces, then for one."""
    chart = ROOT / "charts/weirmq-operator"
    at = ["--namespace", "system"]
    before = kinds(server)
    for name in before:
        server.ask("DELETE", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
    report("the server knows no kinds", "" if wait(60, lambda: not kinds(server)) else sorted(kinds(server)))
    code, said, _ = run(helm, "install", "weirmq-operator", chart, *at, "--create-namespace",
                        "--set", "rbac.certificates={default,shop/sealed}")
    report("helm install", code and said)
    if code:
        return
    report("notes", "" if "rollout status deployment/weirmq-operator" in said else said)
    account = "system:serviceaccount:system:weirmq-operator"
    rights(server, account, others=True)
    report(f"{account} may list nodes", "" if may(server, account, "list", "", "nodes", "") else "no")
    for secret, wanted in (("sealed-authority", True), ("sealed-replication", True), ("other-authority", False)):
        found = may(server, account, "get", "", "secrets", "shop", secret)
        report(f"{account} reads Secret {secret} of a namespace of which one Broker is named: {wanted}",
               "" if found == wanted else str(found))
    if has_operator(weir):
        alerts(helm, operate(weir, server, "shop"))
    else:
        skip("the operator with the rights of its chart", "no --weir with `weir operator`")
    code, said, _ = run(helm, "upgrade", "weirmq-operator", chart, *at, "--set", "watchNamespace=default,replicas=2,rbac.certificates={*}")
    report("helm upgrade", code and said)
    rights(server, account, others=False)
    report(f"{account} may not list nodes", "yes" if may(server, account, "list", "", "nodes", "") else "")
    if has_operator(weir):
        operate(weir, server, "default", "--watch-namespace=default")
    editor = "editor"
    binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "editor"},
               "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "weirmq-operator-edit"},
               "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": editor}]}
    server.ask("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    report("an editor may declare a Broker", "" if may(server, editor, "create", "weirmq.io", "brokers") else "no")
    report("an editor may not touch records", "yes" if may(server, editor, "patch", "weirmq.io", "brokergroups") else "")
    code, said, _ = run(helm, "uninstall", "weirmq-operator", *at)
    report("helm uninstall", code and said)
    report("the kinds are kept", sorted(before - kinds(server)))


def cluster(helm, server):
    """The chart of a cluster, through an upgrade that the API server takes and one that it refuses."""
    chart = ROOT / "charts/weirmq"
    at = ["--namespace", "default"]
    code, said, _ = run(helm, "install", "demo", chart, *at, "--set", "topics.Orders.queues=4,consumerGroups.billing.ordered=true")
    report("helm install weirmq", code and said)
    wanted = ["demo-namesrv", "kubectl -n default run weir", "port-forward", "10908"]
    report("notes of weirmq", [words for words in wanted if words not in said])
    for kind, name in (("nameservers", "demo"), ("brokers", "demo"), ("consumergroups", "demo-billing")):
        code, answer = server.ask("GET", f"{API}/{kind}/{name}")
        report(f"{kind} {name} is there", "" if code == 200 else answer["message"])
    topics = server.ask("GET", f"{API}/topics")[1]["items"]
    names = [topic["spec"]["topicName"] for topic in topics if topic["metadata"]["name"].startswith("demo-orders-")]
    report("topic Orders is there", "" if names == ["Orders"] else str(names))
    code, said, _ = run(helm, "upgrade", "demo", chart, *at, "--reuse-values", "--set", "broker.groups=2,broker.storage.size=30Gi")
    report("helm upgrade weirmq", code and said)
    code, said, _ = run(helm, "upgrade", "demo", chart, *at, "--reuse-values", "--set", "broker.storage.size=1Gi")
    report("helm upgrade with a smaller disk", "" if code and "never shrinks" in said else said)
    code, said, _ = run(helm, "uninstall", "demo", *at)
    report("helm uninstall weirmq", code and said)


def main():
    if not os.environ.get("WEIRMQ_REAL_KUBE"):
        sys.exit("run it by e2e/kube/run.py -- e2e/admission/run.py")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weir")
    weir = parser.parse_args().weir
    server = Server()
    # `shop` is named in a profile of a chart.
    for name in ("default", "shop"):
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        server.ask("POST", "/api/v1/namespaces", namespace)
    refused, accepted = tables(server)
    scaling(server)
    kubectl = CACHE / "kubernetes/kubectl"
    if kubectl.exists():
        os.environ["PATH"] = f"{kubectl.parent}:{os.environ['PATH']}"
    if shutil.which("kubectl"):
        examples(server)
    else:
        skip("examples", "kubectl is not built (e2e/cluster/build.py kube) and not in $PATH")
    helm = shutil.which("helm")
    if helm and shutil.which("kubectl"):
        profiles(helm)
        installed(helm, server, weir)
        cluster(helm, server)
    else:
        skip("charts", "helm is not built (e2e/cluster/build.py helm) and not in $PATH")
    print(f"admission: {refused} to be refused, {accepted} to be accepted; {COUNTS['passed']} passed, "
          f"{COUNTS['failed']} failed, {COUNTS['skipped']} skipped")
    return 1 if COUNTS["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
