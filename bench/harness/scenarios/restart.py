"""From kill -9 to the first message that is accepted again."""

import threading
import time

from ..machine import evict
from ..probe import log_position, wait_for_send
from .fill import fill


GIB = 1 << 30
SOME = ("produce", "--topic", "bench-fill", "-c", 1, "-n", 1, "--create")


def restart(turns, broker):
    """Kills a broker under load, the newest of whose segments of 1 GiB is nearly full: what a start has to look at
    again lies in it. With its files in memory and not."""
    turns.start_empty(broker)
    turns.settle()
    position = fill(turns, broker, int(turns.options.restart_gib * GIB))
    while position % GIB < 3 * GIB // 4:
        position = fill(turns, broker, 64 << 20)
    figures = {"log_bytes": position}
    for name, is_cold in (("hot", False), ("cold", True)):
        load = threading.Thread(target=turns.weir_bench, args=(broker, SOME, 3, 0))
        load.start()
        time.sleep(1)
        figures[f"{name}_in_newest_segment_bytes"] = log_position(broker.address) % GIB
        broker.kill()
        load.join()
        if is_cold:
            evict(None, broker.home)
        began = time.monotonic()
        broker.launch()
        figures[f"{name}_seconds"] = wait_for_send(broker.address, began)
    turns.start_empty(broker)
    return figures
