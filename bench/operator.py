#!/usr/bin/env python3
"""What an operator needs that looks after Topics which are as they are declared: memory, and time for a look.

    e2e/kube/run.py -- bench/operator.py --weir target/fast/weir [--topics 200] [--results FILE]

The operator runs beside a real API server. There are no nodes: a broker on an address of the loopback network
plays the pod of the only group, and what kubelet and the StatefulSet controller do this script does. Memory is
VmRSS of /proc/PID/status; the time of looks is by the operator's own metrics, over the looks that touching each
Topic once causes. Prints one JSON object.
"""

import argparse
import json
import os
import pathlib
import re
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request

ADDRESS = "127.31.7.1"
PATIENCE = 180
KINDS = "/apis/weirmq.io/v1alpha1/namespaces/default"
SETS, PODS = "/apis/apps/v1/namespaces/default/statefulsets", "/api/v1/namespaces/default/pods"


class Server:
    """The API server that $KUBECONFIG names."""

    def __init__(self):
        config = json.loads(pathlib.Path(os.environ["KUBECONFIG"]).read_text())
        cluster = config["clusters"][0]["cluster"]
        self.base, self.token = cluster["server"], config["users"][0]["user"]["token"]
        self.context = ssl.create_default_context(cafile=cluster["certificate-authority"])

    def ask(self, method, path, body=None, media="application/json"):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, method=method, data=data)
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", media)
        with urllib.request.urlopen(request, timeout=30, context=self.context) as answer:
            return json.loads(answer.read())

    def declare(self, kind, name, spec, annotations=None):
        body = {"apiVersion": "weirmq.io/v1alpha1", "kind": kind, "spec": spec,
                "metadata": {"name": name, "annotations": annotations or {}}}
        path = f"{KINDS}/{kind.lower()}s/{name}?fieldManager=bench&force=true"
        self.ask("PATCH", path, body, "application/apply-patch+yaml")

    def merge(self, path, body):
        self.ask("PATCH", path, body, "application/merge-patch+json")

    def run_pods(self):
        """One pod of each StatefulSet, ready at once."""
        for found in self.ask("GET", SETS)["items"]:
            name, generation = found["metadata"]["name"], found["metadata"]["generation"]
            if found.get("status", {}).get("observedGeneration") == generation:
                continue
            pod = found["spec"]["template"] | {"apiVersion": "v1", "kind": "Pod"}
            pod["metadata"]["name"] = f"{name}-0"
            pod["metadata"]["labels"]["controller-revision-hash"] = "one"
            pod["spec"]["volumes"] = pod["spec"]["containers"][0]["volumeMounts"] = []
            self.ask("POST", PODS, pod)
            self.merge(f"{PODS}/{name}-0/status", {"status": {
                "phase": "Running", "podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}],
                "conditions": [{"type": "Ready", "status": "True"}]}})
            self.merge(f"{SETS}/{name}/status", {"status": {
                "observedGeneration": generation, "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1,
                "currentRevision": "one", "updateRevision": "one"}})

    def not_ready(self, kind):
        """Resources that do not say of their newest generation that they are ready."""
        def is_ready(one):
            conditions = one.get("status", {}).get("conditions", [])
            return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        return [one["metadata"]["name"] for one in self.ask("GET", f"{KINDS}/{kind}")["items"] if not is_ready(one)]


def until(what, is_so):
    end = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > end:
            sys.exit(f"waited in vain until {what}")
        time.sleep(0.2)


class Operator:
    def __init__(self, weir, log):
        environment = os.environ | {"POD_NAME": "bench", "POD_NAMESPACE": "default"}
        self.process = subprocess.Popen([weir, "operator", "--image=weirmq:1", "--bind", ADDRESS, "--admin-port", "10907",
                                         "--watch-namespace=default"], env=environment, stdout=log, stderr=log)

    def resident_mib(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return {name: round(int(re.search(rf"^{name}:\s+(\d+) kB", status, re.M)[1]) / 1024, 1)
                for name in ("VmRSS", "RssAnon", "RssFile")}

    def looks(self, kind):
        """Seconds and number of the looks at a kind so far."""
        with urllib.request.urlopen(f"http://{ADDRESS}:10907/metrics", timeout=10) as answer:
            text = answer.read().decode()
        value = lambda what: float(re.search(
            rf'^weirmq_operator_reconcile_seconds_{what}{{[^}}]*kind="{kind}"[^}}]*}} (\S+)$', text, re.M)[1])
        return value("sum"), value("count")


def measured(server, operator, topics):
    server.declare("NameServer", "ns", {"replicas": 1})
    server.declare("Broker", "mq", {"nameServerRef": {"name": "ns"}, "replicasPerGroup": 1, "storage": {"size": "1Gi"}})
    names = [f"t{number}" for number in range(topics)]
    server.declare("Topic", "first", {"brokerRef": {"name": "mq"}})

    def is_ready():
        server.run_pods()
        return not server.not_ready("topics")
    until("the first topic is ready", is_ready)
    found = {"before": operator.resident_mib()}
    begun = time.monotonic()
    for name in names:
        server.declare("Topic", name, {"brokerRef": {"name": "mq"}})
    until("all topics are ready", lambda: not server.not_ready("topics"))
    found["declared_to_ready_s"] = round(time.monotonic() - begun, 1)
    found["after"] = operator.resident_mib()
    for kind, touched in (("Topic", names), ("Broker", ["mq"] * 50)):
        before = operator.looks(kind)
        for look, name in enumerate(touched):
            annotations = {"metadata": {"annotations": {"bench/look": str(look)}}}
            server.merge(f"{KINDS}/{kind.lower()}s/{name}", annotations)
            if kind == "Broker":
                # Changes that come together are one look.
                until("it is looked at", lambda: operator.looks(kind)[1] > before[1] + look)
        until("all are looked at", lambda: operator.looks(kind)[1] >= before[1] + len(touched))
        after = operator.looks(kind)
        found[f"look_{kind.lower()}_ms"] = round((after[0] - before[0]) * 1000 / (after[1] - before[1]), 2)
        found[f"looks_{kind.lower()}"] = int(after[1] - before[1])
    found["at_the_end"] = operator.resident_mib()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weir", required=True)
    parser.add_argument("--topics", type=int, default=200)
    parser.add_argument("--name", default="", help="what the program is, for the result")
    parser.add_argument("--results", type=pathlib.Path, help="a file to which the result is added")
    arguments = parser.parse_args()
    if not os.environ.get("WEIRMQ_REAL_KUBE"):
        sys.exit("run it by e2e/kube/run.py -- bench/operator.py")
    server = Server()
    with tempfile.TemporaryDirectory() as folder, open(pathlib.Path(folder, "log"), "w+") as log:
        broker = subprocess.Popen([arguments.weir, "broker", "--bind", ADDRESS, "--broker-port", "10911", "--admin-port",
                                   "0", "--namesrv", f"{ADDRESS}:9876", "--name", "mq-0", "--cluster", "mq", "--data",
                                   f"{folder}/data"], stdout=log, stderr=log)
        operator = Operator(arguments.weir, log)
        try:
            found = {"program": arguments.name, "topics": arguments.topics, "load_average": os.getloadavg()[0],
                     **measured(server, operator, arguments.topics)}
        finally:
            for process in (operator.process, broker):
                process.terminate()
                process.wait(timeout=60)
    print(json.dumps(found, indent=1))
    if arguments.results:
        before = json.loads(arguments.results.read_text()) if arguments.results.exists() else []
        arguments.results.write_text(json.dumps([*before, found], indent=1) + "\n")


if __name__ == "__main__":
    main()
