"""Runs `weir bench` and reads its report."""

import json
import os
import subprocess


def generate(weir, words, timeout):
    """Answers the report and, if the run was not clean, why. Either may be None."""
    command = [str(weir), "bench", *(str(word) for word in words), "-o", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout,
                              env={**os.environ, "RUST_BACKTRACE": "0"})
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
