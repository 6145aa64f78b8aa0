"""What is fetched and built, and the programs that run: Apache's broker, WeirMQ, the client."""

import fcntl
import hashlib
import json
import os
import pathlib
import queue
import random
import shutil
import signal
import socket
import subprocess
import sys
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
# Without these Apache's 4.9 takes no messages from 90 % of the disk on, and deletes from 85 %.
DISK = [f"-Drocketmq.broker.{name}Ratio=0.99" for name in ("diskSpaceWarningLevel", "diskSpaceCleanForcibly")]
# 4.9 does not start without this file.
LOGBACK = '''<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d %p %c{1} %m%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="out"/></root>
</configuration>
'''
# How long a program may take for anything that it is expected to do.
PATIENCE_SECONDS = 120


class Failed(Exception):
    """A check did not hold, or what it needs did not happen."""


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
    """A port of which the ones that Apache opens beside it are free as well. Below those that systems
    give to connections: one of them could take it while no broker is there."""
    while True:
        port = random.randrange(12000, 32000)
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
        self.launch(JAVA + OPENED + DISK + [f"-Xms{HEAP}", f"-Xmx{HEAP}", f"-Duser.home={self.work}", "-cp", f"{self.jars}/*",
                                     "org.apache.rocketmq.broker.BrokerStartup", "-c", self.broker_conf],
                    env=environment, cwd=self.work)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        code = self.process.poll()
        what = f"does not listen after {PATIENCE_SECONDS} s" if code is None else f"ended with {code} at its start"
        raise Failed(f"{what}, its log says: {self.tail()}")


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
