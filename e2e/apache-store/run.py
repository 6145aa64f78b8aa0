#!/usr/bin/env python3
"""Apache's broker and WeirMQ take turns with one store directory, and each must serve what both wrote.

    run.py                          both versions of Apache's broker, side by side, the short set
    run.py --long                   also kill -9, many segments, expired segments and more turns
    run.py --only 5.5.0             one version
    run.py --weir PATH              that binary instead of the newest build
    run.py --keep                   keeps directories and logs, and says where

One line a check: `PASS version check seconds`, `FAIL version check reason` or `SKIP version check
why`; then the count. The exit code is 0 only if nothing failed.

The NameServer is WeirMQ's; brokers come and go on one port. Messages are written and
read by the official Java client 4.9.8 (client/). What is fetched and built goes to $WEIRMQ_CACHE,
else ~/.cache/weirmq/e2e. Apache's heap: $HEAP, default 512m.
"""

import argparse
import base64
import concurrent.futures
import fcntl
import hashlib
import json
import os
import pathlib
import queue
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("WEIRMQ_CACHE") or "~/.cache/weirmq/e2e").expanduser().resolve()
REPOSITORY = HERE.parent.parent
VERSIONS = ["4.9.4", "5.5.0"]
HEAP = os.environ.get("HEAP", "512m")
JAVA = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]
# Apache unmaps buffers through these.
OPENED = ["--add-opens=java.base/java.nio=ALL-UNNAMED", "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
          "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED"]
# 4.9 does not start without this file.
LOGBACK = '''<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d %p %c{1} %m%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="out"/></root>
</configuration>
'''
SEGMENT_BYTES = 1 << 20
# Source: MessageVersion.
RECORD_MAGICS = (0xDAA320A7, 0xDAA320AB)
# How long a program may take for anything that it is expected to do.
PATIENCE_SECONDS = 60


# --- builds ---------------------------------------------------------------------------------


