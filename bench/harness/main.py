"""One call of `bench/run`."""

import json
import pathlib
import resource
import signal
import sys
import tempfile
import time

from . import report
from .brokers import BROKERS, WEIRMQ, NotMeasured, build_weir
from .comparison import Comparison
from .machine import say
from .options import parse_arguments
from .places import TARGET


def main(description):
    options = parse_arguments(description)
    if options.source:
        report.render(json.loads(options.source.read_text()), options.source, options.page)
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit("stopped; nothing was written"))
    # Ten thousand connections, at both ends.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    options.weir = options.weir or build_weir()
    TARGET.mkdir(exist_ok=True)
    names, not_measured = prepare(options)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="run-", dir=TARGET) as work:
        comparison = Comparison(options, names, not_measured, pathlib.Path(work))
        try:
            comparison.run()
        finally:
            comparison.end()
    document, path = report.write(options, comparison.found, time.monotonic() - began)
    report.render(document, path, options.page)
    return 1 if comparison.found.failures else 0


def prepare(options):
    """Builds what is missing. Answers the brokers that are there, and why others are not."""
    names, not_measured = [], {}
    for name, broker in BROKERS.items():
        if name not in options.brokers:
            not_measured[name] = "not asked for in this run"
            continue
        try:
            broker.prepare(options)
            names.append(name)
        except NotMeasured as reason:
            say(f"{broker.shown} is not measured: {reason}")
            not_measured[name] = str(reason)
    if WEIRMQ in options.brokers and WEIRMQ not in names:
        sys.exit("WeirMQ cannot be measured")
    return names, not_measured
