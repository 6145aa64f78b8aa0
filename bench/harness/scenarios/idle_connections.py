"""Ten thousand connections that do nothing but stay alive."""

import contextlib
import json
import statistics
import subprocess

from ..brokers import NotMeasured
from ..machine import memory
from ..workloads import WORKLOADS

CONNECTIONS = 10_000
SENDS = WORKLOADS["send 64x1"]
REPEATS = 2


def idle_connections(turns, broker):
    """What each costs in anonymous memory of the broker, and what 64 busy ones lose beside them.

    Brokers close what is silent for two minutes, so each connection asks a question a minute.
    """
    # Once: a broker that starts again meanwhile has none of the connections left.
    turns.restart_if_large(broker)
    alone = rates(turns, broker)
    before = memory(broker.pid, "RssAnon")
    with idle(turns, broker) as opened:
        held, rss = memory(broker.pid, "RssAnon"), memory(broker.pid, "VmRSS")
        beside = rates(turns, broker)
    return {
        "connections": opened["connections"],
        "opened_per_second": opened["connections"] / opened["seconds"],
        "bytes_per_connection": None if broker.has_fixed_heap else (held - before) / opened["connections"],
        "rss_bytes": rss,
        "rate_alone": statistics.median(alone),
        "rate_beside": statistics.median(beside),
        "loss_percent": 100 * (1 - statistics.median(beside) / statistics.median(alone)),
        "rates": {"alone": alone, "beside": beside},
    }


@contextlib.contextmanager
def idle(turns, broker):
    """Ten thousand connections as long as it lasts, all of which have to answer in the end."""
    words = [turns.options.weir, "bench", "idle", "--broker", broker.address, "--topic", "bench",
             "-c", CONNECTIONS]
    process = subprocess.Popen([str(word) for word in words], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        if not line:
            raise NotMeasured(f"idle connections: {process.stderr.read().strip()[-300:]}")
        opened = json.loads(line)
        yield opened
        ended, _ = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    alive = json.loads(ended)["alive"]
    if alive < opened["connections"]:
        raise NotMeasured(f"of {opened['connections']} idle connections only {alive} answered in the end")


def rates(turns, broker):
    found = []
    for _ in range(REPEATS):
        turns.settle()
        report, error = turns.load(broker, SENDS, turns.options.seconds, turns.options.warmup)
        if error:
            raise NotMeasured(f"sends beside idle connections: {error}")
        found.append(report["messages_per_second"])
    return found