def fetch(folder, *arguments):
    """Runs Maven on a folder's pom.xml unless that was done; answers where the result is."""
    out = CACHE / f"apache-store-{folder}"
    stamp_file = CACHE / f"apache-store-{folder}.stamp"
    digest = hashlib.sha256()
    for path in sorted((HERE / folder).rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    if not (stamp_file.exists() and stamp_file.read_text() == digest.hexdigest()):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        print(f"fetching {folder} ...", file=sys.stderr, flush=True)
        done = subprocess.run(["mvn", "-q", "-B", "-Dstyle.color=never", "-f", HERE / folder / "pom.xml",
                               *[argument.format(out=out) for argument in arguments]],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(f"mvn in {folder}:\n{done.stdout[-4000:]}")
        stamp_file.write_text(digest.hexdigest())
    return out


def build(versions):
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "apache-store.lock", "w") as lock:
        # Two runs share the folders.
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = fetch("client", "-Dbuild.dir={out}", "process-classes")
        jars = {version: fetch(f"broker-{version}", "dependency:copy-dependencies", "-DincludeScope=runtime",
                               "-DoutputDirectory={out}") for version in versions}
    return client, jars


def newest_weir():
    built = sorted((REPOSITORY / "target").glob("*/weir"), key=lambda path: path.stat().st_mtime)
    return built[-1] if built else sys.exit("there is no target/*/weir; build it or name one with --weir")


# --- processes ------------------------------------------------------------------------------

STARTED = []


def start(command, **options):
    # A group of its own, so that what the program starts can be ended with it.
    process = subprocess.Popen([str(word) for word in command], start_new_session=True, **options)
    STARTED.append(process)
    return process


def end_all(number, _frame):
    for process in STARTED:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    sys.exit(128 + number)


def is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return 1024 < port < 65536


def free_broker_port():
    """A port of which the ones that Apache opens beside it are free as well."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if all(is_free(port + beside) for beside in (-2, 0, 1)):
            return port


class Process:
    """A program that is running, or a broker between two lives."""

    def __init__(self, log):
        self.log = log
        self.process = None

    def launch(self, command, **options):
        with open(self.log, "ab") as log:
            self.process = start(command, stdin=options.pop("stdin", subprocess.DEVNULL),
                                 stdout=options.pop("stdout", log), stderr=log, **options)

    def stop(self):
        self.process.terminate()
        try:
            code = self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed(f"did not stop within {PATIENCE_SECONDS} s, see {self.log}") from None
        # Java ends with 128 + 15 when SIGTERM ended it in good order.
        if code not in (0, 143):
            raise Failed(f"ended with {code}, its log says: {self.tail()}")

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def tail(self):
        return self.log.read_text(errors="replace")[-1500:] if self.log.exists() else "nothing"


class NameServer(Process):
    def __init__(self, weir, work):
        super().__init__(work / "namesrv.log")
        self.launch([weir, "namesrv", "--bind", "127.0.0.1", "--namesrv-port", "0", "--admin-port", "0",
                     "--data", work / "namesrv"], stdout=subprocess.PIPE)
        self.address = ready_line(self)["namesrv"]


def ready_line(process):
    """What weir says once it accepts requests, as a dictionary."""
    lines = queue.Queue()

    def read(stream):
        for line in stream:
            lines.put(line.decode(errors="replace"))
        lines.put(None)
    threading.Thread(target=read, args=(process.process.stdout,), daemon=True).start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            line = lines.get(timeout=deadline - time.monotonic())
        except queue.Empty:
            break
        if line is None:
            break
        if line.startswith("ready "):
            return dict(word.split("=", 1) for word in line.split()[1:])
    raise Failed(f"did not start, its log says: {process.tail()}")


class Weir(Process):
    """WeirMQ's broker, told about the store by Apache's own broker.conf."""

    def __init__(self, binary, work, broker_conf):
        super().__init__(work / "weir.log")
        self.binary, self.broker_conf = binary, broker_conf

    def start(self):
        self.begin = self.log.stat().st_size if self.log.exists() else 0
        self.launch([self.binary, "broker", "-c", self.broker_conf, "--admin-port", "0"], stdout=subprocess.PIPE)
        ready_line(self)

    def said(self):
        """What it has logged since it was started last."""
        return self.log.read_bytes()[self.begin:].decode(errors="replace")


class Apache(Process):
    def __init__(self, jars, work, broker_conf, port):
        super().__init__(work / "apache.log")
        self.jars, self.work, self.broker_conf, self.port = jars, work, broker_conf, port
        (work / "conf").mkdir()
        (work / "conf" / "logback_broker.xml").write_text(LOGBACK)

    def start(self):
        environment = os.environ | {"ROCKETMQ_HOME": str(self.work)}
        self.launch(JAVA + OPENED + [f"-Xms{HEAP}", f"-Xmx{HEAP}", f"-Duser.home={self.work}", "-cp", f"{self.jars}/*",
                                     "org.apache.rocketmq.broker.BrokerStartup", "-c", self.broker_conf],
                    env=environment, cwd=self.work)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise Failed(f"did not start, its log says: {self.tail()}")


class Client(Process):
    """The Java program in client/."""

    def __init__(self, classes, work, namesrv):
        super().__init__(work / "client.log")
        self.launch(JAVA + ["-Xmx768m", f"-Duser.home={work}", "-Drocketmq.client.rebalance.waitInterval=500",
                            "-cp", f"{classes}/classes:{classes}/lib/*", "Main", namesrv],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, **request):
        self.process.stdin.write((json.dumps(request) + "\n").encode())
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"the client ended, its log says: {self.tail()}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(f"{request['do']}: {answer['error']}")
        return answer.get("ok")


# --- checks ---------------------------------------------------------------------------------


class Failed(Exception):
    """A check did not hold, or what it needs did not happen."""


class Report:
    def __init__(self):
        self.lock = threading.Lock()
        self.count = {"PASS": 0, "FAIL": 0, "SKIP": 0}

    def line(self, status, version, check, rest):
        with self.lock:
            self.count[status] += 1
            print(f"{status} {version} {check} {rest}", flush=True)


class Scenario:
    """One store directory and the brokers that take turns with it."""

    def __init__(self, version, name, report, weir, client, jars, work, extra=()):
        self.version, self.name, self.report = version, name, report
        self.work = work / f"{version}-{name}"
        self.store = self.work / "store"
        self.store.mkdir(parents=True)
        # One of its own: topics are made at whatever brokers a name server knows.
        self.namesrv = NameServer(weir, self.work)
        namesrv = self.namesrv.address
        port = free_broker_port()
        conf = self.work / "broker.conf"
        conf.write_text("\n".join([
            "brokerClusterName=DefaultCluster", f"brokerName=broker-{name}", "brokerId=0", "brokerIP1=127.0.0.1",
            "brokerIP2=127.0.0.1", f"listenPort={port}", f"namesrvAddr={namesrv}", f"storePathRootDir={self.store}",
            f"storePathCommitLog={self.store}/commitlog", "brokerRole=ASYNC_MASTER", "flushDiskType=ASYNC_FLUSH",
            "autoCreateTopicEnable=true", "autoCreateSubscriptionGroup=true", "fileReservedTime=48",
            f"mappedFileSizeCommitLog={SEGMENT_BYTES}", "maxMessageSize=65536", *extra]) + "\n")
        self.weir = Weir(weir, self.work, conf)
        self.apache = Apache(jars[version], self.work, conf, port)
        self.client = Client(client, self.work, namesrv)
        self.running = None

    def topic(self, name):
        return f"{self.name}-{name}"

    def check(self, name, act):
        """Runs one check and reports it; what follows relies on it, so a failure ends the scenario."""
        began = time.monotonic()
        try:
            result = act()
        except Failed as failure:
            self.report.line("FAIL", self.version, f"{self.name}:{name}", str(failure))
            raise
        self.report.line("PASS", self.version, f"{self.name}:{name}", f"{time.monotonic() - began:.1f}")
        return result

    def switch(self, broker, kill=False):
        """Stops the broker that runs and starts another."""
        self.halt(kill)
        self.running = broker
        broker.start()
        # TBW102 is in every broker: its route says that the name server knows this one by now.
        until(lambda: self.client.ask(do="dump", topics=["TBW102"]))

    def halt(self, kill=False):
        if self.running is not None:
            broker, self.running = self.running, None
            broker.kill() if kill else broker.stop()

    def send(self, kind, topic, name, count, **more):
        return self.client.ask(do="send", kind=kind, topic=self.topic(topic), name=name, count=count, **more)

    def dump(self, topics):
        return self.client.ask(do="dump", topics=[self.topic(topic) for topic in topics])

    def close(self):
        for process in (self.running, self.client, self.namesrv):
            if process is not None and process.process.poll() is None:
                process.kill()


def differences(expected, found):
    """What two dumps disagree about, in a few words; nothing when they are equal."""
    for place in sorted(set(expected) | set(found)):
        if place not in expected or place not in found:
            return f"{place} is only {'after' if place in found else 'before'}"
        before, after = expected[place], found[place]
        if (before["min"], before["max"]) != (after["min"], after["max"]):
            return f"{place}: {before['min']}..{before['max']} before, {after['min']}..{after['max']} after"
        for old, new in zip(before["messages"], after["messages"]):
            if old != new:
                keys = [key for key in old if old[key] != new.get(key)]
                return f"{place} {old['offset']}: " + ", ".join(f"{k} {old[k]} / {new.get(k)}" for k in keys)
        if len(before["messages"]) != len(after["messages"]):
            return f"{place}: {len(before['messages'])} messages before, {len(after['messages'])} after"
    return ""


def expect_equal(expected, found):
    difference = differences(expected, found)
    if difference:
        raise Failed(difference)


def until(act):
    """Does it again until it does not fail any more, within bounds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return act()
        except Failed:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)


