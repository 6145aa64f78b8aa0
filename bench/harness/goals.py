"""The lines of the result, and what each has to reach."""

import statistics

from .brokers import APACHE, WEIRMQ
from .workloads import SENDS, WORKLOADS

HIGH, LOW = "higher", "lower"
RATIO_GOALS = {"send 1x1": 2.5, "send 16x1": 3, "send 64x1": 3, "send 8x64": 5}


class Row:
    """One line of the result: a figure of each broker, and the goal that it has to meet.

    `ratio` is a goal for WeirMQ beside Apache, `value` one for WeirMQ alone.
    """

    def __init__(self, label, values, better, unit, ratio=None, value=None):
        self.label, self.values, self.better, self.unit = label, values, better, unit
        self.ratio_goal, self.value_goal = ratio, value

    def median(self, name):
        values = self.values.get(name)
        return statistics.median(values) if values else None

    @property
    def ratio(self):
        """How many times better WeirMQ is than Apache."""
        ours, theirs = self.median(WEIRMQ), self.median(APACHE)
        if not ours or not theirs:
            return None
        return ours / theirs if self.better == HIGH else theirs / ours

    @property
    def goal(self):
        if self.ratio_goal:
            return f"{self.ratio_goal:g}x"
        return f"{'>=' if self.better == HIGH else '<='} {self.value_goal:g}" if self.value_goal else ""

    @property
    def met(self):
        if self.ratio_goal:
            return None if self.ratio is None else self.ratio >= self.ratio_goal
        ours = self.median(WEIRMQ)
        if self.value_goal is None or ours is None:
            return None
        return ours >= self.value_goal if self.better == HIGH else ours <= self.value_goal

    def shown(self, name):
        values = self.values.get(name)
        if not values:
            return "-"
        middle, low, high = (number(value) for value in (statistics.median(values), min(values), max(values)))
        return middle if low == high else f"{middle} ({low}-{high})"

    def plain(self):
        return {"label": self.label, "unit": self.unit, "better": self.better, "values": self.values,
                "medians": {name: self.median(name) for name in self.values}, "ratio": self.ratio,
                "goal": self.goal, "met": self.met}


def number(value):
    if value >= 1_000_000:
        return f"{value / 1e6:.2f}M"
    if value >= 10_000:
        return f"{value / 1e3:.0f}k"
    if value >= 1_000:
        return f"{value / 1e3:.1f}k"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def summarise(found):
    """The rows of everything that was measured."""
    def values(workload, pick):
        """Of each broker: quiet runs, or all clean ones when none was quiet."""
        figures = {}
        for name in found.brokers:
            clean = [run for run in found.runs
                     if (run["broker"], run["workload"]) == (name, workload) and "failed" not in run["marks"]]
            quiet = [run for run in clean if not run["marks"]]
            figures[name] = [pick(run["report"]) for run in quiet or clean]
        return figures

    rows = []
    for workload in SENDS:
        rows.append(Row(workload, values(workload, lambda report: report["messages_per_second"]),
                        HIGH, "msg/s", ratio=RATIO_GOALS[workload]))
    rows.append(Row("pull hot", values("pull hot", lambda report: report["messages_per_second"]),
                    HIGH, "msg/s", ratio=1.5))
    for field, label, goal in (("p50_us", "p50", 0.3), ("p99_us", "p99", 1.0), ("p99_9_us", "p99.9", None)):
        rows.append(Row(f"end to end {label}, 5k/s",
                        values("latency 5k/s", lambda report: report["end_to_end"][field] / 1000),
                        LOW, "ms", value=goal))
    for field, label in (("p50_us", "p50"), ("p99_us", "p99")):
        rows.append(Row(f"send {label}, 5k/s",
                        values("latency 5k/s", lambda report: report["latency"][field] / 1000), LOW, "ms"))
    for workload in WORKLOADS:
        rows.append(Row(f"broker CPU, {workload}",
                        values(workload, lambda report: report["broker_cpu_us_per_message"]),
                        LOW, "us/msg"))
    rows.append(Row("start to ready", {name: [1000 * value for value in times]
                                       for name, times in found.ready.items()}, LOW, "ms", value=100))
    rows.append(Row("idle RSS", {name: [idle["rss_bytes"] / 2**20] for name, idle in found.idle.items()},
                    LOW, "MiB", value=25))
    rows.append(Row("idle CPU", {name: [idle["cpu_percent"]] for name, idle in found.idle.items()},
                    LOW, "% of a core", value=0.2))
    return [row for row in rows if any(row.values.values())]
