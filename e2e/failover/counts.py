"""What several runs with the same settings found: counts, times, and what each run was."""
import contextlib
import fcntl
import json
import os
import statistics


class Counts:
    """A JSON file that runs add to, also several at a time. Without a path it is forgotten."""

    def __init__(self, path, settings):
        self.path, self.settings = path, settings
        self.found = settings | {"runs": [], "sent": 0, "acknowledged": 0, "lost": 0, "wrong": 0,
                                 "outageSeconds": {}, "deliverySeconds": {}}
        with self._held():
            pass

    def count(self, fault):
        """How many of these have been done."""
        with self._held():
            clients = self.found["outageSeconds"].get(fault, {})
            return max((client["count"] for client in clients.values()), default=0)

    def add(self, run, outages, delays):
        """`run` has the counts, and what else there is to say; the others are lists of seconds by name of what and client."""
        with self._held() as write:
            self.found["runs"].append(run)
            for name in ("sent", "acknowledged", "lost", "wrong"):
                self.found[name] += run[name]
            for name, measured in (("outageSeconds", outages), ("deliverySeconds", delays)):
                for (what, client), times in measured.items():
                    each = self.found[name].setdefault(what, {}).setdefault(client, {"all": []})
                    each["all"] = sorted([*each["all"], *(round(time, 3) for time in times)])
                    each["count"], each["p50"], each["p99"] = figures(each["all"])
            write()

    @contextlib.contextmanager
    def _held(self):
        """Reads what the file has by now, and keeps others from it; yields what writes it."""
        if not self.path:
            yield lambda: None
            return
        with open(self.path + ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.exists(self.path):
                with open(self.path) as file:
                    found = json.load(file)
                other = [name for name, value in self.settings.items() if found.get(name) != value]
                if other:
                    raise SystemExit(f"{self.path} is of runs with other settings ({', '.join(other)}); name another file")
                self.found = found
            yield self._write

    def _write(self):
        with open(self.path + ".new", "w") as file:
            json.dump(self.found, file, indent=1)
        os.replace(self.path + ".new", self.path)


def figures(times):
    """How many, the median, and the 99th of a hundred; `times` are sorted."""
    return len(times), round(statistics.median(times), 3), times[min(len(times) - 1, int(len(times) * 0.99))]
