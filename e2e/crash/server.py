"""A `weir standalone` process of our own: started, killed, watched while it ends."""
import os
import select
import signal
import subprocess
import tempfile
import time


class NotReady(Exception):
    """It ended, or said nothing, before it served."""


class Server:
    def __init__(self, weir, data, config):
        self.errors = tempfile.TemporaryFile()
        ports = ["--namesrv-port", "0", "--broker-port", "0", "--admin-port", "0"]
        arguments = [weir, "standalone", "--data", data, "--host", "127.0.0.1", "--log-level", "warn",
                     "--config", config, *ports]
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith("WEIRMQ_") and name not in ("RUST_LOG", "NAMESRV_ADDR")}
        self.begun = time.monotonic()
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=self.errors,
                                        stdin=subprocess.DEVNULL, env=environment)
        self.address = None

    def ready(self, patience=30):
        """Waits until it serves; says how long that took, in seconds."""
        text = b""
        deadline = self.begun + patience
        while b"\nready " not in b"\n" + text or not text.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                self.kill()
                raise NotReady(f"not ready within {patience} s: {self.stderr()}")
            more = os.read(self.process.stdout.fileno(), 4096)
            if not more:
                code = self.process.wait()
                raise NotReady(f"ended with {code}: {self.stderr()}")
            text += more
        line = next(line for line in text.decode().splitlines() if line.startswith("ready "))
        self.address = dict(word.split("=", 1) for word in line.split()[1:])["broker"]
        return time.monotonic() - self.begun

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read().decode(errors="replace").strip()

    def freeze(self):
        """Stops it in the middle of whatever it does. On return no thread runs its own code any more;
        one may still be inside a system call (state D), from which it will not come back.
        """
        self.process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if all(state in "TtDZ" for state in self._states()):
                return
        raise RuntimeError(f"threads did not stop: {self._states()}")

    def _states(self):
        folder = f"/proc/{self.process.pid}/task"
        states = []
        for task in os.listdir(folder):
            try:
                with open(f"{folder}/{task}/stat") as stat:
                    states.append(stat.read().rsplit(")", 1)[1].split()[0])
            except FileNotFoundError:
                continue  # The thread ended meanwhile.
        return states

    def kill(self):
        """SIGKILL, to this process and no other."""
        self.process.kill()
        return self._reap()

    def kill_and_see_if_ready(self):
        """SIGKILL before `ready` was called; whether it had said by then that it serves."""
        self.process.kill()
        was_ready = b"\nready " in b"\n" + self.process.stdout.read()
        self._reap()
        return was_ready

    def terminate(self, patience=30):
        """SIGTERM; answers the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait(patience)

    def wait(self, patience):
        """Its exit code; None, and killed, when it did not end by itself."""
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            return None
        self._reap()
        return code

    def _reap(self):
        code = self.process.wait()
        self.process.stdout.close()
        return code
