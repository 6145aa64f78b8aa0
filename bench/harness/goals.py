"""The lines of the result, made from a raw file, and what each has to reach."""

import dataclasses
import statistics

from .brokers import APACHE, WEIRMQ
from .workloads import SYNC_SHAPES, WORKLOADS

HIGH, LOW = "higher", "lower"


@dataclasses.dataclass
class Goal:
    """`kind` is what WeirMQ is held against: `apache` and `ceiling` as a ratio, or a `value`."""

    kind: str
    limit: float

    def text(self, better):
        if self.kind == "apache":
            return f"{self.limit:g}x Apache"
        if self.kind == "ceiling":
            return f"{100 * self.limit:g} % of ceiling"
        return f"{'>=' if better == HIGH else '<='} {number(self.limit)}"

    def is_met(self, row):
        """None when one of the two was not measured."""
        if self.kind == "apache":
            return None if row.ratio is None else row.ratio >= self.limit
        if self.kind == "ceiling":
            return None if row.of_ceiling is None else row.of_ceiling >= self.limit
        ours = row.median(WEIRMQ)
        if ours is None:
            return None
        return ours >= self.limit if row.better == HIGH else ours <= self.limit


@dataclasses.dataclass
class Row:
    """One line: figures of each broker, and what the machine itself does (`ceiling`)."""

    section: str
    label: str
    unit: str
    better: str
    values: dict
    goals: list = dataclasses.field(default_factory=list)
    ceiling: list = dataclasses.field(default_factory=list)
    # Brokers of which every run of this failed.
    failed: set = dataclasses.field(default_factory=set)

    def median(self, name):
        values = self.values.get(name)
        return statistics.median(values) if values else None

    @property
    def ratio(self):
        """How many times better WeirMQ is than Apache."""
        return self.ratio_of(WEIRMQ)

    def ratio_of(self, name):
        ours, theirs = self.median(name), self.median(APACHE)
        if not ours or not theirs:
            return None
        return ours / theirs if self.better == HIGH else theirs / ours

    @property
    def of_ceiling(self):
        ours = self.median(WEIRMQ)
        return ours / statistics.median(self.ceiling) if self.ceiling and ours else None


def number(value):
    if abs(value) >= 1_000_000:
        return f"{value / 1e6:.2f}M"
    if abs(value) >= 10_000:
        return f"{value / 1e3:.0f}k"
    if abs(value) >= 1_000:
        return f"{value / 1e3:.1f}k"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def summarise(document):
    """The rows of everything that was measured, in the order of the page."""
    rows = [*sends(document), *reads(document), *latencies(document), *costs(document), *scenarios(document),
            *rest(document)]
    for row in rows:
        workload = "latency 5k/s" if row.section.startswith("Latency") else row.label
        row.failed = {run["broker"] for run in document["runs"]
                      if run["workload"] == workload and run["marks"] == ["failed"]}
    return [row for row in rows if any(row.values.values())]


def picked(document, workload, pick):
    """Of each broker: quiet runs, or all clean ones when none was quiet."""
    figures = {}
    for name in document["brokers"]:
        clean = [run for run in document["runs"]
                 if (run["broker"], run["workload"]) == (name, workload) and "failed" not in run["marks"]]
        quiet = [run for run in clean if not run["marks"]]
        found = [pick(run) for run in quiet or clean]
        figures[name] = [value for value in found if value is not None]
    return figures


def rate(run):
    return run["report"]["messages_per_second"]


SEND_GOALS = {
    "send 1x1": [Goal("apache", 3), Goal("ceiling", 0.85)],
    "send 16x1": [Goal("apache", 3.8), Goal("ceiling", 0.75)],
    "send 64x1": [Goal("apache", 3.8), Goal("ceiling", 0.75)],
    "send 8x64": [Goal("apache", 7)],
    "batch 32": [Goal("value", 600_000)],
    "sync send 1x1": [Goal("apache", 3.8), Goal("ceiling", 0.85)],
    "sync send 16x1": [Goal("apache", 3)],
    "sync send 64x1": [Goal("apache", 3)],
    "sync send 8x64": [Goal("apache", 5.5)],
}
CPU_GOALS = {"send 1x1": 14, "send 16x1": 13, "send 64x1": 13, "send 8x64": 2.5}


def sends(document):
    for workload in SEND_GOALS:
        section = "Sends, on disk when answered" if workload.startswith("sync") else "Sends"
        yield Row(section, workload, "msg/s", HIGH, picked(document, workload, rate),
                  SEND_GOALS[workload], ceiling(document, workload))