def messages_of(dump):
    return [message for queue in dump.values() for message in queue["messages"]]


def contains(dump, sent):
    """Each message that was sent stands where its producer was told."""
    stored = {(m["topic"], m["queue"], m["offset"]): m for m in messages_of(dump)}
    for message in sent:
        for nth, (identity, unique) in enumerate(zip(message["id"].split(","), message["unique"].split(","))):
            found = stored.get((message["topic"], message["queue"], message["offset"] + nth))
            if found is None or (found["id"], found["unique"]) != (identity, unique):
                raise Failed(f"{message} was acknowledged and is not there")


def names(messages):
    """The names that `send` gave to messages, from their bodies."""
    return sorted(base64.b64decode(message["body"]).decode(errors="replace").split(" ")[0] for message in messages)


# --- turns ----------------------------------------------------------------------------------

TOPICS = ["plain", "keyed", "ordered", "batch", "uniform", "compressed", "large"]


def write_round(scenario, name, large=300):
    """Messages of every kind that any broker serves at once."""
    sent = scenario.send("plain", "plain", name, 40)
    sent += scenario.send("keyed", "keyed", name, 60)
    for number in range(2):
        sent += scenario.send("ordered", "ordered", f"{name}-q{number}", 15, queue=number)
    sent += scenario.send("batch", "batch", name, 24)
    sent += scenario.send("plain", "uniform", name, 50, bytes=500)
    sent += scenario.send("keyed", "compressed", name, 10, bytes=12_000)
    sent += scenario.send("large", "large", name, large, bytes=12_000)
    return sent


