"""Puts messages into a store, as fast as it goes."""

from ..brokers import NotMeasured
from ..probe import log_position

BATCH = ("produce", "--topic", "bench-fill", "-c", 4, "-n", 2, "--batch", 32, "--create")


def fill(turns, broker, log_bytes):
    """Sends batches until the log has grown by `log_bytes`; answers its length in bytes."""
    began = position = log_position(broker.address)
    seconds = 1
    while position - began < log_bytes:
        _, error = turns.weir_bench(broker, BATCH, seconds, 0)
        if error:
            raise NotMeasured(f"filling the store: {error}")
        grown, position = position, log_position(broker.address)
        rate = max(position - grown, 1) / seconds
        seconds = min(max((log_bytes - (position - began)) / rate, 0.2), 20)
    return position
