"""What all brokers have in common: processes that are ours, and a store below one directory."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time


class NotMeasured(Exception):
    """A peer that cannot be built or started here; the text is the reason, for the table."""


class Broker:
    """One broker. Subclasses say `name`, `shown` and how to `launch` it.

    `extras` are processes beside the broker's own that it cannot do without.
    """

    name = shown = ""
    speaks_remoting = True
    # How often the start is measured; how long it takes at load until its figures stand still.
    readies, warmup_seconds = 10, 5
    is_cheap_to_start = True
    # Whether its memory is all there from the beginning, so that use does not show outside.
    has_fixed_heap = False

    def __init__(self, home, flush, options):
        self.home, self.flush, self.options = pathlib.Path(home), flush, options
        self.process, self.extras, self.frozen, self.address = None, [], False, None

    @classmethod
    def prepare(cls, options):
        """Builds or fetches what is missing. Raises `NotMeasured`."""

    def launch(self):
        """Starts on the store that is there and answers the seconds until it was ready."""
        raise NotImplementedError

    def start(self):
        """Starts on an empty store and answers the seconds until it was ready."""
        self.empty()
        return self.launch()

    def empty(self):
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)

    def spawn(self, command, environment=None, **streams):
        # A session of its own: a ^C in the terminal is for the script, which then ends it.
        return subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, "RUST_BACKTRACE": "0", **(environment or {})}, **streams)

    @property
    def pid(self):
        return self.process.pid

    def processes(self):
        return [process for process in [self.process, *self.extras] if process]

    def freeze(self, is_frozen):
        if self.process and self.frozen != is_frozen:
            for process in self.processes():
                process.send_signal(signal.SIGSTOP if is_frozen else signal.SIGCONT)
            self.frozen = is_frozen

    def kill(self):
        """Ends the processes at once, as `kill -9` does. The store stays."""
        for process in self.processes():
            process.kill()
            process.wait()
        self.process, self.extras, self.frozen = None, [], False

    def store_bytes(self):
        files = (entry for entry in self.home.rglob("*") if entry.is_file())
        return sum(entry.stat().st_blocks * 512 for entry in files)

    def check(self):
        """Raises `NotMeasured` when the broker is not there any more."""
        if self.process is None or self.process.poll() is not None:
            code = self.process.returncode if self.process else "nothing"
            raise NotMeasured(f"{self.shown} ended with {code}; it wrote: {self.last_words()}")

    def last_words(self):
        log = self.home / "output"
        return log.read_text(errors="replace").strip()[-1500:] if log.exists() else ""

    def wait_for_port(self, port, began, patience=120):
        while time.monotonic() - began < patience:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return time.monotonic() - began
            self.check()
            time.sleep(0.002)
        raise NotMeasured(f"{self.shown} does not answer after {patience} s")
