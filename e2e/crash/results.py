"""One JSON file of counts for all campaigns. A campaign that was stopped goes on where it was."""
import json
import os
import platform
import subprocess


class Results:
    """`path` holds `{campaign: {counts…}}`; counts of another commit of the broker are kept apart."""

    def __init__(self, path, campaign):
        self.path, self.campaign = path, campaign
        self.all = {}
        if path and os.path.exists(path):
            with open(path) as file:
                self.all = json.load(file)
        self.counts = self.all.setdefault(campaign, {})
        commits = self.counts.setdefault("commits", [])
        if commit() not in commits:
            commits.append(commit())
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
