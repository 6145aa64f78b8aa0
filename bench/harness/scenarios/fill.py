"""Puts messages into a store, as fast as it goes."""

import time

from ..brokers import NotMeasured
from ..probe import log_position

BATCH = ("produce", "--topic", "bench-fill", "-c", 4, "-n", 2, "--batch", 32, "--create")
SECONDS_MAX = 150


def fill(turns, broker, log_bytes):
    """Sends batches until the log has grown by `log_bytes`; answers its length in bytes."""
    began, at = log_position(broker.address), time.monotonic()
    position, seconds = began, 1
    while (missing := log_bytes - (position - began)) > 0:
        if time.monotonic() - at > SECONDS_MAX:
            raise NotMeasured(f"the log has grown by only {(position - began) >> 20} MiB in {SECONDS_MAX} s")
        _, error = turns.weir_bench(broker, BATCH, seconds, 0)
        was, position = position, log_position(broker.address)
        # Apache's broker refuses some when it is busy, which is no reason not to fill its store.
        if error and position == was:
            raise NotMeasured(f"filling the store: {error}")
        rate = max(position - was, 1) / seconds
        seconds = min(max(missing / rate, 0.2), 20)
    return position
