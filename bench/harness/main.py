"""One call of `bench/run`."""

import pathlib
import signal
import sys
import tempfile

from .brokers import BROKERS, build_weir
from .comparison import Comparison
from .goals import summarise
from .options import parse_arguments
from .places import TARGET
from .results import print_summary, write_results


def main(description):
    options = parse_arguments(description)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit("stopped; nothing was written"))
    options.weir = options.weir or build_weir()
    TARGET.mkdir(exist_ok=True)
    names = [options.only] if options.only else list(BROKERS)
    for name in names:
        BROKERS[name].prepare(options)
    with tempfile.TemporaryDirectory(prefix="run-", dir=TARGET) as work:
        found = Comparison(options, names, pathlib.Path(work))
        try:
            found.run()
        finally:
            found.end()
    rows = summarise(found)
    print_summary(found, rows, write_results(found, rows))
    return 1 if found.failures else 0
