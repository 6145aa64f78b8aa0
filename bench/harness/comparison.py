"""The course of a comparison: phases, warm-up, calibration and rounds, and what was found meanwhile."""

import dataclasses
import os
import shutil
import statistics
import time

from .brokers import APACHE, BROKERS, WEIRMQ, NotMeasured
from .generator import generate, is_noisy
from .machine import Ballast, Wakefulness, cpu_seconds, memory, say
from .scenarios import OF_WEIRMQ, SCENARIO_STEPS
from .turns import Turns
from .workloads import ECHOED, WORKLOADS

DISK_FREE_BYTES_MIN = 16 << 30
# After so many failures of a workload with a broker it is not tried again.
FAILURES_MAX = 2


@dataclasses.dataclass
class Found:
    """All that goes into the raw file; figures as they were measured."""

    brokers: dict
    not_measured: dict
    ready_seconds: dict = dataclasses.field(default_factory=dict)
    idle: dict = dataclasses.field(default_factory=dict)
    calibrations: list = dataclasses.field(default_factory=list)
    runs: list = dataclasses.field(default_factory=list)
    scenarios: list = dataclasses.field(default_factory=list)
    failures: list = dataclasses.field(default_factory=list)


class Comparison:
    def __init__(self, options, names, not_measured, work):
        self.options, self.names, self.work = options, names, work
        self.ballast = None if options.no_ballast else Ballast(work)
        self.wakefulness = Wakefulness() if options.awake else None
        self.found = Found({name: BROKERS[name].shown for name in names}, not_measured)
        self.turns = None

    def end(self):
        if self.turns:
            self.turns.end()
        if self.ballast:
            self.ballast.drop()
        if self.wakefulness:
            self.wakefulness.end()

    def run(self):
        phases = {flush: [name for name in self.options.workloads
                          if name in WORKLOADS and WORKLOADS[name].flush == flush]
                  for flush in ("async", "sync")}
        count = sum(len(workloads) for workloads in phases.values())
        for flush, workloads in phases.items():
            scenarios = [name for name in self.options.workloads if name in SCENARIO_STEPS and flush == "async"]
            if workloads or scenarios:
                share = len(workloads) / max(count, 1)
                self.phase(flush, workloads, scenarios, 60 * self.options.minutes * share)

    def phase(self, flush, workloads, scenarios, seconds):
        """Everything with brokers that flush in one way; rounds take about `seconds`."""
        names = [name for name in self.names if BROKERS[name].speaks_remoting or flush == "sync"]
        say(f"{flush} flush: {', '.join(BROKERS[name].shown for name in names)}")
        began = time.monotonic()
        self.turns = Turns(self.options, names, flush, self.work, self.ballast)
        self.start_all(measured=flush == "async")
        if flush == "async":
            self.measure_idle()
        self.warm_up(workloads or ["send 16x1"])
        longest = 0
        for number in range(1, self.options.rounds + 1):
            at = time.monotonic()
            left = began + seconds - at
            if workloads and left < longest:
                say(f"only {left:.0f} s left for this part: no more rounds")
                break
            if shutil.disk_usage(self.work).free < DISK_FREE_BYTES_MIN:
                say("the disk is too full for another round")
                break
            if workloads:
                self.round(number, workloads)
            longest = max(longest, time.monotonic() - at)
        if scenarios:
            self.calibrate("scenarios", workloads)
        for scenario in scenarios:
            self.scenario(scenario)
        self.turns.end()
        shutil.rmtree(self.work / flush, ignore_errors=True)

    def leave_out(self, name, reason):
        """Goes on without a broker that does not run; the report says so."""
        say(f"{BROKERS[name].shown} is measured no further: {reason}")
        self.found.not_measured[name] = str(reason)
        self.found.failures.append(f"{BROKERS[name].shown}: {reason}")
        self.turns.brokers.pop(name).kill()
        self.names = [other for other in self.names if other != name]

    def each(self, step):
        """Does `step` for each broker in its turn; one that fails is left out from then on."""
        for name, broker in list(self.turns.brokers.items()):
            try:
                self.turns.give(name)
                step(name, broker)
            except (NotMeasured, OSError) as error:
                self.leave_out(name, error)

    def start_all(self, measured):
        def step(name, broker):
            count = 1 if not measured else 2 if self.options.quick and name == APACHE else broker.readies
            times = []
            for _ in range(count):
                broker.kill()
                times.append(broker.start())
            if measured:
                self.found.ready_seconds[name] = times
                say(f"{broker.shown}: ready after {1000 * statistics.median(times):.0f} ms")

        self.each(step)

    def measure_idle(self):
        # Apache's broker is busy for some 20 s after its port answers; that is not idling.
        settle, watch = (20, 10) if self.options.quick else (25, 25)
        brokers = self.turns.brokers
        for broker in brokers.values():
            broker.freeze(False)
        time.sleep(settle)
        before = {name: cpu_seconds(broker.pid) for name, broker in brokers.items()}
        began = time.monotonic()
        time.sleep(watch)
        for name, broker in list(brokers.items()):
            try:
                broker.check()
            except NotMeasured as error:
                say(f"{error}; it is started again")
                self.found.failures.append(f"{broker.shown}, at rest: {error}")
                broker.kill()
                broker.start()
                continue
            used = cpu_seconds(broker.pid) - before[name]
            self.found.idle[name] = {
                "cpu_percent": 100 * used / (time.monotonic() - began),
                "rss_bytes": memory(broker.pid, "VmRSS"),
                "threads": len(os.listdir(f"/proc/{broker.pid}/task")),
            }
            say(f"{broker.shown}: idle {self.found.idle[name]['cpu_percent']:.2f} % CPU, "
                f"{self.found.idle[name]['rss_bytes'] / 2**20:.0f} MiB")

    def warm_up(self, workloads):
        """All shapes in turn: half a minute and more for a JVM, a moment for the rest."""
        def step(name, broker):
            say(f"{broker.shown}: {broker.warmup_seconds:.0f} s of warm-up")
            for workload in workloads:
                self.turns.load(broker, WORKLOADS[workload], broker.warmup_seconds / len(workloads), 0)
            broker.check()

        self.each(step)

    def round(self, number, workloads):
        self.calibrate(number, workloads)
        for workload in workloads:
            def step(name, broker):
                run = self.one(number, name, broker, workload)
                if run and run["marks"] == ["noisy"]:
                    say("  again, because the machine was not quiet")
                    self.turns.give(name)
                    self.one(number, name, broker, workload)

            self.each(step)

    def one(self, number, name, broker, workload):
        failed = [run for run in self.found.runs if run["marks"] == ["failed"]
                  and (run["broker"], run["workload"]) == (name, workload)]
        if len(failed) >= FAILURES_MAX:
            return None
        self.turns.restart_if_large(broker)
        report, error, written = self.turns.load_and_weigh(
            broker, WORKLOADS[workload], self.options.seconds, self.options.warmup)
        is_quiet = self.options.awake or not (report and is_noisy(report))
        marks = ["failed"] if error else [] if is_quiet else ["noisy"]
        if error:
            self.found.failures.append(f"{broker.shown}, {workload}, round {number}: {error}")
            say(f"  {self.found.failures[-1]}")
        run = {"round": number, "at": round(time.time()), "broker": name, "workload": workload, "marks": marks,
               "report": report, "written": written}
        self.found.runs.append(run)
        if report:
            say(f"  {number}  {workload:<14}  {broker.shown:<28}  {report['messages_per_second']:>12,.0f} msg/s"
                f"  {report['broker_cpu_us_per_message']:>6.2f} us{'  NOISY' if 'noisy' in marks else ''}")
        return run

    def scenario(self, scenario):
        def step(name, broker):
            if scenario in OF_WEIRMQ and name != WEIRMQ:
                return
            say(f"{scenario}: {broker.shown}")
            try:
                figures = SCENARIO_STEPS[scenario](self.turns, broker)
            except (NotMeasured, OSError) as error:
                self.found.failures.append(f"{broker.shown}, {scenario}: {error}")
                figures = {"error": str(error)}
            say("  " + ", ".join(f"{key} {value:,.4g}" if isinstance(value, float) else f"{key} {value}"
                                 for key, value in figures.items() if key != "reports"))
            self.found.scenarios.append({"scenario": scenario, "broker": name, **figures})

        self.each(step)

    def calibrate(self, number, workloads):
        self.turns.give(None)
        seconds = 1 if self.options.quick else 1.5
        found = {"round": number, "at": round(time.time())}
        for workload in (name for name in ECHOED if name in workloads):
            words = [*ECHOED[workload], "--seconds", seconds, "--warmup", 0.3]
            words += ["--binary"] if self.options.binary else []
            report, error = generate(self.options.weir, words, 60)
            found[workload] = None if error else report
        found["disk"], _ = generate(
            self.options.weir, ["disk", "--dir", self.work, "--buffered-mib", 256], 120)
        self.found.calibrations.append(found)
        echoes = [f"{found[name]['messages_per_second']:,.0f}" for name in ECHOED if found.get(name)]
        if found["disk"]:
            say(f"{number}: echo {' / '.join(echoes) or 'not measured'} per second, "
                f"fdatasync {found['disk']['fdatasync_per_second']:,.0f}/s, "
                f"buffered {found['disk']['buffered_megabytes_per_second']:,.0f} MB/s")