def turn(scenario, broker, name, before, kill=False, large=300, has_keys=True):
    """One broker after the other: all is still there, more is written; answers with all there is."""
    who = "weir" if broker is scenario.weir else "apache"
    dump = lambda: begins_of(scenario, scenario.dump(TOPICS))
    scenario.check(f"{name}-{who}-opens{'-after-kill' if kill else ''}", lambda: scenario.switch(broker, kill))
    if before is not None:
        act = lambda: expect_equal(before, dump())
        # Apache may still be deriving its queues when it accepts requests.
        scenario.check(f"{name}-{who}-serves-all", act if who == "weir" else lambda: until(act))
        sample = messages_of(before)[::29]
        if has_keys:
            scenario.check(f"{name}-{who}-finds-by-key-and-id", lambda: until(lambda: finds(scenario, sample)))

    def write():
        sent = write_round(scenario, name, large)
        after = dump()
        contains(after, sent)
        if before is not None:
            for place, old in before.items():
                # What was there is still there, and offsets go on where they were.
                if after[place]["messages"][:len(old["messages"])] != old["messages"]:
                    raise Failed(f"{place} has changed while it was written")
        return after
    return scenario.check(f"{name}-{who}-goes-on", write)


def finds(scenario, sample):
    missing = scenario.client.ask(do="find", messages=sample)
    if missing:
        raise Failed(f"{len(missing)} look-ups failed: {missing[0]}")


def consume(scenario, group, topic, count, seconds=PATIENCE_SECONDS, **more):
    return scenario.client.ask(do="consume", group=scenario.topic(group), topic=scenario.topic(topic), count=count,
                               seconds=seconds, **more)


def consume_all(scenario, group, topic, expected):
    """Consumes exactly these; duplicates of what a kill left uncommitted do not count."""
    received = names(consume(scenario, group, topic, len(expected)))
    if sorted(set(received)) != sorted(expected):
        missing = sorted(set(expected) - set(received))
        extra = sorted(set(received) - set(expected))
        raise Failed(f"received {len(received)} of {len(expected)}; missing {missing[:3]}, unexpected {extra[:3]}")