def ceiling(document, workload):
    """What the machine does in the same shape and minute: round trips of the echo server, and with
    synchronous flush at one request in flight one fdatasync after each."""
    rates = []
    for found in document["calibrations"]:
        if not found.get(workload):
            continue
        echo = found[workload]["messages_per_second"]
        if workload == "sync send 1x1":
            rates.append(1 / (1 / echo + found["disk"]["fdatasync"]["p50_us"] / 1e6))
        elif not workload.startswith("sync"):
            rates.append(echo)
    return rates


def reads(document):
    yield Row("Pulls", "pull hot", "msg/s", HIGH, picked(document, "pull hot", rate), [Goal("value", 1.3e6)])
    yield Row("Pulls", "pull tags", "entries/s", HIGH, picked(document, "pull tags", rate),
              [Goal("value", 30e6)])


def latencies(document):
    section, goals = "Latency at 5,000 messages a second", {"p50_us": 0.15, "p99_us": 0.5, "p99_9_us": 2}
    for field, label in (("p50_us", "p50"), ("p99_us", "p99"), ("p99_9_us", "p99.9")):
        yield Row(section, f"end to end {label}", "ms", LOW,
                  picked(document, "latency 5k/s", lambda run: run["report"]["end_to_end"][field] / 1000),
                  [Goal("value", goals[field])])
    for field, label in (("p50_us", "p50"), ("p99_us", "p99")):
        yield Row(section, f"acknowledgement {label}", "ms", LOW,
                  picked(document, "latency 5k/s", lambda run: run["report"]["latency"][field] / 1000))


def costs(document):
    for workload in WORKLOADS:
        goal = [Goal("value", CPU_GOALS[workload])] if workload in CPU_GOALS else []
        unit = "us/entry" if workload == "pull tags" else "us/msg"
        yield Row("Broker CPU", workload, unit, LOW,
                  picked(document, workload, lambda run: run["report"]["broker_cpu_us_per_message"]), goal)
    for workload in ("send 8x64", "batch 32", "sync send 1x1", "sync send 64x1", "sync send 8x64"):
        # One message at a time and a sync after each cannot share the blocks that they end in.
        goal = [] if workload == "sync send 1x1" else [Goal("value", 2.2)]
        yield Row("Bytes written to the device for each byte of log", workload, "x", LOW,
                  picked(document, workload, amplification), goal)


def amplification(run):
    written = run.get("written")
    return written["device_bytes"] / written["stored_bytes"] if written and written["stored_bytes"] else None


def scenario_row(document, scenario, field, section, label, unit, better, goals=(), scale=1.0):
    values = {name: [each[field] * scale for each in document["scenarios"]
                     if (each["scenario"], each["broker"]) == (scenario, name) and each.get(field) is not None]
              for name in document["brokers"]}
    return Row(section, label, unit, better, values, list(goals))


def scenarios(document):
    def row(*words, **more):
        return scenario_row(document, *words, **more)

    cold = "Pulls from the disk"
    yield row("pull cold", "megabytes_per_second", cold, "bodies", "MB/s", HIGH, [Goal("value", 800)])
    yield row("pull cold", "device_megabytes_per_second", cold, "read from the device", "MB/s", HIGH)
    yield row("pull cold", "producer_p99_ms_quiet", cold, "producer p99 alone", "ms", LOW)
    yield row("pull cold", "producer_p99_ms_beside", cold, "producer p99 beside", "ms", LOW)
    yield row("pull cold", "producer_p99_ratio", cold, "beside : alone", "x", LOW, [Goal("value", 2)])
    for count, queues in ((10_000, 1), (100_000, 1), (12_500, 8)):
        section = f"{count:,} topics" + (f" of {queues} queues" if queues > 1 else "")
        name = str(count) if queues == 1 else f"{count}x{queues}"
        is_large = count * queues == 100_000
        made = row("topics", f"{name}_created", section, "made in 30 s", "topics", HIGH,
                   [Goal("value", count)] if is_large else ())
        # What was reached with fewer topics meets no goal.
        limits = {"created": [Goal("value", 20_000)], "percent": [Goal("value", 85)], "rss": [Goal("value", 500)],
                  "restart": [Goal("value", 2)]} if is_large and made.median(WEIRMQ) == count else {}
        yield made
        yield row("topics", f"{name}_created_per_second", section, "creation", "topics/s", HIGH,
                  limits.get("created", ()))
        yield row("topics", f"{name}_messages_per_second", section, "send 8x64 to all by turns", "msg/s", HIGH)
        yield row("topics", f"{name}_percent_of_one", section, "of the rate of one topic", "%", HIGH,
                  limits.get("percent", ()))
        yield row("topics", f"{name}_dispatch_behind_seconds", section, "queues behind the log, in the end", "s", LOW)
        yield row("topics", f"{name}_rss_bytes", section, "memory", "MiB", LOW, limits.get("rss", ()), scale=2**-20)
        yield row("topics", f"{name}_restart_seconds", section, "restart after kill -9", "s", LOW,
                  limits.get("restart", ()))
    section = "kill -9 to the first accepted message"
    yield row("restart", "log_bytes", section, "log", "GiB", HIGH, scale=2**-30)
    yield row("restart", "hot_seconds", section, "files in memory", "s", LOW, [Goal("value", 0.5)])
    yield row("restart", "cold_seconds", section, "files not in memory", "s", LOW, [Goal("value", 1.5)])
    yield from segments(row)
    yield from replication(row)
    section = "10,000 idle connections"
    yield row("idle connections", "bytes_per_connection", section, "memory for each", "KiB", LOW,
              [Goal("value", 4)], scale=1 / 1024)
    yield row("idle connections", "rss_bytes", section, "memory of the broker", "MiB", LOW, scale=2**-20)
    yield row("idle connections", "loss_percent", section, "loss of send 64x1", "%", LOW, [Goal("value", 5)])


