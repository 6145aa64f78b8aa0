"""From kill -9 to the first message that is accepted again."""

import time

from ..machine import evict
from ..probe import wait_for_send
from .fill import fill


def restart(turns, broker):
    """Kills a broker with a full log in the middle of nothing, with its files in memory and not."""
    turns.start_empty(broker)
    turns.settle()
    position = fill(turns, broker, int(turns.options.restart_gib * (1 << 30)))
    figures = {"log_bytes": position}
    for name, is_cold in (("hot", False), ("cold", True)):
        broker.kill()
        if is_cold:
            evict(None, broker.home)
        began = time.monotonic()
        broker.launch()
        figures[f"{name}_seconds"] = wait_for_send(broker.address, began)
    turns.start_empty(broker)
    return figures