def there_and_back(scenario, kill=False):
    """Apache, WeirMQ, Apache, WeirMQ, with a consumer group, retries and delays over every border."""
    s = scenario
    first = turn(s, s.apache, "1", None)
    s.check("1-apache-group-consumes", lambda: consume_all(s, "group", "keyed", [f"1-{i}" for i in range(60)]))
    s.check("1-apache-group-has-offsets", lambda: until(lambda: expect_committed(s, 60)))
    s.send("plain", "failing", "1", 6)
    s.check("1-apache-consumer-fails", lambda: expect_names(
        consume(s, "failing", "failing", 6, level=4), [f"1-{i}" for i in range(6)]))
    s.send("delayed", "delayed", "1", 8, level=4)
    if s.version == "5.5.0":
        s.send("half", "half", "1", 3)
        s.send("timer", "timer", "1", 4, seconds=600)

    time.sleep(6 if kill else 0)
    second = turn(s, s.weir, "2", first, kill)
    s.check("2-weir-knows-group-offsets", lambda: expect_committed(s, 60))
    s.check("2-weir-group-goes-on", lambda: consume_all(s, "group", "keyed", [f"2-{i}" for i in range(60)]))
    s.check("2-weir-redelivers-failed", lambda: redelivered(consume(s, "failing", "failing", 6), "1"))
    s.check("2-weir-delivers-delayed", lambda: consume_all(s, "delayed", "delayed", [f"1-{i}" for i in range(8)]))
    if s.version == "5.5.0":
        s.check("2-weir-names-what-it-does-not-serve", lambda: said(s, "RMQ_SYS_TRANS_HALF_TOPIC", "rmq_sys_wheel_timer"))
        s.check("2-weir-delivers-none-of-it", lambda: nothing_of(s, ["half", "timer"]))
    s.check("2-weir-group-has-offsets", lambda: until(lambda: expect_committed(s, 120)))
    s.send("plain", "failing", "2", 6)
    consume(s, "failing", "failing", 6, level=4)
    s.send("delayed", "delayed", "2", 8, level=4)

    third = turn(s, s.apache, "3", second)
    s.check("3-apache-knows-group-offsets", lambda: expect_committed(s, 120))
    s.check("3-apache-group-goes-on", lambda: consume_all(s, "group", "keyed", [f"3-{i}" for i in range(60)]))
    s.check("3-apache-redelivers-failed", lambda: redelivered(consume(s, "failing", "failing", 6), "2"))
    s.check("3-apache-delivers-delayed", lambda: consume_all(s, "delayed", "delayed", [f"2-{i}" for i in range(8)]))

    s.check("3-apache-group-has-offsets", lambda: until(lambda: expect_committed(s, 180)))
    # A kill loses what Apache has not written yet; it writes offsets every 5 s.
    time.sleep(6 if kill else 0)
    turn(s, s.weir, "4", third, kill)
    s.check("4-weir-knows-group-offsets", lambda: expect_committed(s, 180))
    s.check("4-weir-group-goes-on", lambda: consume_all(s, "group", "keyed", [f"4-{i}" for i in range(60)]))
    s.check("4-weir-stops", s.halt)


def expect_committed(scenario, total):
    """Commits are one-way: a consumer that has ended may still have one under way."""
    found = scenario.client.ask(do="committed", group=scenario.topic("group"), topic=scenario.topic("keyed"))
    if sum(found.values()) != total:
        raise Failed(f"offsets are {found}, the group consumed {total} messages")


def expect_names(received, expected):
    if not set(expected) <= set(names(received)):
        raise Failed(f"received {names(received)}")


def redelivered(received, round_name):
    again = [message for message in received if message["reconsumeTimes"] > 0]
    if not {f"{round_name}-{i}" for i in range(6)} <= set(names(again)):
        raise Failed(f"received again only {names(again)}")


def said(scenario, *words):
    missing = [word for word in words if word not in scenario.weir.said()]
    if missing:
        raise Failed(f"its log does not name {missing}")


def nothing_of(scenario, topics):
    for topic in topics:
        dump = scenario.dump([topic])
        if messages_of(dump):
            raise Failed(f"serves {names(messages_of(dump))}")


def many_segments(scenario, export=False):
    """More segments than Apache 5.5 derives queues from on its own (commitLogRecoverMaxNum = 10)."""
    s = scenario
    first = turn(s, s.apache, "1", None, large=1200)
    second = turn(s, s.weir, "2", first)
    s.check("2-weir-stops", s.halt)
    if export:
        s.check("2-weir-exports-queues", lambda: weir_store(s, "export-queues", s.store, "--to", s.store))
    # Apache derives its index together with its queues, so with these it knows no keys of before.
    third = turn(s, s.apache, "3", second, has_keys=not export)
    turn(s, s.weir, "4", third)
    s.check("4-weir-stops", s.halt)


