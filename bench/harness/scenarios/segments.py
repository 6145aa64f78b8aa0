"""Segments that were never written beside recycled ones: rates, and what reaches the device."""

import os
import threading

from ..brokers import NotMeasured, Weirmq
from ..probe import ask
from ..workloads import WORKLOADS
from .fill import fill

DELETE_EXPIRED_LOG = 329
# Messages expire at once, but nothing goes before somebody asks.
SETTINGS = {"retention_hours": 0, "retention_at_hours": [], "retention_disk_percent": 95}
SPARES = {"fresh": 0, "recycled": 4}
# Makes so many segments of 1 GiB that some wait to be recycled.
FILL_BYTES = 4 << 30
LONG_SECONDS = 60
SYNC_SHAPES = ["sync send 16x1", "sync send 64x1", "sync send 8x64"]


def batches(turns, broker):
    """A minute of batches."""
    return segments(turns, ["batch 32"], LONG_SECONDS)


def syncs(turns, broker):
    return segments(turns, SYNC_SHAPES, turns.options.seconds)


def segments(turns, shapes, seconds):
    """Runs each shape on fresh and on recycled segments, with brokers of its own.

    Meanwhile what has expired is deleted twice a second, so that the log stays at a few GiB and, with
    spare segments, each new one is recycled. Spares are taken out of the page cache, as they
    would be after days in production.
    """
    figures = {"reports": {}}
    for shape in shapes:
        workload = WORKLOADS[shape]
        for kind, spares in SPARES.items():
            other = Weirmq(turns.work / f"segments-{kind}", workload.flush, turns.options)
            other.store_settings = SETTINGS | {"spare_segments_max": spares}
            turns.start_empty(other)
            try:
                measure(turns, other, f"{shape} {kind}", workload, seconds, figures)
            finally:
                other.kill()
                other.empty()
    return figures


def measure(turns, broker, name, workload, seconds, figures):
    """Adds the rate, and bytes written and read for each byte of log."""
    with Expiry(broker):
        fill(turns, broker, FILL_BYTES if broker.store_settings["spare_segments_max"] else 1 << 20)
        turns.settle()
        report, error, written = turns.load_and_weigh(broker, workload, seconds, turns.options.warmup)
    if error:
        raise NotMeasured(f"{name}: {error}")
    figures |= {
        f"{name}_messages_per_second": report["messages_per_second"],
        f"{name}_written": written["device_bytes"] / written["stored_bytes"],
        f"{name}_read": written["device_read_bytes"] / written["stored_bytes"],
    }
    figures["reports"][name] = {"report": report, "written": written}


class Expiry:
    """Has the broker delete what has expired, and keeps spare segments out of the page cache."""

    PAUSE = 0.5

    def __init__(self, broker):
        self.broker, self.stopped = broker, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()

    def run(self):
        spare = self.broker.home / "data" / "weir" / "spare"
        while not self.stopped.wait(self.PAUSE):
            try:
                ask(self.broker.address, DELETE_EXPIRED_LOG)
                for path in spare.iterdir():
                    forget(path)
            except OSError:
                # The broker may be ending, and a spare file may have got its new name.
                continue


def forget(path):
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
