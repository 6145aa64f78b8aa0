"""Reading what is not in memory, and what a producer beside it feels."""

import json
import subprocess

from ..brokers import NotMeasured
from ..machine import device_counters, evict
from .fill import fill

LOG_BYTES = 3 << 30
SECONDS = 2
# A producer at a tenth of what a core can do, so that it shows waiting and not saturation.
PRODUCER = ("latency", "--topic", "bench-beside", "--rate", 1000, "--create")
READER = ("consume", "--topic", "bench-fill", "--no-fill")


def cold_pull(turns, broker):
    """Pulls the oldest messages of a log of 3 GiB after it was taken out of the page cache.

    The window is short enough that nothing is read twice. `device_megabytes_per_second` is what
    the disk delivered meanwhile: far below the rate of messages, the cache was not cold.
    """
    fill(turns, broker, LOG_BYTES)
    turns.settle()
    quiet, error = turns.weir_bench(broker, PRODUCER, 4, 1)
    if error:
        raise NotMeasured(f"producer alone: {error}")
    alone = pull(turns, broker)
    words = [turns.options.weir, "bench", *PRODUCER, "--broker", broker.address,
             "--seconds", SECONDS, "--warmup", 1, "-o", "json"]
    evict(broker.pid, broker.home)
    producer = subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, text=True)
    beside = pull(turns, broker, warmup=1, is_evicted=True)
    busy = json.loads(producer.communicate(timeout=60)[0])
    return {
        "messages_per_second": alone["report"]["messages_per_second"],
        # Of records, not of bodies alone: 1 KiB of body makes a record of about 1.2 KiB.
        "megabytes_per_second": alone["report"]["megabytes_per_second"],
        "device_megabytes_per_second": alone["device_megabytes_per_second"],
        "producer_p99_ms_quiet": quiet["latency"]["p99_us"] / 1000,
        "producer_p99_ms_beside": busy["latency"]["p99_us"] / 1000,
        "producer_p99_ratio": busy["latency"]["p99_us"] / quiet["latency"]["p99_us"],
        "reports": {"alone": alone["report"], "beside": beside["report"], "producer_quiet": quiet,
                    "producer_beside": busy},
    }


def pull(turns, broker, warmup=0, is_evicted=False):
    if not is_evicted:
        evict(broker.pid, broker.home)
    before = device_counters(turns.work)
    report, error = turns.weir_bench(broker, READER, SECONDS, warmup)
    after = device_counters(turns.work)
    if error:
        raise NotMeasured(f"cold pull: {error}")
    read = (after.read_bytes - before.read_bytes) / 1e6 / (SECONDS + warmup)
    return {"report": report, "device_megabytes_per_second": read}