def segments(row):
    """Fresh beside recycled segments."""
    shapes = {"batch segments": ["batch 32"], "sync segments": SYNC_SHAPES}
    for scenario, names in shapes.items():
        for kind, limit in (("fresh", 2.2), ("recycled", 1.15)):
            for name in names:
                section = f"{name}, {kind} segments"
                rate = [Goal("value", 600_000)] if (name, kind) == ("batch 32", "recycled") else []
                written = [] if name == "sync send 1x1" else [Goal("value", limit)]
                yield row(scenario, f"{name} {kind}_messages_per_second", section, "rate", "msg/s", HIGH, rate)
                yield row(scenario, f"{name} {kind}_written", section, "written for each byte of log", "x", LOW, written)
                yield row(scenario, f"{name} {kind}_least", section, "least, in whole pages", "x", LOW)
                yield row(scenario, f"{name} {kind}_read", section, "read for each byte of log", "x", LOW)
            yield row(scenario, f"whole {kind}_written", f"{scenario}, the whole run",
                      f"written for each byte of log, {kind}", "x", LOW, [Goal("value", limit)])


def replication(row):
    """A slave on the same machine, which shares processors and disk with its master."""
    for flush in ("async", "sync"):
        section = f"Synchronous replication, {flush} flush"
        for shape in ("1x1", "64x1", "8x64"):
            for kind in ("alone", "replicated"):
                yield row("replication", f"{flush} {shape} {kind}_messages_per_second", section, f"{shape} {kind}",
                          "msg/s", HIGH)
            yield row("replication", f"{flush} {shape}_percent_of_alone", section, f"{shape}, of the rate alone", "%",
                      HIGH, [Goal("value", 60)])
        for kind in ("alone", "replicated"):
            yield row("replication", f"{flush} 5k/s {kind}_p50_us", section, f"acknowledgement p50 at 5,000/s, {kind}",
                      "us", LOW)
        yield row("replication", f"{flush} 5k/s_added_p50_us", section, "added to it", "us", LOW, [Goal("value", 80)])
    section = "An empty slave"
    for kind, words in (("hot", "in memory"), ("cold", "not in memory")):
        yield row("catch-up", f"{kind}_megabytes_per_second", section, f"catch-up, log {words}", "MB/s", HIGH,
                  [Goal("value", 500)])
    section = "A producer of 1,000/s beside a slave 10 GiB behind"
    for kind, words in (("unbounded", "no limit"), ("bounded", "100 MB/s")):
        yield row("catch-up", f"{kind}_p99_ms_alone", section, f"p99 alone, {words}", "ms", LOW)
        yield row("catch-up", f"{kind}_p99_ms_beside", section, f"p99 beside, {words}", "ms", LOW)
        yield row("catch-up", f"{kind}_p99_ratio", section, f"beside : alone, {words}", "x", LOW, [Goal("value", 2)])


def rest(document):
    section = "At rest"
    yield Row(section, "start to ready", "ms", LOW,
              {name: [1000 * value for value in times] for name, times in document["ready_seconds"].items()},
              [Goal("value", 50)])
    idle = document["idle"]
    yield Row(section, "memory", "MiB", LOW, {name: [each["rss_bytes"] / 2**20] for name, each in idle.items()},
              [Goal("value", 20)])
    yield Row(section, "CPU", "% of a core", LOW, {name: [each["cpu_percent"]] for name, each in idle.items()},
              [Goal("value", 0.1)])
