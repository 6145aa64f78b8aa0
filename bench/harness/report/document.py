"""The raw file: every run as it was reported, and what it was made with."""

import datetime
import json
import os
import platform
import subprocess

from ..generator import FOREIGN_PERCENT_MAX
from ..places import REPOSITORY, RESULTS


def write(options, found, seconds):
    """Answers the document and where it lies; an older file of the same name stays."""
    RESULTS.mkdir(exist_ok=True)
    stem = f"{datetime.date.today().isoformat()}-{options.name}"
    path, count = RESULTS / f"{stem}.json", 1
    while path.exists():
        count += 1
        path = RESULTS / f"{stem}-{count}.json"
    kept = {key: value for key, value in vars(options).items() if key not in ("weir", "source", "page")}
    document = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": output_of(["git", "-C", REPOSITORY, "describe", "--always", "--dirty"]),
        "java": output_of(["java", "-version"]).splitlines()[:1],
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "options": kept,
        "seconds": round(seconds),
        "foreign_percent_max": FOREIGN_PERCENT_MAX,
        **vars(found),
    }
    # Where this copy of the repository lies is nobody's business.
    text = json.dumps(document, indent=1).replace(str(REPOSITORY) + "/", "")
    path.write_text(text + "\n")
    return json.loads(text), path


def output_of(command):
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    except OSError:
        return ""
    return (done.stdout or done.stderr).strip() if done.returncode == 0 else ""
