"""What is measured in every round, as words of `weir bench`."""

import dataclasses

LATENCY_RATE = 5000
HOT_MESSAGES = 200_000


@dataclasses.dataclass(frozen=True)
class Workload:
    """One run of the generator.

    `echo` are the words of the calibration against a server that only answers, where there is one.
    """

    words: tuple
    echo: tuple | None = None


def send(connections, in_flight):
    shape = ("-c", connections, "-n", in_flight)
    return Workload(("produce", "--topic", "bench", *shape), ("echo", *shape))


WORKLOADS = {
    "send 1x1": send(1, 1),
    "send 16x1": send(16, 1),
    "send 64x1": send(64, 1),
    "send 8x64": send(8, 64),
    "latency 5k/s": Workload(("latency", "--topic", "bench-latency", "--rate", LATENCY_RATE)),
    "pull hot": Workload(("consume", "--topic", "bench-hot", "--messages", HOT_MESSAGES)),
}
SENDS = [name for name, workload in WORKLOADS.items() if workload.echo]
