"""WeirMQ: NameServer and broker in one process, as `weir` alone starts them."""

import json
import os
import pathlib
import queue
import subprocess
import threading
import time

from ..places import REPOSITORY
from .process import Broker, NotMeasured


class Weirmq(Broker):
    name, shown = "weirmq", "WeirMQ"
    # More of the sections `broker.store` and `broker.replication`, by name.
    store_settings, replication_settings = {}, {}

    # More words of the command.
    role, role_words = "standalone", ["--host", "127.0.0.1", "--namesrv-port", "0"]

    def launch(self):
        words = [self.role, "--data", self.home / "data", "--broker-port", "0", "--admin-port", "0", *self.role_words]
        store = self.store_settings | ({"flush": "sync"} if self.flush == "sync" else {})
        config = self.home / "weir.toml"
        config.write_text(section("broker.store", store) + section("broker.replication", self.replication_settings))
        words += ["--config", config]
        with open(self.home / "output", "w") as output:
            began = time.monotonic()
            self.process = self.spawn([self.options.weir, *words, *self.options.weir_argument],
                                      stdout=subprocess.PIPE, stderr=output, text=True)
        lines = queue.Queue()
        threading.Thread(target=read, args=(self.process.stdout, lines), daemon=True).start()
        try:
            line, at = lines.get(timeout=60)
        except queue.Empty:
            line, at = None, 0
        if line is None:
            self.kill()
            raise NotMeasured(f"WeirMQ ended or was not ready in 60 s; it wrote: {self.last_words()}")
        words = dict(word.split("=", 1) for word in line.split()[1:] if "=" in word)
        self.address, self.admin, self.namesrv = words["broker"], words["admin"], words.get("namesrv")
        return at - began


def section(name, settings):
    """Of a configuration file; a list, number or text in JSON is the same in TOML."""
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in settings.items()]
    return "".join([f"[{name}]\n", *lines])


def read(output, lines):
    """Passes the line on that says the addresses, with the time at which it came."""
    for line in output:
        if line.startswith("ready "):
            lines.put((line, time.monotonic()))
    lines.put((None, 0))


def build_weir():
    cargo = os.environ.get("CARGO", "cargo")
    subprocess.run([cargo, "build", "--release", "-p", "weirmq-cli"], cwd=REPOSITORY, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target")
    return pathlib.Path(target) / "release" / "weir"
