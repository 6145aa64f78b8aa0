"""NATS JetStream with an fsync before each acknowledgement; a peer for synchronous flush only."""

import subprocess
import time

from ..generator import run_json
from ..machine import free_port_with_neighbours, say
from ..places import BENCH, PEERS
from .process import Broker, NotMeasured


class Nats(Broker):
    name, shown = "nats", "NATS 2.15.2, fsync"
    speaks_remoting = False
    readies = 3
    root = PEERS / "nats"

    @classmethod
    def prepare(cls, options):
        """Builds the server and our load program for it, by versions that go.mod pins."""
        cls.root.mkdir(parents=True, exist_ok=True)
        say("building nats-server and its load")
        try:
            subprocess.run(["go", "build", "-o", f"{cls.root}/", ".", "github.com/nats-io/nats-server/v2"],
                           cwd=BENCH / "nats", check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise NotMeasured(f"nats-server was not built: {error}") from error

    def launch(self):
        port = free_port_with_neighbours()
        self.address = f"nats://127.0.0.1:{port}"
        config = self.home / "nats.conf"
        config.write_text(f'listen: "127.0.0.1:{port}"\n'
                          f'jetstream {{ store_dir: "{self.home}/store", sync_interval: always }}\n')
        with open(self.home / "output", "a") as output:
            began = time.monotonic()
            self.process = self.spawn([self.root / "nats-server", "-c", config], stdout=output, stderr=output)
        return self.wait_for_port(port, began)

    def load(self, shape, seconds, warmup):
        """Publishes on `shape`: connections, and messages in flight on each."""
        connections, in_flight = shape
        return run_json([self.root / "nats", "-url", self.address, "-c", connections, "-n", in_flight,
                         "-seconds", seconds, "-warmup", warmup, "-broker-pid", self.pid],
                        seconds + warmup + 60)
