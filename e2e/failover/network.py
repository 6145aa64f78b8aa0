"""Network namespaces on a bridge of their own: nothing leaves them, and any of them can be cut off."""
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile

SUBNET = "10.203.77"


def why_not():
    """Why namespaces cannot be made here; None where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"weir-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode != 0:
        return f"ip netns add: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


class Trial:
    """A network and a folder, while something is tried in them."""

    def __init__(self, names):
        self.network, self.folder = Network(names), tempfile.mkdtemp(prefix="weir-failover-")
        self.is_clean = False


@contextlib.contextmanager
def trial(names, failures, keep=False):
    """A trial whose folder is moved to `failures` unless it says that it was clean. The harness itself talks to
    everybody, so this process moves to where the clients are."""
    # So that everything that was made goes, however this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    one = Trial(names)
    try:
        _enter(one.network.namespace("client"))
        yield one
    finally:
        if one.is_clean and not keep:
            shutil.rmtree(one.folder)
        else:
            shutil.move(one.folder, failures)
            print(f"logs and stores are in {failures}")
        one.network.remove()


def _enter(namespace):
    """Moves this thread, and those it starts, into a network namespace."""
    clone_newnet = 0x40000000
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}") as file:
        if libc.setns(file.fileno(), clone_newnet) != 0:
            raise OSError(ctypes.get_errno(), f"setns {namespace}")


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class Network:
    """Nodes by name, each in a namespace with one address; the bridge is in one of its own."""

    def __init__(self, names):
        self.prefix = f"weir{os.getpid()}"
        self.addresses = {name: f"{SUBNET}.{number}" for number, name in enumerate(names, 2)}
        self.bridge = f"{self.prefix}-br"
        ip("netns", "add", self.bridge)
        ip("-n", self.bridge, "link", "add", "bridge0", "type", "bridge")
        ip("-n", self.bridge, "link", "set", "bridge0", "up")
        for name, address in self.addresses.items():
            namespace = self.namespace(name)
            ip("netns", "add", namespace)
            ip("-n", self.bridge, "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0",
               "netns", namespace)
            ip("-n", self.bridge, "link", "set", f"to-{name}", "master", "bridge0", "up")
            ip("-n", namespace, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", namespace, "link", "set", "eth0", "up")
            ip("-n", namespace, "link", "set", "lo", "up")

    def namespace(self, name):
        return f"{self.prefix}-{name}"

    def inside(self, name):
        """What runs a command there. `ip netns exec` would give it a copy of all mounts, which would keep
        file systems alive whose power was cut."""
        return ["nsenter", f"--net=/run/netns/{self.namespace(name)}"]

    def cut(self, name):
        """Nothing comes in or goes out any more; nobody is told."""
        ip("-n", self.bridge, "link", "set", f"to-{name}", "down")

    def mute(self, name, others):
        """What the node sends to these others is lost; it hears them."""
        for other in others:
            ip("-n", self.namespace(name), "route", "add", "blackhole", f"{self.addresses[other]}/32")

    def part(self, name, others):
        """The node and these others do not hear each other."""
        self.mute(name, others)
        for other in others:
            self.mute(other, [name])

    def heal(self, name):
        ip("-n", self.bridge, "link", "set", f"to-{name}", "up")
        for other in self.addresses:
            for node, address in ((name, self.addresses[other]), (other, self.addresses[name])):
                subprocess.run(["ip", "-n", self.namespace(node), "route", "del", "blackhole", f"{address}/32"],
                               capture_output=True)

    def remove(self):
        for name in self.addresses:
            subprocess.run(["ip", "netns", "del", self.namespace(name)], capture_output=True)
        subprocess.run(["ip", "netns", "del", self.bridge], capture_output=True)