def closed_after_kill(scenario):
    """`weir store close` makes a directory that was left by kill -9 one that Apache may open."""
    s = scenario
    first = turn(s, s.apache, "1", None)
    second = turn(s, s.weir, "2", first)
    s.check("2-weir-is-killed", lambda: s.halt(kill=True))
    s.check("2-weir-store-close", lambda: weir_store(s, "close", s.store))
    third = turn(s, s.apache, "3", second)
    turn(s, s.weir, "4", third)
    s.check("4-weir-stops", s.halt)


def expired(scenario):
    """WeirMQ expires the oldest segments; the log does not begin at 0 any more."""
    s = scenario
    first = turn(s, s.apache, "1", None, large=700)
    turn(s, s.weir, "2", first)
    before = expire(s, s.weir, "3-weir")
    s.check("3-weir-stops", s.halt)
    # Where queues without messages go on stands nowhere but in these.
    s.check("3-weir-exports-queues", lambda: weir_store(s, "export-queues", s.store, "--to", s.store))
    fourth = turn(s, s.apache, "4", begins_of(s, before), has_keys=False)
    turn(s, s.weir, "5", fourth)
    s.check("5-weir-stops", s.halt)


def expired_by_apache(scenario):
    """The same by Apache, whose own next start shows what can be asked of a store of ours."""
    s = scenario
    turn(s, s.apache, "1", None, large=700)
    before = begins_of(s, expire(s, s.apache, "2-apache"), is_certain=False)
    s.check("3-apache-opens", lambda: s.switch(s.apache))
    s.check("3-apache-serves-all", lambda: until(lambda: expect_equal(before, begins_of(s, s.dump(TOPICS)))))
    fourth = turn(s, s.weir, "4", before)
    s.check("4-weir-stops", s.halt)
    s.check("4-weir-exports-queues", lambda: weir_store(s, "export-queues", s.store, "--to", s.store))
    turn(s, s.apache, "5", fourth, has_keys=False)


def overwritten(scenario, kill=False):
    """A power cut loses a page; Apache cuts its log there, which only moves its write position, and
    writes on over records that were whole. What stays of them behind the end is no damage."""
    s = scenario
    turn(s, s.apache, "1", None)
    s.check("1-apache-is-killed", lambda: s.halt(kill=True))
    s.check("1-a-page-is-lost", lambda: lose_record(s, 30))
    s.check("2-apache-opens", lambda: s.switch(s.apache))
    # Shorter than what was cut, so that old records stay.
    s.send("plain", "plain", "2", 8)
    before = s.dump(TOPICS)
    time.sleep(6 if kill else 0)
    s.check(f"3-weir-opens{'-after-kill' if kill else ''}", lambda: s.switch(s.weir, kill))
    s.check("3-weir-serves-all", lambda: expect_equal(before, s.dump(TOPICS)))
    s.check("3-weir-says-what-it-left-out", lambda: said(s, "they are cut"))
    third = turn(s, s.apache, "4", before)
    turn(s, s.weir, "5", third)
    s.check("5-weir-stops", s.halt)


def lose_record(scenario, count):
    """Takes the head off the record that many before the last one of the newest segment with any."""
    for segment in sorted((scenario.store / "commitlog").glob("0*"), reverse=True):
        with open(segment, "r+b") as file:
            begins, at = [], 0
            while True:
                file.seek(at)
                size, magic = struct.unpack(">iI", file.read(8))
                if size <= 0 or magic not in RECORD_MAGICS:
                    break
                begins.append(at)
                at += size
            if begins:
                if len(begins) <= count:
                    raise Failed(f"{segment} has only {len(begins)} records")
                file.seek(begins[-count - 1])
                file.write(bytes(40))
                return
    raise Failed("there are no records")


def expire(scenario, broker, name):
    """Has a broker expire all that it may; answers with what is left. Some queue has nothing left."""
    s = scenario
    text = s.weir.broker_conf.read_text()
    hours = ";".join(f"{hour:02}" for hour in range(24))
    s.weir.broker_conf.write_text(text.replace("fileReservedTime=48", f"fileReservedTime=0\ndeleteWhen={hours}"))
    s.check(f"{name}-opens", lambda: s.switch(broker))

    def until_expired():
        deadline = time.monotonic() + 200
        while len(list((s.store / "commitlog").glob("0*"))) > 2:
            if time.monotonic() > deadline:
                raise Failed("not everything expired within 200 s")
            time.sleep(1)
        left = s.dump(TOPICS)
        empty = [place for place, queue in left.items() if queue["max"] > 0 and not queue["messages"]]
        if not empty:
            raise Failed("every queue has messages left, so this would prove nothing about empty ones")
        return left
    left = s.check(f"{name}-expires", until_expired)
    s.weir.broker_conf.write_text(text)
    return left


