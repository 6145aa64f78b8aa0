"""The command line of `bench/run`."""

import argparse
import pathlib

from .brokers import BROKERS
from .workloads import WORKLOADS


def parse_arguments(description):
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="comparison", help="part of the results' file name")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--rounds", type=int, help="default 5; 2 with --quick")
    parser.add_argument("--seconds", type=float, help="measured in each run; default 6; 3 with --quick")
    parser.add_argument("--minutes", type=float, help="begin no round that would end later; default 19; 5.5 with --quick")
    parser.add_argument("--jvm-warmup", type=float, default=48, metavar="SECONDS",
                        help="at load, before Apache is measured; below 45 its figures mean little")
    parser.add_argument("--flush", choices=["async", "sync"], default="async")
    parser.add_argument("--binary", action="store_true", help="binary headers instead of JSON")
    parser.add_argument("--heap", default="2g", help="of the JVM")
    parser.add_argument("--workloads", help="comma-separated names; default all")
    parser.add_argument("--only", choices=BROKERS, help="measure one broker alone")
    parser.add_argument("--weir", type=pathlib.Path, help="this binary instead of building one")
    parser.add_argument("--weir-argument", action="append", default=[], metavar="WORD",
                        help="one more word for `weir standalone`; may be repeated")
    parser.add_argument("--no-freeze", action="store_true", help="let the other brokers run on")
    parser.add_argument("--no-ballast", action="store_true",
                        help="leave free memory free; see Ballast in harness/machine.py")
    options = parser.parse_args()
    short = options.quick
    options.rounds = options.rounds or (2 if short else 5)
    options.seconds = options.seconds or (3 if short else 6)
    options.warmup = 1 if short else 2
    options.minutes = options.minutes or (5.5 if short else 19)
    options.workloads = options.workloads.split(",") if options.workloads else list(WORKLOADS)
    for workload in options.workloads:
        if workload not in WORKLOADS:
            parser.error(f"no workload {workload!r}; there are {', '.join(WORKLOADS)}")
    return options
