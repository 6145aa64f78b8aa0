"""Who has the machine: all brokers are there, one runs."""

import os
import time

from .brokers import BROKERS
from .generator import generate
from .machine import device_counters
from .probe import log_position

# A store that grew past this is thrown away between two workloads, if starting again is cheap.
STORE_BYTES_MAX = 6 << 30
# For what comes before a load, such as filling a topic.
PATIENCE = 120


class Turns:
    """The brokers of one phase, all with the same way to flush."""

    def __init__(self, options, names, flush, work, ballast):
        self.options, self.work, self.ballast = options, work, ballast
        self.brokers = {name: BROKERS[name](work / flush / name, flush, options) for name in names}

    def give(self, name):
        """Stops all others; None stops all."""
        for other, broker in self.brokers.items():
            broker.freeze(other != name and not self.options.no_freeze)
        self.settle()

    def settle(self):
        # What one broker left dirty is not for the other's disk time.
        os.sync()
        if self.ballast:
            self.ballast.fill()
        time.sleep(0.5)

    def start_empty(self, broker):
        broker.kill()
        broker.empty()
        if self.ballast:
            # At once: the pages of the store go back to the host a moment after they got free.
            self.ballast.fill()
        return broker.launch()

    def restart_if_large(self, broker):
        if broker.is_cheap_to_start and broker.store_bytes() > STORE_BYTES_MAX:
            self.start_empty(broker)

    def load(self, broker, workload, seconds, warmup):
        """Runs one workload. Answers its report and, if it was not clean, why."""
        broker.check()
        if not broker.speaks_remoting:
            return broker.load(workload.nats, seconds, warmup)
        return self.weir_bench(broker, [*workload.words, "--create"], seconds, warmup)

    def weir_bench(self, broker, words, seconds, warmup):
        words = [*words, "--broker", broker.address, "--broker-pid", broker.pid,
                 "--store-dir", self.work, "--seconds", f"{seconds:.1f}", "--warmup", warmup]
        words += ["--binary"] if self.options.binary else []
        return generate(self.options.weir, words, seconds + warmup + PATIENCE)

    def load_and_weigh(self, broker, workload, seconds, warmup):
        """As `load`; writes are followed to the device: bytes of the log, and bytes on the disk."""
        if not workload.is_write:
            return *self.load(broker, workload, seconds, warmup), None
        position = position_of(broker)
        before = device_counters(self.work)
        report, error = self.load(broker, workload, seconds, warmup)
        os.sync()
        after = device_counters(self.work)
        ended = position_of(broker)
        if error or not before or not after or None in (position, ended):
            return report, error, None
        stored = ended - position if broker.speaks_remoting else report["stored_bytes"]
        return report, error, {"stored_bytes": stored, "device_bytes": after.written_bytes - before.written_bytes,
                               "device_read_bytes": after.read_bytes - before.read_bytes,
                               "device_flushes": after.flushes - before.flushes}

    def end(self):
        for broker in self.brokers.values():
            broker.kill()


def position_of(broker):
    """The length of the log; None when the broker is too busy to say, 0 when it has none."""
    try:
        return log_position(broker.address) if broker.speaks_remoting else 0
    except OSError:
        return None
