#!/usr/bin/env python3
"""Runs unmodified RocketMQ clients against one server and says what works.

    run.py                          start the newest build's `weir standalone`, end it afterwards
    run.py --weir PATH              the same with that binary
    run.py --namesrv HOST:PORT      use a server that runs already
    run.py --build-only             only fetch and build the client programs

One line a feature: `PASS client feature seconds`, `FAIL client feature reason` or
`SKIP client feature why`; then the count. The exit code is 0 only if nothing failed.
What is fetched and built goes to $WEIRMQ_CACHE, else ~/.cache/weirmq/e2e.

Each client program is told the name server, a prefix for its topics and groups, and the features
to run. It prints `RESULT feature ok seconds`, `RESULT feature fail reason` or
`RESULT feature skip why`, and its exit code does not matter.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from programs import CLIENTS, ensure_built, locked

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent.parent


def build(plan, report):
    """Builds what is missing, reports what cannot be built, and answers with the rest of the plan."""
    runnable = []
    with locked():
        for client, features in plan:
            try:
                missing = ensure_built(client)
            except RuntimeError as error:
                print(error, file=sys.stderr)
                for feature in features:
                    report(Outcome(client.name, feature, "FAIL", None, "build failed"))
                continue
            if missing:
                for feature in features:
                    report(Outcome(client.name, feature, "SKIP", None, missing))
            else:
                runnable.append((client, features))
    return runnable


# --- processes ------------------------------------------------------------------------------

STARTED = []
STOPPING = threading.Event()


def start(command, **options):
    # A group of its own, so that what the program starts can be ended with it.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, text=True, errors="replace",
                               start_new_session=True, **options)
    STARTED.append(process)
    return process


def stop_all(number, _frame):
    """Ends what runs when somebody ends this program."""
    STOPPING.set()
    for process in STARTED:
        end(process)
    sys.exit(128 + number)


def end(process, grace_seconds=5):
    """Ends a process that `start` started, and its group."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        try:
            os.killpg(process.pid, kind)
            process.wait(grace_seconds)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass


class Weir:
    """`weir standalone` on free ports with an empty data directory."""

    def __init__(self, binary, work, arguments):
        self.errors = work / "weir.stderr"
        with open(self.errors, "w") as errors:
            self.process = start(
                [str(binary), "standalone", "--data", str(work / "weir-data"), "--host", "127.0.0.1",
                 "--namesrv-port", "0", "--broker-port", "0", "--admin-port", "0", *arguments],
                stdout=subprocess.PIPE, stderr=errors)
        ready = queue.Queue()
        threading.Thread(target=self.read, args=(ready,), daemon=True).start()
        try:
            line = ready.get(timeout=30)
        except queue.Empty:
            line = None
        if line is None:
            self.stop()
            sys.exit(f"{binary} ended or was not ready in 30 s; it wrote:\n{tail(self.errors)}")
        self.namesrv = dict(word.split("=", 1) for word in line.split()[1:])["namesrv"]

    def read(self, ready):
        for line in self.process.stdout:
            if line.startswith("ready "):
                ready.put(line)
        ready.put(None)

    def ended(self):
        return self.process.poll()

    def stop(self):
        end(self.process)


def newest_weir():
    built = sorted((REPOSITORY / "target").glob("*/weir"), key=lambda path: path.stat().st_mtime)
    return built[-1] if built else sys.exit("there is no target/*/weir; build it or name one with --weir")


def tail(path, characters=2000):
    try:
        return path.read_text(errors="replace")[-characters:].strip()
    except OSError:
        return ""


# --- the matrix -----------------------------------------------------------------------------


class Outcome:
    def __init__(self, client, feature, status, seconds=None, reason=""):
        self.client, self.feature, self.status = client, feature, status
        self.seconds, self.reason = seconds, reason

    def __str__(self):
        words = [self.status, self.client, self.feature]
        if self.seconds is not None:
            words.append(f"{self.seconds:.1f}s")
        return " ".join(words + ([self.reason] if self.reason else []))


def run_client(client, features, namesrv, prefix, work, report):
    """Runs one client program and reports an outcome for each of its features."""
    if STOPPING.is_set():
        return
    home = pathlib.Path(tempfile.mkdtemp(prefix=f"{client.name}-", dir=work))
    errors = home / "stderr"
    open_features = list(features)
    # Clients write logs and broadcast offsets below the home directory.
    environment = {**os.environ, "HOME": str(home), "rocketmq.client.rebalance.waitInterval": "500",
                   "rocketmq.client.rebalance.minInterval": "200"}
    command = client.command(client.built)
    if command[0] == "java":
        command = command[:1] + [f"-Duser.home={home}"] + command[1:]
    with open(errors, "w") as stream:
        process = start(command + [namesrv, f"{prefix}-{client.name}".replace(".", "_"), ",".join(features)],
                        cwd=home, env=environment, stdout=subprocess.PIPE, stderr=stream)
    timer = threading.Timer(client.time_limit, end, [process])
    timer.start()
    began = time.monotonic()
    for line in process.stdout:
        words = line.split(None, 3)
        if len(words) < 3 or words[0] != "RESULT" or words[1] not in open_features:
            continue
        open_features.remove(words[1])
        rest = words[3].strip() if len(words) > 3 else ""
        if words[2] == "ok":
            report(Outcome(client.name, words[1], "PASS", float(rest)))
        else:
            report(Outcome(client.name, words[1], "SKIP" if words[2] == "skip" else "FAIL", None, rest))
    code = process.wait()
    timer.cancel()
    if open_features and not STOPPING.is_set():
        late = time.monotonic() - began >= client.time_limit
        why = f"ended after {client.time_limit} s" if late else f"exit code {code}"
        last = " | ".join(tail(errors, 400).splitlines()[-3:])
        for feature in open_features:
            report(Outcome(client.name, feature, "FAIL", None, f"no result, {why}: {last}"))


