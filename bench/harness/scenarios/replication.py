"""What a slave costs: a group of two beside a broker alone, and a slave that is far behind."""

import contextlib
import re
import statistics
import threading
import time
import urllib.request

from ..brokers import NotMeasured, Weirmq
from ..machine import evict
from ..workloads import WORKLOADS
from .fill import fill

SHAPES = ["1x1", "64x1", "8x64"]
# Far from saturated, so that it shows the way of a message and not the queue before the processors.
LATENCY = ("latency", "--topic", "bench-latency", "-c", 64, "--rate", 5000, "--create")
# As many as keep the queue in memory of a cold pull's producer short.
PRODUCER = ("latency", "--topic", "bench-beside", "--rate", 1000, "--create")
SECRET = "only the replicas know"
CATCH_UP_BYTES, FAR_BEHIND_BYTES, STILL_BEHIND_BYTES = 4 << 30, 10 << 30, 256 << 20
# What `replication.catch_up_bytes_per_second` is set to where others must not wait.
CATCH_UP_RATE = 100_000_000
PAUSE, PATIENCE = 0.05, 180


class Replica(Weirmq):
    """A broker with its role by configuration; a slave is given its master."""

    role = "broker"

    def __init__(self, turns, names, name, flush, words, master):
        super().__init__(turns.work / name, flush, turns.options)
        self.role_words = ["--bind", "127.0.0.1", "-n", names.namesrv, *words]
        self.master = master

    def launch(self):
        if self.master:
            host, port = self.master.address.rsplit(":", 1)
            self.role_words = [*self.role_words, "--broker-id", "1", "--master", f"{host}:{int(port) + 1}"]
        return super().launch()


class Group:
    """Brokers at the NameServer of `names`, started in order and ended together with their stores."""

    def __init__(self, turns, names):
        self.turns, self.names, self.brokers = turns, names, []
        self.secret = turns.work / "secret"
        self.secret.write_text(SECRET)
        self.authentic = ["--replication-secret-file", self.secret]

    def start(self, name, flush, words, master=None):
        """A slave is ready once it has caught up."""
        replica = Replica(self.turns, self.names, name, flush, words, master)
        self.brokers.append(replica)
        replica.start()
        return replica

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for broker in reversed(self.brokers):
            broker.kill()
            broker.empty()


def replication(turns, broker):
    """Rates and times to the acknowledgement, by turns: a broker alone, and a master that waits for a slave
    on the same machine and the same disk. Medians of the rounds. Nobody is stopped: a master that was is not
    sure of its office, and brokers at rest take no CPU."""
    figures = {"reports": []}
    for flush in ("async", "sync"):
        with Group(turns, broker) as group:
            alone = group.start(f"alone-{flush}", flush, [])
            sync = [*group.authentic, "--replication", "sync", "--min-in-sync", "2"]
            master = group.start(f"master-{flush}", flush, sync)
            group.start(f"slave-{flush}", flush, sync, master)
            wait_for_slave(master, lag_max=0)
            kinds = {"alone": alone, "replicated": master}
            rates, medians = {}, {}
            for number in range(turns.options.rounds):
                for name in (*SHAPES, "5k/s"):
                    for kind, mine in kinds.items():
                        report = measure(turns, mine, name)
                        figures["reports"].append({"round": number + 1, "flush": flush, "load": name, "kind": kind,
                                                   "report": report})
                        key = (name, kind)
                        rates.setdefault(key, []).append(report["messages_per_second"])
                        medians.setdefault(key, []).append(report["latency"]["p50_us"])
            for name in SHAPES:
                for kind in kinds:
                    figures[f"{flush} {name} {kind}_messages_per_second"] = statistics.median(rates[name, kind])
                figures[f"{flush} {name}_percent_of_alone"] = 100 * statistics.median(
                    ours / theirs for ours, theirs in zip(rates[name, "replicated"], rates[name, "alone"]))
            for kind in kinds:
                figures[f"{flush} 5k/s {kind}_p50_us"] = statistics.median(medians["5k/s", kind])
            figures[f"{flush} 5k/s_added_p50_us"] = statistics.median(
                ours - theirs for ours, theirs in zip(medians["5k/s", "replicated"], medians["5k/s", "alone"]))
    return figures


def measure(turns, broker, name):
    turns.settle()
    words = LATENCY if name == "5k/s" else [*WORKLOADS[f"send {name}"].words, "--create"]
    report, error = turns.weir_bench(broker, words, turns.options.seconds, turns.options.warmup)
    if error:
        raise NotMeasured(f"{name}: {error}")
    return report


def catch_up(turns, broker):
    """How fast an empty slave gets a log, in the page cache and not, and what a producer feels of one that
    is 10 GiB behind, as fast as it goes and at a given rate."""
    figures = {"reports": {}}
    with Group(turns, broker) as group:
        master = group.start("master", "async", group.authentic)
        length = fill(turns, master, CATCH_UP_BYTES)
        for kind, is_cold in (("hot", False), ("cold", True)):
            turns.settle()
            if is_cold:
                evict(master.pid, master.home)
            began = time.monotonic()
            slave = group.start(f"slave-{kind}", "async", group.authentic, master)
            wait_for_slave(master, lag_max=0)
            figures[f"{kind}_megabytes_per_second"] = length / 1e6 / (time.monotonic() - began)
            end(group, slave)
        fill(turns, master, FAR_BEHIND_BYTES - length)
        for kind, rate in (("unbounded", 0), ("bounded", CATCH_UP_RATE)):
            master.kill()
            master.replication_settings = {"catch_up_bytes_per_second": rate}
            master.launch()
            turns.settle()
            evict(master.pid, master.home)
            quiet = produce(turns, master)
            threading.Thread(target=start_quietly, args=(group, f"slave-{kind}", master), daemon=True).start()
            wait_for_slave(master, lag_max=None)
            busy = produce(turns, master)
            if behind(master) < STILL_BEHIND_BYTES:
                raise NotMeasured(f"{kind}: the slave was there before the producer had been measured")
            figures[f"{kind}_p99_ms_alone"] = quiet["latency"]["p99_us"] / 1000
            figures[f"{kind}_p99_ms_beside"] = busy["latency"]["p99_us"] / 1000
            figures[f"{kind}_p99_ratio"] = busy["latency"]["p99_us"] / quiet["latency"]["p99_us"]
            figures["reports"][kind] = {"alone": quiet, "beside": busy}
            end(group, group.brokers[-1])
    return figures


def start_quietly(group, name, master):
    """It is killed before it is ready."""
    with contextlib.suppress(NotMeasured):
        group.start(name, "async", group.authentic, master)


def produce(turns, master):
    report, error = turns.weir_bench(master, PRODUCER, turns.options.seconds, 1)
    if error:
        raise NotMeasured(f"producer: {error}")
    return report


def end(group, slave):
    slave.kill()
    slave.empty()
    group.brokers.remove(slave)


def behind(master):
    """By how many bytes the slave is behind, as its master says; None while it has none."""
    with urllib.request.urlopen(f"http://{master.admin}/metrics", timeout=5) as answer:
        found = re.search(rb"^weirmq_replica_lag_bytes\{[^}]*\} (\d+)", answer.read(), re.MULTILINE)
    return int(found[1]) if found else None


def wait_for_slave(master, lag_max):
    """Until the slave is there and, unless that is None, behind by at most so many bytes."""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE:
        lag = behind(master)
        if lag is not None and (lag_max is None or lag <= lag_max):
            return
        time.sleep(PAUSE)
    raise NotMeasured(f"the slave was not there after {PATIENCE} s")
