"""The command line of `bench/run`."""

import argparse
import pathlib

from .brokers import APACHE, BROKERS, WEIRMQ
from .workloads import QUICK, SCENARIOS, WORKLOADS


def parse_arguments(description):
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="comparison", help="part of the results' file name")
    parser.add_argument("--quick", action="store_true",
                        help="WeirMQ and Apache only, six workloads, two short rounds")
    parser.add_argument("--rounds", type=int, help="default 5; 2 with --quick")
    parser.add_argument("--seconds", type=float, help="measured in each run; default 6; 3 with --quick")
    parser.add_argument("--minutes", type=float,
                        help="for all rounds; none begins that would end later; default 45; 5.5 with --quick")
    parser.add_argument("--brokers", metavar="NAMES", help=f"comma-separated, of {', '.join(BROKERS)}; default all")
    parser.add_argument("--only", choices=BROKERS, help="measure one broker alone")
    parser.add_argument("--workloads", metavar="NAMES",
                        help=f"comma-separated, of {', '.join([*WORKLOADS, *SCENARIOS])}; default all")
    parser.add_argument("--binary", action="store_true", help="binary headers instead of JSON")
    parser.add_argument("--long", action="store_true", help="runs of a minute")
    parser.add_argument("--restart-gib", type=float, default=2, metavar="GIB", help="log of the workload `restart`")
    parser.add_argument("--jvm-warmup", type=float, default=48, metavar="SECONDS",
                        help="at load, before Apache is measured; below 45 its figures mean little")
    parser.add_argument("--heap", default="2g", help="of the JVM")
    parser.add_argument("--weir", type=pathlib.Path, help="this binary instead of building one")
    parser.add_argument("--weir-argument", action="append", default=[], metavar="WORD",
                        help="one more word for `weir standalone`; may be repeated")
    parser.add_argument("--no-freeze", action="store_true", help="let the other brokers run on")
    parser.add_argument("--no-ballast", action="store_true",
                        help="leave free memory free; see Ballast in harness/machine.py")
    parser.add_argument("--awake", action="store_true",
                        help="keep idle processors from sleeping; noise is not looked for then")
    parser.add_argument("--from", dest="source", type=pathlib.Path, metavar="FILE",
                        help="measure nothing; make table, plots and page from this raw file")
    parser.add_argument("--page", action="store_true", help="put table and plots into docs/benchmarks.md")
    options = parser.parse_args()
    quick = options.quick
    options.rounds = options.rounds or (2 if quick else 5)
    options.seconds = options.seconds or (3 if quick else 60 if options.long else 6)
    options.warmup = 1 if quick else 2
    options.minutes = options.minutes or (5.5 if quick else 45)
    options.workloads = chosen(parser, options.workloads, [*WORKLOADS, *SCENARIOS], QUICK if quick else None)
    options.brokers = [options.only] if options.only else chosen(
        parser, options.brokers, list(BROKERS), [APACHE, WEIRMQ] if quick else None)
    return options


def chosen(parser, text, known, default):
    names = text.split(",") if text else default or known
    for name in names:
        if name not in known:
            parser.error(f"there is no {name!r}, only {', '.join(known)}")
    return names