def run_all(plan, jobs, run):
    """Runs the programs, `jobs` at once and the patient ones beside them, then what must be alone."""
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool, concurrent.futures.ThreadPoolExecutor() as beside:
        futures = []
        for client, features in plan:
            together = [name for name in features if name not in client.alone]
            if together:
                futures.append((beside if client.patient else pool).submit(run, client, together))
        for future in futures:
            future.result()
    for client, features in plan:
        alone = [name for name in features if name in client.alone]
        if alone:
            run(client, alone)


def selected(clients, only):
    if not only:
        return clients
    wanted = only.split(",")
    chosen = [client for client in clients
              if any(client.name == name or client.name.startswith(name + "-") for name in wanted)]
    for name in wanted:
        if not any(client.name == name or client.name.startswith(name + "-") for client in clients):
            sys.exit(f"no client is named {name}; there are {', '.join(client.name for client in clients)}")
    return chosen


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--weir", metavar="PATH", help="binary to start; default: the newest target/*/weir")
    where.add_argument("--server", metavar="weir:PATH", help="the same as --weir PATH")
    where.add_argument("--namesrv", metavar="HOST:PORT", help="a server that runs already")
    parser.add_argument("--weir-argument", metavar="WORD", action="append", default=[],
                        help="one more word for `weir standalone`; may be repeated")
    parser.add_argument("--only", metavar="CLIENTS",
                        help="comma-separated names; java-4.9.8 includes java-4.9.8-tls")
    parser.add_argument("--feature", metavar="FEATURES", help="comma-separated names")
    parser.add_argument("--json", metavar="PATH", help="write outcomes and times there")
    parser.add_argument("--jobs", type=int, default=2, help="client programs at once; default 2")
    parser.add_argument("--build-only", action="store_true", help="fetch and build, run nothing")
    parser.add_argument("--keep", action="store_true", help="keep logs of clients and server, and say where")
    parser.add_argument("--list", action="store_true", help="say what there is, run nothing")
    options = parser.parse_args()
    if options.server:
        kind, _, path = options.server.partition(":")
        if kind != "weir" or not path:
            parser.error("--server takes weir:PATH")
        options.weir = path
    return options


def main():
    options = arguments()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop_all)
    clients = selected(CLIENTS, options.only)
    wanted = options.feature.split(",") if options.feature else None
    plan = [(client, [name for name in client.features if wanted is None or name in wanted])
            for client in clients]
    plan = [(client, features) for client, features in plan if features]
    if not plan:
        sys.exit("no client has these features")
    if options.list:
        for client, features in plan:
            print(client.name, " ".join(features))
        return 0

    outcomes = []
    lock = threading.Lock()

    def report(outcome):
        with lock:
            outcomes.append(outcome)
            print(outcome, flush=True)

    runnable = build(plan, report)
    if options.build_only:
        return 1 if any(outcome.status == "FAIL" for outcome in outcomes) else 0

    work = pathlib.Path(tempfile.mkdtemp(prefix="weirmq-e2e-"))
    server = None
    began = time.monotonic()
    try:
        namesrv = options.namesrv
        if namesrv is None:
            server = Weir(pathlib.Path(options.weir or newest_weir()).resolve(), work, options.weir_argument)
            namesrv = server.namesrv
        # Unique to this run: a server that runs already may hold the topics of earlier ones.
        prefix = f"e{int(time.time()) % 10_000_000:x}{os.getpid() % 4096:x}"
        run_all(runnable, options.jobs, lambda client, features: run_client(
            client, features, namesrv, prefix, work, report))
        if server and server.ended() is not None:
            report(Outcome("weir", "stays-up", "FAIL", None,
                           f"ended with {server.ended()}: {tail(server.errors, 400)}"))
    finally:
        if server:
            server.stop()
            server_words = tail(server.errors)
        if options.keep:
            print(f"logs are in {work}", file=sys.stderr)
        else:
            shutil.rmtree(work, ignore_errors=True)

    seconds = time.monotonic() - began
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(
            {"seconds": round(seconds, 1), "outcomes": [vars(outcome) for outcome in outcomes]}, indent=1) + "\n")
    if server and any(outcome.status == "FAIL" for outcome in outcomes):
        print(f"the server wrote: {server_words or 'nothing'}", file=sys.stderr)
    count = {status: sum(outcome.status == status for outcome in outcomes) for status in ("PASS", "FAIL", "SKIP")}
    print(f"{count['PASS']} passed, {count['FAIL']} failed, {count['SKIP']} skipped", flush=True)
    return 1 if count["FAIL"] else 0


if __name__ == "__main__":
    sys.exit(main())
