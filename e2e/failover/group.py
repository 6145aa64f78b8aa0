"""A broker group in network namespaces: its replicas, a NameServer, and a stand-in for the API server of
Kubernetes by which they elect their master; or none, and the first replica is the master by configuration."""
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "crash"))
import disk  # noqa: E402

IMAGE_BYTES = 768 << 20
ON_ITS_WAY = 64 << 10
FREEZE, THAW = 0xC0045877, 0xC0045878  # FIFREEZE, FITHAW
NAMESRV_PORT, BROKER_PORT, ADMIN_PORT, API_PORT = 9876, 10911, 10908, 8001
KUBECONFIG = """apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "http://{address}:8001"}}}}]
users: [{{name: u, user: {{}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u, namespace: default}}}}]
current-context: x
"""


class Process:
    """One process of ours in a namespace; what it says goes to a file."""

    def __init__(self, command, log, environment):
        self.log = open(log, "ab")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self.log, stderr=self.log,
                                        env=environment)
        # `nsenter` becomes the command itself, so this is its id.
        self.pid = self.process.pid

    def send(self, number):
        os.kill(self.pid, number)

    def is_alive(self):
        return self.process.poll() is None

    def kill(self):
        if self.is_alive():
            self.send(signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.log.close()


class Disk:
    """Where a replica keeps its data: a file system of its own whose power can be cut, or a folder."""

    def __init__(self, folder, is_image):
        self.image = disk.Image(IMAGE_BYTES).__enter__() if is_image else None
        if self.image:
            self.image.mount()
        self.path = self.image.point if self.image else folder

    def cut_power(self):
        self.image.cut(disk.NO_LOG_FLUSH)

    def give_power(self):
        """After everybody who used it is gone."""
        self.image.unmount()
        self.image.mount()

    def freeze(self, request):
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, request, 0)
        finally:
            os.close(handle)

    def remove(self):
        if self.image:
            self.image.__exit__()


