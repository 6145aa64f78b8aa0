"""rocketmq-broker 1.0.0 of rocketmq-rust, from the Rust registry, with the NameServer it insists on."""

import os
import subprocess
import time

from ..machine import free_port_with_neighbours, say
from ..places import PEERS
from .process import Broker, NotMeasured

VERSION = "1.0.0"
BUILD_MINUTES_MAX = 90


class RocketmqRust(Broker):
    """As it comes: a send waits up to 50 us, in fact a tick of tokio's timer, for others to join it."""

    name, shown = "rocketmq-rust", f"rocketmq-rust {VERSION}"
    readies = 3
    root = PEERS / "rocketmq-rust"
    store_settings = ""

    @classmethod
    def prepare(cls, options):
        """Builds both programs once; that takes half an hour and more on two cores."""
        for crate in ("rocketmq-broker", "rocketmq-namesrv"):
            if not (cls.root / "bin" / f"{crate}-rust").exists():
                say(f"building {crate} {VERSION}: this takes long, and only once")
                install(cls.root, crate)

    def launch(self):
        port, namesrv = free_port_with_neighbours(), free_port_with_neighbours()
        self.address = f"127.0.0.1:{port}"
        config = self.home / "broker.toml"
        config.write_text(CONFIG.format(
            port=port, replication=port + 1, home=self.home, flush=f"{self.flush.upper()}_FLUSH",
            more=self.store_settings))
        environment = {"ROCKETMQ_HOME": str(self.home), "HOME": str(self.home),
                       "ROCKETMQ_SECURITY_PROFILE": "development-insecure-loopback"}
        with open(self.home / "output", "a") as output:
            streams = {"stdout": output, "stderr": output, "cwd": self.home}
            names = self.spawn(
                [self.root / "bin" / "rocketmq-namesrv-rust", "--listenPort", namesrv,
                 "--bindAddress", "127.0.0.1"], environment, **streams)
            self.extras = [names]
            self.process = names
            self.wait_for_port(namesrv, time.monotonic(), 30)
            began = time.monotonic()
            self.process = self.spawn(
                [self.root / "bin" / "rocketmq-broker-rust", "-c", config,
                 "-n", f"127.0.0.1:{namesrv}", "--log-filter", "warn"], environment, **streams)
        return self.wait_for_port(port, began)


class RocketmqRustNoWait(RocketmqRust):
    name, shown = "rocketmq-rust-no-wait", f"rocketmq-rust {VERSION}, no wait"
    store_settings = "commitLogMicroBatchMaxWaitMicros = 0\n"


CONFIG = """\
[broker]
brokerIp1 = "127.0.0.1"
listenPort = {port}
storePathRootDir = "{home}/store"

[broker.brokerServerConfig]
bindAddress = "127.0.0.1"

[broker.brokerIdentity]
brokerName = "broker-a"
brokerClusterName = "DefaultCluster"
brokerId = 0

[store]
storeType = "LocalFile"
brokerRole = "ASYNC_MASTER"
flushDiskType = "{flush}"
storePathRootDir = "{home}/store"
haListenAddress = "127.0.0.1"
haListenPort = {replication}
{more}"""


def install(root, crate):
    root.mkdir(parents=True, exist_ok=True)
    command = [os.environ.get("CARGO", "cargo"), "install", "--locked", "--root", root, f"{crate}@{VERSION}"]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(root / "build")}
    try:
        with open(root / "build.log", "a") as log:
            subprocess.run(command, stdout=log, stderr=log, check=True, env=environment,
                           timeout=60 * BUILD_MINUTES_MAX)
    except (OSError, subprocess.SubprocessError) as error:
        raise NotMeasured(f"{crate} {VERSION} was not built: {error}; see {root / 'build.log'}") from error
