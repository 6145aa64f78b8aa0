"""Apache's broker, from Maven Central."""

import subprocess
import time

from ..machine import free_port_with_neighbours
from ..places import BENCH, TARGET
from .process import Broker, NotMeasured


class Apache(Broker):
    name, shown = "apache", "Apache 5.5.0"
    readies, is_cheap_to_start, has_fixed_heap = 3, False, True
    jars = TARGET / "apache-jars"

    def __init__(self, home, flush, options):
        super().__init__(home, flush, options)
        self.warmup_seconds = options.jvm_warmup

    @classmethod
    def prepare(cls, options):
        try:
            subprocess.run([BENCH / "apache" / "fetch", cls.jars], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise NotMeasured(f"cannot fetch Apache's jars: {error}") from error

    def launch(self):
        port = free_port_with_neighbours()
        self.address = f"127.0.0.1:{port}"
        with open(self.home / "output", "w") as output:
            began = time.monotonic()
            self.process = self.spawn(
                [BENCH / "apache" / "start", self.jars, self.home, port,
                 f"{self.flush.upper()}_FLUSH", self.options.heap], stdout=output, stderr=output)
        return self.wait_for_port(port, began)
