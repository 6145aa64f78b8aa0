"""Segments that were never written beside recycled ones: rates, and what reaches the device."""

import os
import threading

from ..brokers import NotMeasured, Weirmq
from ..probe import ask
from ..workloads import SYNC_SHAPES, WORKLOADS
from .fill import fill

DELETE_EXPIRED_LOG = 329
# Messages expire at once, but nothing goes before somebody asks.
SETTINGS = {"retention_hours": 0, "retention_at_hours": [], "retention_disk_percent": 95}
SPARES = {"fresh": 0, "recycled": 4}
# The first recycled segment follows three or four fresh ones of 1 GiB.
FILL_BYTES, FILL_BYTES_MAX = 512 << 20, 8 << 30
LONG_SECONDS = 60
PAGE_BYTES = 4096


def batches(turns, broker):
    """A minute of batches."""
    return segments(turns, ["batch 32"], LONG_SECONDS)


def syncs(turns, broker):
    return segments(turns, SYNC_SHAPES, turns.options.seconds)


def segments(turns, shapes, seconds):
    """Runs the shapes on fresh and on recycled segments, each kind with a broker of its own.

    Meanwhile what has expired is deleted twice a second, so that the log stays at a few GiB and, with
    spare segments, each new one is recycled. Spares are taken out of the page cache, as they
    would be after days in production.
    """
    figures = {"reports": {}}
    flush = WORKLOADS[shapes[0]].flush
    for kind, spares in SPARES.items():
        broker = Weirmq(turns.work / f"segments-{kind}", flush, turns.options)
        broker.store_settings = SETTINGS | {"spare_segments_max": spares}
        turns.start_empty(broker)
        try:
            with Expiry(broker) as expiry:
                fill(turns, broker, FILL_BYTES)
                whole = [measure(turns, broker, expiry, f"{shape} {kind}", shape, seconds, figures)
                         for shape in shapes]
        finally:
            broker.kill()
            broker.empty()
        figures[f"whole {kind}_written"] = (sum(each["device_bytes"] for each in whole)
                                            / sum(each["stored_bytes"] for each in whole))
    return figures


def measure(turns, broker, expiry, name, shape, seconds, figures):
    """Adds the rate, and bytes written and read for each byte of log; answers what was written.

    `least` is what a log must write of which each flush writes whole pages: the records, and on
    average one page more, because a flush begins and ends within one.
    """
    wants_recycled = bool(broker.store_settings["spare_segments_max"])
    filled = 0
    while expiry.is_recycled() != wants_recycled:
        if filled >= FILL_BYTES_MAX:
            raise NotMeasured(f"{name}: after {filled >> 20} MiB the log is still on a segment of the other kind")
        fill(turns, broker, FILL_BYTES)
        filled += FILL_BYTES
    turns.settle()
    report, error, written = turns.load_and_weigh(broker, WORKLOADS[shape], seconds, turns.options.warmup)
    if error:
        raise NotMeasured(f"{name}: {error}")
    if expiry.is_recycled() != wants_recycled:
        raise NotMeasured(f"{name}: the log went on to a segment of the other kind")
    stored = written["stored_bytes"]
    figures |= {
        f"{name}_messages_per_second": report["messages_per_second"],
        f"{name}_written": written["device_bytes"] / stored,
        f"{name}_least": 1 + PAGE_BYTES * written["device_flushes"] / stored,
        f"{name}_read": written["device_read_bytes"] / stored,
    }
    figures["reports"][name] = {"report": report, "written": written}
    return written


class Expiry:
    """Has the broker delete what has expired, and keeps spare segments out of the page cache."""

    PAUSE = 0.5

    def __init__(self, broker):
        self.broker, self.stopped = broker, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        data = broker.home / "data"
        self.log, self.spare = data / "commitlog", data / "weir" / "spare"
        # Files that have been spare ones, by inode: they keep it when they are renamed.
        self.seen = set()

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()

    def is_recycled(self):
        """Whether the segment that is written now had another life before."""
        newest_first = sorted(self.log.iterdir(), reverse=True)
        return next(path.stat().st_ino in self.seen for path in newest_first if not is_prepared(path))

    def run(self):
        while not self.stopped.wait(self.PAUSE):
            try:
                ask(self.broker.address, DELETE_EXPIRED_LOG)
                for path in self.spare.iterdir():
                    self.seen.add(path.stat().st_ino)
                    forget(path)
            except OSError:
                # The broker may be ending, and a spare file may have got its new name.
                continue


def is_prepared(path):
    """Whether no record has been written to a segment yet: each begins with a length that is not 0."""
    with open(path, "rb") as file:
        return file.read(4) == bytes(4)


def forget(path):
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
