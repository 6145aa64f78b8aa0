"""The raw file, and the table on the terminal."""

import datetime
import json
import os
import platform
import statistics
import subprocess
import time

from .brokers import WEIRMQ
from .comparison import FOREIGN_PERCENT_MAX
from .places import REPOSITORY, RESULTS


def write_results(found, rows):
    options = found.options
    RESULTS.mkdir(exist_ok=True)
    stem = f"{datetime.date.today().isoformat()}-{options.name}"
    path, count = RESULTS / f"{stem}.json", 1
    while path.exists():
        count += 1
        path = RESULTS / f"{stem}-{count}.json"
    document = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": output_of(["git", "-C", REPOSITORY, "describe", "--always", "--dirty"]),
        "java": output_of(["java", "-version"]).splitlines()[:1],
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "options": {key: value for key, value in vars(options).items() if key != "weir"},
        "seconds": round(time.monotonic() - found.began),
        "foreign_percent_max": FOREIGN_PERCENT_MAX,
        "failures": found.failures,
        "summary": [row.plain() for row in rows],
        "ready_seconds": found.ready,
        "idle": found.idle,
        "calibrations": found.calibrations,
        "runs": found.runs,
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def output_of(command):
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    except OSError:
        return ""
    return (done.stdout or done.stderr).strip() if done.returncode == 0 else ""


def print_summary(found, rows, path):
    shown = {name: broker.shown for name, broker in found.brokers.items()}
    print(f"\n1 KiB bodies, {found.options.flush} flush, {'binary' if found.options.binary else 'JSON'} headers, "
          f"{os.cpu_count()} cores shared with the load; median (range)\n")
    table = [("", "unit", *shown.values(), "better by", "goal", "met", "of echo")]
    for row in rows:
        ratio = f"{row.ratio:.1f}x" if row.ratio else ""
        met = {True: "yes", False: "NO", None: ""}[row.met]
        table.append((row.label, row.unit, *(row.shown(name) for name in shown), ratio, row.goal, met,
                      of_echo(found, row)))
    widths = [max(map(len, column)) for column in zip(*table)]
    for line in table:
        cells = [cell.ljust(width) if index < 2 else cell.rjust(width)
                 for index, (cell, width) in enumerate(zip(line, widths))]
        print("  ".join(cells).rstrip())
    noisy = sum("noisy" in run["marks"] for run in found.runs)
    marked = f"{noisy} of {len(found.runs)} runs noisy (others had more than {FOREIGN_PERCENT_MAX:g} % of the machine)"
    no_quiet = {(run["broker"], run["workload"]) for run in found.runs} - {
        (run["broker"], run["workload"]) for run in found.runs if not run["marks"]}
    print(f"\n{marked}; {'left out' if not no_quiet else 'left out where a quiet one was there'}.")
    for broker, workload in sorted(no_quiet):
        print(f"No quiet run: {shown[broker]}, {workload}.")
    for failure in found.failures:
        print(f"FAILED: {failure}")
    print(f"Raw results: {path.relative_to(REPOSITORY)}")


def of_echo(found, row):
    """WeirMQ's rate as a part of what a server that does nothing reaches."""
    rates = [each[row.label]["messages_per_second"] for each in found.calibrations if each.get(row.label)]
    ours = row.median(WEIRMQ)
    return f"{100 * ours / statistics.median(rates):.0f} %" if rates and ours else ""
