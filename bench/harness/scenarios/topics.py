"""Ten thousand and a hundred thousand topics."""

import statistics

from ..brokers import NotMeasured
from ..machine import memory
from ..workloads import WORKLOADS

COUNTS = [10_000, 100_000]
CREATE_SECONDS_MAX = 30
SHAPE = ("-c", 8, "-n", 64)


def topics(turns, broker):
    """Makes topics of one queue on an empty store, sends to all of them by turns, and restarts.

    Whoever does not make all topics in half a minute goes on with those that are there. The rate
    is compared with that of one topic in the same minute.
    """
    figures = {}
    for count in COUNTS:
        if count > COUNTS[0] and figures[f"{COUNTS[0]}_created"] < COUNTS[0]:
            figures[f"{count}_left_out"] = f"{COUNTS[0]} topics were not made in {CREATE_SECONDS_MAX} s"
            break
        start_warm(turns, broker)
        one = rate(turns, broker, ("produce", "--topic", "bench-one", "--queues", 1, "--create"))
        many = run(turns, broker, ("topics", "--topic", "bench-many", "--queues", 1, "--topics", count,
                                   "--create-seconds", CREATE_SECONDS_MAX))
        after = rate(turns, broker, ("produce", "--topic", "bench-one", "--queues", 1))
        rss = memory(broker.pid, "VmRSS")
        broker.kill()
        ready = broker.launch()
        figures |= {
            f"{count}_created": many["created"]["topics"],
            f"{count}_created_per_second": many["created"]["per_second"],
            f"{count}_messages_per_second": many["messages_per_second"],
            f"{count}_percent_of_one": 100 * many["messages_per_second"] / statistics.mean([one, after]),
            f"{count}_rss_bytes": rss,
            f"{count}_restart_seconds": ready,
        }
        figures.setdefault("reports", {})[count] = {"many": many, "one": [one, after]}
    turns.start_empty(broker)
    return figures


def start_warm(turns, broker):
    turns.start_empty(broker)
    turns.settle()
    if not broker.is_cheap_to_start:
        turns.load(broker, WORKLOADS["send 64x1"], min(broker.warmup_seconds, 20), 0)
        turns.settle()


def run(turns, broker, words):
    report, error = turns.weir_bench(broker, [*words, *SHAPE], turns.options.seconds, turns.options.warmup)
    if error:
        raise NotMeasured(f"{words[0]}: {error}")
    return report


def rate(turns, broker, words):
    return run(turns, broker, words)["messages_per_second"]