class Group:
    NAME = "broker-a"

    def __init__(self, network, binaries, folder, replicas, flush, min_in_sync, lease_ms, has_images,
                 store_settings="", ack="all", replication="sync", is_elected=True, limit_settings=""):
        self.network, self.binaries, self.folder, self.replicas = network, binaries, folder, replicas
        self.flush, self.min_in_sync, self.lease_ms, self.ack = flush, min_in_sync, lease_ms, ack
        self.replication = replication
        self.names = [f"r{n}" for n in range(replicas)]
        clean = {name: value for name, value in os.environ.items()
                 if not name.startswith(("WEIRMQ_", "KUBE")) and name not in ("RUST_LOG", "NAMESRV_ADDR")}
        self.environment = clean | {"KUBECONFIG": os.path.join(folder, "kubeconfig")}
        with open(os.path.join(folder, "secret"), "w") as file:
            file.write("what only these replicas know\n")
        with open(os.path.join(folder, "weir.toml"), "w") as file:
            file.write("[broker.store]\nsegment_bytes = 16777216\nfree_bytes_min = 4096\n"
                       f"retention_disk_percent = 95\n{store_settings}[broker.limits]\nmessage_bytes_max = 131072\n"
                       f"{limit_settings}[broker.replication]\nlease_ms = {lease_ms}\n")
        self.api = self._authority() if is_elected else None
        self.namesrv = self._process("ns", [binaries["weir"], "namesrv", "--bind", "0.0.0.0",
                                            "--namesrv-port", str(NAMESRV_PORT), "--admin-port", str(ADMIN_PORT)])
        self.disks = {name: Disk(os.path.join(folder, name), has_images) for name in self.names}
        self.brokers = {name: self.start(name) for name in self.names}

    def _process(self, node, command):
        log = os.path.join(self.folder, f"{node}.log")
        return Process(self.network.inside(node) + command, log, self.environment)

    def _authority(self):
        """The stand-in, with the objects by which the replicas elect."""
        with open(self.environment["KUBECONFIG"], "w") as file:
            file.write(KUBECONFIG.format(address=self.network.addresses["api"]))
        api = self._process("api", [self.binaries["kube-stand-in"], "--listen", f"0.0.0.0:{API_PORT}"])
        self._create_objects()
        return api

    def _create_objects(self):
        spec = {"replicas": self.replicas, "flush": self.flush.capitalize(),
                "replication": {"mode": self.replication.capitalize(), "ackPolicy": {"all": "AllInSync", "quorum": "Quorum"}[self.ack],
                                "minInSync": self.min_in_sync}}
        objects = [("weirmq.io/v1alpha1", "BrokerGroup", "apis/weirmq.io/v1alpha1/namespaces/default/brokergroups",
                    {"spec": spec}),
                   ("coordination.k8s.io/v1", "Lease", "apis/coordination.k8s.io/v1/namespaces/default/leases",
                    {"spec": {}})]
        for version, kind, path, rest in objects:
            body = {"apiVersion": version, "kind": kind, "metadata": {"name": "group", "namespace": "default"}} | rest
            url = f"http://{self.network.addresses['api']}:{API_PORT}/{path}"
            until(f"{kind} is made", lambda: self._post(url, body), 20)

    def _post(self, url, body):
        """True once the object is there."""
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            urllib.request.urlopen(request, timeout=2).close()
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise RuntimeError(f"{url}: {error.code} {error.read().decode()}") from error
        except OSError:
            return False
        return True

    def start(self, name):
        number = self.names.index(name)
        addresses = self.network.addresses
        peers = [f"{addresses[other]}:{BROKER_PORT + 1}" for other in self.names]
        if self.api:
            roles = ["--peers", ",".join(peers), "--kubernetes-group", "group"]
        else:
            roles = ["--master", peers[0]] if number else []
        program = self.binaries.get("before" if number % 2 else "weir", self.binaries["weir"])
        command = [program, "broker", "--bind", "0.0.0.0", "--name", self.NAME, "-n", f"{addresses['ns']}:{NAMESRV_PORT}",
                   "--broker-port", str(BROKER_PORT), "--admin-port", str(ADMIN_PORT),
                   "--advertise", f"{addresses[name]}:{BROKER_PORT}", "--broker-id", str(number),
                   "--data", os.path.join(self.disks[name].path, "data"), "--config", os.path.join(self.folder, "weir.toml"),
                   "--flush", self.flush, "--replication", self.replication, "--min-in-sync", str(self.min_in_sync),
                   "--ack", self.ack,
                   "--replication-secret-file", os.path.join(self.folder, "secret"),
                   *roles]
        return self._process(name, command)

    def end(self, name):
        """SIGTERM; a master hands over before it ends."""
        self.brokers[name].send(signal.SIGTERM)
        try:
            self.brokers[name].process.wait(30)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"{name} has not ended 30 s after SIGTERM") from error

    def restart(self, name):
        """Starts it again, after a SIGKILL if it still runs."""
        self.brokers[name].kill()
        self.brokers[name] = self.start(name)

    def command(self, line):
        """Tells the stand-in what to do with those who ask it."""
        self.api.process.stdin.write(line.encode() + b"\n")
        self.api.process.stdin.flush()

    def metrics(self, name):
        """A replica's own gauges; empty where it does not answer."""
        try:
            url = f"http://{self.network.addresses[name]}:{ADMIN_PORT}/metrics"
            with urllib.request.urlopen(url, timeout=1) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return {}
        gauges = (line.rsplit(" ", 1) for line in lines if line.startswith("weirmq_"))
        return {text.split("{")[0]: float(value) for text, value in gauges}

    def health(self, name):
        """What a replica says of itself, which it has to within a second."""
        try:
            url = f"http://{self.network.addresses[name]}:{ADMIN_PORT}/readyz?verbose"
            with urllib.request.urlopen(url, timeout=1) as answer:
                return answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except OSError as error:
            raise RuntimeError(f"{name} does not say how it is: {error}") from error

    def log(self, name):
        """What a replica has said so far, in all its starts."""
        return pathlib.Path(self.folder, f"{name}.log").read_text(errors="replace")

    def is_safe_to_restart(self, name):
        """By the replica's own word, which is what an operator goes by."""
        try:
            urllib.request.urlopen(f"http://{self.network.addresses[name]}:{ADMIN_PORT}/safe-to-restart", timeout=1).close()
        except OSError:
            return False
        return True

    def address(self, name):
        """Where clients find a replica."""
        return f"{self.network.addresses[name]}:{BROKER_PORT}"

    def masters(self):
        """The replicas that take messages, by their own word."""
        return [name for name in self.names if self.metrics(name).get("weirmq_takes_messages") == 1]

    def in_sync(self):
        """How many replicas the master counts as in sync."""
        return max((int(self.metrics(name).get("weirmq_in_sync_replicas", 0)) for name in self.masters()), default=0)

    def settle(self, patience=90):
        """Waits until one master takes messages and all replicas are in sync; says which."""
        until("one master and everybody in sync",
              lambda: len(self.masters()) == 1 and self.in_sync() == self.replicas, patience)
        return self.masters()[0]

    def logs_differ(self):
        """Kills everybody, at rest, and compares the logs byte for byte. Answers with what is wrong."""
        for broker in self.brokers.values():
            broker.kill()
        return logs_differ({name: pathlib.Path(place.path, "data", "commitlog") for name, place in self.disks.items()})

    def lose_power(self, names):
        """The machines of these replicas lose their power at the same moment, and get it back."""
        for name in names:
            self.disks[name].cut_power()
        for name in names:
            self.brokers[name].kill()
        for name in names:
            self.disks[name].give_power()
            self.brokers[name] = self.start(name)

    def stop(self):
        for process in [*self.brokers.values(), self.namesrv, *filter(None, [self.api])]:
            process.kill()
        for place in self.disks.values():
            place.remove()


def logs_differ(folders):
    """What is wrong with the logs of replicas at rest, by name: up to the end of the shortest they are the same, and
    it lacks no more than what may have been on its way."""
    segments = sorted({file.name for folder in folders.values() for file in folder.iterdir() if file.name.isdigit()})

    def content(name, segment):
        file = folders[name] / segment
        return file.read_bytes() if file.exists() else b""

    ends = {name: max(int(segment) + len(written) for segment in ["0", *segments]
                      if (written := content(name, segment).rstrip(b"\0")) or segment == "0") for name in folders}
    shortest, (first, *others) = min(ends.values()), folders
    wrong = [] if max(ends.values()) - shortest < ON_ITS_WAY else [f"the logs end at {ends}"]
    for segment in segments:
        count = max(0, shortest - int(segment))
        wanted = content(first, segment)[:count]
        wrong += [f"the logs of {first} and {name} differ in {segment}" for name in others
                  if content(name, segment)[:count] != wanted]
    return wrong


def until(what, is_so, patience):
    deadline = time.monotonic() + patience
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {patience} s: {what}")
        time.sleep(0.05)