def begins_of(scenario, dump, is_certain=None):
    """Apache 4.9 forgets where a queue without messages begins: its next start says 0, although it
    knows where the queue ends. 5.5 says so until it looks next. Then each queue counts from its first
    message on."""
    if scenario.version != "4.9.4" if is_certain is None else is_certain:
        return dump
    begin = lambda queue: queue["messages"][0]["offset"] if queue["messages"] else queue["max"]
    return {place: queue | {"min": begin(queue)} for place, queue in dump.items()}


def weir_store(scenario, *words):
    done = subprocess.run([str(word) for word in (scenario.weir.binary, "store", *words)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE_SECONDS)
    if done.returncode != 0:
        raise Failed(f"ended with {done.returncode}: {done.stdout[-500:]}")


# 5.5 has to be told to look at more than ten segments; 4.9 does not know the setting.
ALL_SEGMENTS = {"5.5.0": ["commitLogRecoverMaxNum=100000"]}
SHORT = {"clean": (there_and_back, {})}
LONG = SHORT | {
    "killed": (lambda scenario: there_and_back(scenario, kill=True), {}),
    "closed": (closed_after_kill, {}),
    "segments": (many_segments, ALL_SEGMENTS),
    "exported": (lambda scenario: many_segments(scenario, export=True), {}),
    "expired": (expired, {}),
    "expired-by-apache": (expired_by_apache, {}),
    "overwritten": (overwritten, {}),
    "overwritten-killed": (lambda scenario: overwritten(scenario, kill=True), {}),
}


def run(scenario, act):
    try:
        act(scenario)
    except Failed as failure:
        # A check has said so, unless it happened between two of them.
        print(f"{scenario.version} {scenario.name} ended: {str(failure)[:2000]}", file=sys.stderr)
        return False
    finally:
        scenario.close()
    return True


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weir", metavar="PATH", help="binary to start; default: the newest target/*/weir")
    parser.add_argument("--only", metavar="VERSION", choices=VERSIONS)
    parser.add_argument("--scenario", metavar="NAME", choices=sorted(LONG))
    parser.add_argument("--long", action="store_true", help="everything; takes several minutes")
    parser.add_argument("--keep", action="store_true", help="keep directories and logs, and say where")
    return parser.parse_args()


def main():
    options = arguments()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end_all)
    report = Report()
    versions = [options.only] if options.only else VERSIONS
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if missing:
        for version in versions:
            report.line("SKIP", version, "all", f"{missing[0]} is not installed")
        return 0
    weir = pathlib.Path(options.weir or newest_weir()).resolve()
    client, jars = build(versions)
    chosen = LONG if options.long or options.scenario else SHORT
    if options.scenario:
        chosen = {options.scenario: LONG[options.scenario]}
    work = pathlib.Path(tempfile.mkdtemp(prefix="weirmq-apache-store-"))
    try:
        def run_version(version):
            outcomes = []
            for name, (act, extra) in chosen.items():
                scenario = Scenario(version, name, report, weir, client, jars, work, extra.get(version, ()))
                outcomes.append(run(scenario, act))
            return all(outcomes)
        with concurrent.futures.ThreadPoolExecutor(len(versions)) as pool:
            is_whole = all(list(pool.map(run_version, versions)))
    finally:
        if options.keep:
            print(f"directories and logs are in {work}", file=sys.stderr)
        else:
            shutil.rmtree(work, ignore_errors=True)
    count = report.count
    print(f"{count['PASS']} passed, {count['FAIL']} failed, {count['SKIP']} skipped", flush=True)
    return 0 if is_whole and count["FAIL"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
