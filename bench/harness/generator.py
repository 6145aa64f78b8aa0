"""Runs the load generators, `weir bench` and the one for NATS, and reads their reports."""

import json
import os
import subprocess

# Of the machine, for other processes and for other virtual machines. Of NATS' load nobody knows.
FOREIGN_PERCENT_MAX = 10.0


def generate(weir, words, timeout):
    """Answers the report of `weir bench` and, if the run was not clean, why. Either may be None."""
    return run_json([weir, "bench", *words, "-o", "json"], timeout)


def run_json(command, timeout):
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                              timeout=timeout, env={**os.environ, "RUST_BACKTRACE": "0"})
    except subprocess.TimeoutExpired:
        return None, f"no end after {timeout:.0f} s"
    try:
        report = json.loads(done.stdout)
    except ValueError:
        report = None
    if done.returncode != 0 or report is None:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        return report, " ".join(lines)[-500:] or f"exit code {done.returncode}"
    return report, None


def is_noisy(report):
    """Whether others had too much of the machine meanwhile."""
    machine = report["usage"].get("machine")
    return machine is not None and machine["foreign_percent"] + machine["stolen_percent"] > FOREIGN_PERCENT_MAX
