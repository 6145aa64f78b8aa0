"""The course of a comparison: who has the machine, for how long, and what was found meanwhile."""

import os
import shutil
import statistics
import time

from .brokers import APACHE, BROKERS
from .generator import generate
from .machine import Ballast, cpu_seconds, memory, say
from .workloads import SENDS, WORKLOADS

FOREIGN_PERCENT_MAX = 10.0
# A store that grew past this is thrown away between two workloads, if starting again is cheap.
STORE_BYTES_MAX = 6 << 30
DISK_FREE_BYTES_MIN = 12 << 30


class Comparison:
    def __init__(self, options, names, work):
        self.options, self.work = options, work
        self.brokers = {name: BROKERS[name](work / name, options.flush, options) for name in names}
        self.ballast = None if options.no_ballast else Ballast(work)
        self.ready, self.idle, self.runs, self.calibrations, self.failures = {}, {}, [], [], []
        self.began = time.monotonic()

    def end(self):
        for broker in self.brokers.values():
            broker.kill()

    def run(self):
        self.measure_ready()
        self.measure_idle()
        self.warm_up()
        longest = 0
        for number in range(1, self.options.rounds + 1):
            began = time.monotonic()
            left = self.began + 60 * self.options.minutes - began
            if left < longest:
                say(f"only {left:.0f} s left: no more rounds")
                break
            if shutil.disk_usage(self.work).free < DISK_FREE_BYTES_MIN:
                say("the disk is too full for another round")
                break
            self.round(number)
            longest = max(longest, time.monotonic() - began)

    def measure_ready(self):
        for name, broker in self.brokers.items():
            times = []
            self.give_turn(name)
            for _ in range(2 if self.options.quick and name == APACHE else broker.readies):
                broker.kill()
                times.append(broker.start())
            self.ready[name] = times
            say(f"{broker.shown}: ready after {1000 * statistics.median(times):.0f} ms")

    def measure_idle(self):
        # Apache's broker is busy for some 20 s after its port answers; that is not idling.
        settle, watch = (20, 10) if self.options.quick else (25, 25)
        for broker in self.brokers.values():
            broker.freeze(False)
        time.sleep(settle)
        before = {name: cpu_seconds(broker.pid) for name, broker in self.brokers.items()}
        began = time.monotonic()
        time.sleep(watch)
        for name, broker in self.brokers.items():
            broker.check()
            used = cpu_seconds(broker.pid) - before[name]
            self.idle[name] = {
                "cpu_percent": 100 * used / (time.monotonic() - began),
                "rss_bytes": memory(broker.pid, "VmRSS"),
                "threads": len(os.listdir(f"/proc/{broker.pid}/task")),
            }
            say(f"{broker.shown}: idle {self.idle[name]['cpu_percent']:.2f} % CPU, "
                f"{self.idle[name]['rss_bytes'] / 2**20:.0f} MiB")

    def warm_up(self):
        """All shapes in turn: half a minute and more for a JVM, a moment for the rest."""
        for name, broker in self.brokers.items():
            seconds = broker.warmup_seconds
            say(f"{broker.shown}: {seconds:.0f} s of warm-up")
            self.give_turn(name)
            for workload in WORKLOADS.values():
                self.load(broker, workload, seconds=seconds / len(WORKLOADS), warmup=0)

    def round(self, number):
        self.calibrate(number)
        for workload in self.options.workloads:
            for name in self.brokers:
                run = self.one(number, name, workload)
                if run["marks"] and run["marks"] != ["failed"] and self.has_time(number):
                    say("  again, because the machine was not quiet")
                    self.one(number, name, workload)

    def has_time(self, number):
        """Whether the rounds so far took no more than their share, so one run may be repeated."""
        used = time.monotonic() - self.began
        return used < 60 * self.options.minutes * (number + 0.5) / (self.options.rounds + 1)

    def one(self, number, name, workload):
        broker = self.brokers[name]
        self.restart_if_large(broker)
        self.give_turn(name)
        report, error = self.load(
            broker, WORKLOADS[workload], self.options.seconds, self.options.warmup)
        marks = []
        if error:
            marks.append("failed")
            self.failures.append(f"{broker.shown}, {workload}, round {number}: {error}")
            say(f"  {self.failures[-1]}")
        elif is_noisy(report):
            marks.append("noisy")
        run = {"round": number, "broker": name, "workload": workload, "marks": marks, "report": report}
        self.runs.append(run)
        if report:
            value = report["messages_per_second"]
            busy = report["usage"]["machine"]["foreign_percent"]
            say(f"  {number}  {workload:<12}  {broker.shown:<12}  {value:>10,.0f} msg/s"
                f"  others {busy:.0f} %{'  NOISY' if 'noisy' in marks else ''}")
        return run

    def give_turn(self, name):
        for other, broker in self.brokers.items():
            broker.freeze(other != name and not self.options.no_freeze)
        # What one broker left dirty is not for the other's disk time.
        os.sync()
        if self.ballast:
            self.ballast.fill()
        time.sleep(0.5)

    def restart_if_large(self, broker):
        if broker.is_cheap_to_start and broker.store_bytes() > STORE_BYTES_MAX:
            broker.kill()
            broker.empty()
            if self.ballast:
                # At once: the pages of the store go back to the host a moment after they got free.
                self.ballast.fill()
            broker.launch()

    def load(self, broker, workload, seconds, warmup):
        """Runs one workload. Answers its report and, if it was not clean, why."""
        broker.check()
        words = [*workload.words, "--broker", broker.address, "--broker-pid", broker.pid,
                 "--store-dir", self.work, "--create", "--seconds", f"{seconds:.1f}", "--warmup", warmup]
        words += ["--binary"] if self.options.binary else []
        return generate(self.options.weir, words, seconds + warmup + 180)

    def calibrate(self, number):
        self.give_turn(None)
        seconds = 1 if self.options.quick else 1.5
        found = {"round": number}
        for workload in SENDS:
            if workload in self.options.workloads:
                words = [*WORKLOADS[workload].echo, "--seconds", seconds, "--warmup", 0.3]
                words += ["--binary"] if self.options.binary else []
                report, error = generate(self.options.weir, words, 60)
                found[workload] = None if error else report
        found["disk"], _ = generate(
            self.options.weir, ["disk", "--dir", self.work, "--buffered-mib", 256], 120)
        self.calibrations.append(found)
        echoes = [f"{found[workload]['messages_per_second']:,.0f}" for workload in SENDS if found.get(workload)]
        if found["disk"]:
            say(f"round {number}: echo {' / '.join(echoes)} per second, "
                f"fdatasync {found['disk']['fdatasync_per_second']:,.0f}/s, "
                f"buffered {found['disk']['buffered_megabytes_per_second']:,.0f} MB/s")


def is_noisy(report):
    machine = report["usage"]["machine"]
    return machine["foreign_percent"] + machine["stolen_percent"] > FOREIGN_PERCENT_MAX
