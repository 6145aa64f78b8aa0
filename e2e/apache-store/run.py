#!/usr/bin/env python3
"""Apache's broker and WeirMQ take turns with one store directory, and each must serve what both wrote.

    run.py                          both versions of Apache's broker, side by side, the short set
    run.py --long                   also kill -9, many segments, expired segments and more turns
    run.py --only 5.5.0             one version
    run.py --weir PATH              that binary instead of the newest build
    run.py --keep                   keeps directories and logs, and says where

One line a check: `PASS version check seconds`, `FAIL version check reason` or `SKIP version check
why`; then the count. The exit code is 0 only if nothing failed.

The NameServer is WeirMQ's; brokers come and go on one port. Messages are written and
read by the official Java client 4.9.8 (client/). What is fetched and built goes to $WEIRMQ_CACHE,
else ~/.cache/weirmq/e2e. Apache's heap: $HEAP, default 512m.
"""

import argparse
import concurrent.futures
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

from programs import VERSIONS, Failed, build, end_all, newest_weir
from scenario import Report, Scenario
from scenarios import LONG, SHORT


def run(scenario, act):
    try:
        act(scenario)
    except Failed as failure:
        # A check has said so, unless it happened between two of them.
        print(f"{scenario.version} {scenario.name} ended: {str(failure)[:2000]}", file=sys.stderr)
        return False
    finally:
        scenario.close()
    return True


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weir", metavar="PATH", help="binary to start; default: the newest target/*/weir")
    parser.add_argument("--only", metavar="VERSION", choices=VERSIONS)
    parser.add_argument("--scenario", metavar="NAME", choices=sorted(LONG))
    parser.add_argument("--long", action="store_true", help="everything; takes several minutes")
    parser.add_argument("--keep", action="store_true", help="keep directories and logs, and say where")
    return parser.parse_args()


def main():
    options = arguments()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end_all)
    report = Report()
    versions = [options.only] if options.only else VERSIONS
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if missing:
        for version in versions:
            report.line("SKIP", version, "all", f"{missing[0]} is not installed")
        return 0
    weir = pathlib.Path(options.weir or newest_weir()).resolve()
    here = ["git", "-C", str(pathlib.Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(here, capture_output=True, text=True).stdout.strip() or "unknown"
    print(f"# commit {commit}, profile {weir.parent.name}", flush=True)
    client, jars = build(versions)
    chosen = LONG if options.long or options.scenario else SHORT
    if options.scenario:
        chosen = {options.scenario: LONG[options.scenario]}
    work = pathlib.Path(tempfile.mkdtemp(prefix="weirmq-apache-store-"))
    try:
        def run_version(version):
            outcomes = []
            for name, (act, extra) in chosen.items():
                scenario = Scenario(version, name, report, weir, client, jars, work, extra.get(version, ()))
                outcomes.append(run(scenario, act))
            return all(outcomes)
        with concurrent.futures.ThreadPoolExecutor(len(versions)) as pool:
            is_whole = all(list(pool.map(run_version, versions)))
    finally:
        if options.keep:
            print(f"directories and logs are in {work}", file=sys.stderr)
        else:
            shutil.rmtree(work, ignore_errors=True)
    count = report.count
    print(f"{count['PASS']} passed, {count['FAIL']} failed, {count['SKIP']} skipped", flush=True)
    return 0 if is_whole and count["FAIL"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
