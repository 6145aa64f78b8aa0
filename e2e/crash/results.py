"""One JSON file of counts for all campaigns. A campaign that was stopped goes on where it was."""
import json
import os
import platform
import subprocess
import sys


class Results:
    """`path` holds `{campaign: {counts…}}` of one commit of the broker."""

    def __init__(self, path, campaign):
        self.path, self.campaign = path, campaign
        self.all = {}
        if path and os.path.exists(path):
            with open(path) as file:
                self.all = json.load(file)
        self.counts = self.all.setdefault(campaign, {})
        if self.counts.setdefault("commits", [commit()]) != [commit()]:
            counted = ", ".join(self.counts["commits"])
            sys.exit(f"{path} has the counts of {counted}; this is {commit()}, which takes a file of its own")
        self.counts["machine"] = f"{os.cpu_count()} cores, Linux {platform.release()}"

    def add(self, **numbers):
        for name, number in numbers.items():
            self.counts[name] = self.counts.get(name, 0) + number

    def note(self, name, value, keep=200):
        """Keeps single values, such as seeds of failures."""
        values = self.counts.setdefault(name, [])
        if len(values) < keep:
            values.append(value)

    def tally(self, name, key):
        tally = self.counts.setdefault(name, {})
        tally[str(key)] = tally.get(str(key), 0) + 1

    def get(self, name):
        return self.counts.get(name, 0)

    def write(self):
        if not self.path:
            return
        os.makedirs(os.path.dirname(os.path.abspath(self.path)), exist_ok=True)
        temporary = f"{self.path}.tmp"
        with open(temporary, "w") as file:
            json.dump(self.all, file, indent=1, sort_keys=True)
            file.write("\n")
        os.replace(temporary, self.path)


def commit():
    """The commit that the tests and, if it was built from here, the broker come from."""
    here = os.path.dirname(os.path.abspath(__file__))
    try:
        named = subprocess.run(["git", "-C", here, "describe", "--always", "--dirty"], check=True,
                               capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return named.stdout.strip()
