"""What is measured in every round, as words of `weir bench`, and the names of what is measured once."""

import dataclasses

LATENCY_RATE = 5000
HOT_MESSAGES = 200_000
TAGGED_MESSAGES = 400_000


@dataclasses.dataclass(frozen=True)
class Workload:
    """One run of the generator, against brokers that flush as `flush` says.

    `echo` are the words of the calibration against a server that only answers, and `nats` are
    connections and messages in flight on each, where there is such a thing.
    """

    words: tuple
    flush: str = "async"
    echo: tuple | None = None
    nats: tuple | None = None
    is_write: bool = False


def send(connections, in_flight, flush="async", batch=1):
    shape = ("-c", connections, "-n", in_flight)
    batches = ("--batch", batch) if batch > 1 else ()
    nats = (connections, in_flight) if flush == "sync" else None
    return Workload(("produce", "--topic", "bench", *shape, *batches), flush,
                    None if batches else ("echo", *shape), nats, is_write=True)


SHAPES = {"1x1": (1, 1), "16x1": (16, 1), "64x1": (64, 1), "8x64": (8, 64)}

SYNC_SHAPES = [f"sync send {name}" for name in SHAPES]

# Shapes are connections x requests in flight on each.
WORKLOADS = {
    **{f"send {name}": send(*shape) for name, shape in SHAPES.items()},
    "batch 32": send(4, 1, batch=32),
    "latency 5k/s": Workload(("latency", "--topic", "bench-latency", "--rate", LATENCY_RATE)),
    "pull hot": Workload(("consume", "--topic", "bench-hot", "--messages", HOT_MESSAGES)),
    "pull tags": Workload(("consume", "--topic", "bench-tags", "--messages", TAGGED_MESSAGES,
                              "--one-tagged-in", 100)),
    **{f"sync send {name}": send(*shape, flush="sync") for name, shape in SHAPES.items()},
}

# Measured once in a run, after the rounds; see scenarios/.
SCENARIOS = ["pull cold", "idle connections", "topics", "restart", "batch segments", "sync segments",
             "replication", "catch-up"]

QUICK = [*(f"send {name}" for name in SHAPES), "latency 5k/s", "pull hot"]
ECHOED = {name: workload.echo for name, workload in WORKLOADS.items() if workload.echo}
