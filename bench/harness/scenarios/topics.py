"""Ten thousand and a hundred thousand topics."""

import statistics

from ..brokers import NotMeasured
from ..machine import memory
from ..workloads import WORKLOADS

# Topics and queues of each.
SHAPES = [(10_000, 1), (100_000, 1), (12_500, 8)]
CREATE_SECONDS_MAX = 30
LOAD = ("-c", 8, "-n", 64)


def topics(turns, broker):
    """Makes topics on an empty store, registered at a NameServer, sends to all their queues by turns,
    and restarts.

    Whoever does not make all topics in half a minute goes on with those that are there. The rate
    is compared with that of one queue in the same minute.
    """
    figures = {}
    for count, queues in SHAPES:
        name = shape_name(count, queues)
        fewest = shape_name(*SHAPES[0])
        if name != fewest and figures[f"{fewest}_created"] < SHAPES[0][0]:
            figures[f"{name}_left_out"] = f"{fewest} topics were not made in {CREATE_SECONDS_MAX} s"
            continue
        start_warm(turns, broker)
        one = rate(turns, broker, ("produce", "--topic", "bench-one", "--queues", 1, "--create"))
        many = run(turns, broker, ("topics", "--topic", "bench-many", "--queues", queues, "--topics", count,
                                   "--create-seconds", CREATE_SECONDS_MAX))
        after = rate(turns, broker, ("produce", "--topic", "bench-one", "--queues", 1))
        rss = memory(broker.pid, "VmRSS")
        broker.kill()
        ready = broker.launch()
        figures |= {
            f"{name}_created": many["created"]["topics"],
            f"{name}_created_per_second": many["created"]["per_second"],
            f"{name}_messages_per_second": many["messages_per_second"],
            f"{name}_percent_of_one": 100 * many["messages_per_second"] / statistics.mean([one, after]),
            f"{name}_dispatch_behind_seconds": many["dispatch_behind_seconds"],
            f"{name}_rss_bytes": rss,
            f"{name}_restart_seconds": ready,
        }
        figures.setdefault("reports", {})[name] = {"many": many, "one": [one, after]}
    turns.start_empty(broker)
    return figures


def shape_name(count, queues):
    return str(count) if queues == 1 else f"{count}x{queues}"


def start_warm(turns, broker):
    turns.start_empty(broker)
    turns.settle()
    if not broker.is_cheap_to_start:
        turns.load(broker, WORKLOADS["send 64x1"], min(broker.warmup_seconds, 20), 0)
        turns.settle()


def run(turns, broker, words):
    report, error = turns.weir_bench(broker, [*words, *LOAD], turns.options.seconds, turns.options.warmup)
    if error:
        raise NotMeasured(f"{words[0]}: {error}")
    return report


def rate(turns, broker, words):
    return run(turns, broker, words)["messages_per_second"]
