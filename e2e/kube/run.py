#!/usr/bin/env python3
"""Runs a command beside a real API server of Kubernetes: etcd and kube-apiserver, nothing else.

    run.py -- COMMAND…            the command finds the server by $KUBECONFIG, and $WEIRMQ_REAL_KUBE set
    run.py --if-built -- COMMAND… the same, but skips where the server would have to be built first
    run.py --build-only

Both programs are built from Go modules once, by e2e/cluster/build.py. Everything listens on free
ports of 127.0.0.1. The definitions in crds/ are installed before the command runs. In
$KUBECONFIG the user is an administrator, who may impersonate others.

The exit code is the command's; 0 with a line `SKIP …` where Go is missing.
"""

import argparse
import json
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
CRDS = HERE.parent.parent / "crds"
sys.path.insert(0, str(HERE.parent / "cluster"))
import build  # noqa: E402

PROGRAMS = ["kube", "etcd"]
TOKEN = "administrator"
START_SECONDS = 60


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Server:
    """etcd and the API server, with their files in `folder`."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.processes = []
        self.port = 0

    def start_all(self):
        folder = self.folder
        client, peer, self.port = free_ports(3)
        etcd, peers = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
        self.start("etcd", "--name=e", f"--data-dir={folder}/etcd", "--unsafe-no-fsync", "--log-level=warn",
                   f"--listen-client-urls={etcd}", f"--advertise-client-urls={etcd}",
                   f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}",
                   f"--initial-cluster=e={peers}")
        key = self.folder / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, stderr=subprocess.DEVNULL)
        (self.folder / "tokens.csv").write_text(f'{TOKEN},administrator,1,"system:masters"\n')
        self.start("kube-apiserver", f"--etcd-servers={etcd}", f"--secure-port={self.port}",
                   "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
                   f"--cert-dir={folder}/certificates", f"--token-auth-file={folder}/tokens.csv",
                   "--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16",
                   "--service-account-issuer=https://kubernetes.default.svc",
                   f"--service-account-signing-key-file={key}", f"--service-account-key-file={key}",
                   "--disable-admission-plugins=ServiceAccount", "--watch-cache=true")
        self.await_ready()

    def start(self, name, *arguments):
        log = open(self.folder / f"{name}.log", "wb")
        process = subprocess.Popen([build.BUILT / name, *arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.processes.append((name, process))

    def request(self, path, method="GET", body=None, media="application/json"):
        # The certificate is the server's own, made when it started.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        request = urllib.request.Request(f"https://127.0.0.1:{self.port}{path}", method=method, data=body)
        request.add_header("Authorization", f"Bearer {TOKEN}")
        request.add_header("Content-Type", media)
        with urllib.request.urlopen(request, timeout=10, context=context) as response:
            return response.read()

    def await_ready(self):
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            for name, process in self.processes:
                if process.poll() is not None:
                    sys.exit(f"{name} ended with {process.returncode}:\n{self.tail(name)}")
            try:
                self.request("/readyz")
                return
            except (OSError, urllib.error.URLError):
                time.sleep(0.1)
        sys.exit(f"the API server was not ready after {START_SECONDS} s:\n{self.tail('kube-apiserver')}")

    def tail(self, name):
        return "\n".join((self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-15:])

    def install(self, definitions):
        """Applies definitions of kinds, and waits until they are served."""
        for document in definitions.split("---\n"):
            if not document.strip():
                continue
            name = next(line.split()[1] for line in document.splitlines() if line.startswith("  name: "))
            path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
            try:
                self.request(f"{path}?fieldManager=tests&fieldValidation=Strict", "PATCH", document.encode(),
                             "application/apply-patch+yaml")
            except urllib.error.HTTPError as error:
                sys.exit(f"{name} is refused: {json.loads(error.read())['message']}")
            end = time.monotonic() + START_SECONDS
            while time.monotonic() < end:
                status = json.loads(self.request(path)).get("status", {})
                conditions = {c["type"]: c for c in status.get("conditions") or []}
                if conditions.get("NonStructuralSchema", {}).get("status") == "True":
                    sys.exit(f"{name}: {conditions['NonStructuralSchema']['message']}")
                if conditions.get("Established", {}).get("status") == "True":
                    break
                time.sleep(0.05)
            else:
                sys.exit(f"{name} was not established")

    def kubeconfig(self):
        path = self.folder / "kubeconfig"
        server = {"server": f"https://127.0.0.1:{self.port}",
                  "certificate-authority": str(self.folder / "certificates/apiserver.crt")}
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": server}],
            "users": [{"name": "u", "user": {"token": TOKEN}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }))
        return path

    def stop(self):
        for _, process in reversed(self.processes):
            process.kill()
            process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--if-built", action="store_true")
    parser.add_argument("--build-only", action="store_true")
    parser.add_argument("command", nargs="*")
    arguments = parser.parse_args()
    missing = [tool for tool in ("go", "openssl") if not shutil.which(tool)]
    if not all(map(build.is_built, PROGRAMS)) and (missing or arguments.if_built):
        why = f"{missing[0]} is missing" if missing else "`make kube` builds it in about six minutes"
        print(f"SKIP real API server: not built; {why}\n0 passed, 0 failed, 1 skipped")
        return 0
    build.build(PROGRAMS)
    if arguments.build_only:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        server = Server(folder)
        try:
            server.start_all()
            for file in sorted(CRDS.glob("*.yaml")):
                server.install(file.read_text())
            print(f"API server ready after {time.monotonic() - begun:.1f} s", flush=True)
            environment = os.environ | {"KUBECONFIG": str(server.kubeconfig()), "WEIRMQ_REAL_KUBE": "1"}
            return subprocess.run(arguments.command, env=environment).returncode
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(main())
