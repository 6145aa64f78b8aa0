"""A data directory whose next segments are recycled ones, full of records of their first life."""
import os
import time

import wire
from server import Server

TOPIC = "expired"
SEGMENTS = 24
BATCH = 32


def fill(weir, data, config):
    """Fills segments of 1 MiB with messages that expire at once, lets them expire, and stops cleanly.
    `config` has a retention of 0 hours. Says how many segments wait to be written again."""
    server = Server(weir, data, config)
    server.ready()
    link = wire.Link(server.address)
    assert wire.create_topic(link, TOPIC, 1)["code"] == 0
    body = bytes(range(256)) * 12
    fields = {"a": "producers", "b": TOPIC, "c": "TBW102", "d": "1", "e": "0", "f": "0",
              "g": "1700000000000", "h": "0", "i": "TAGS\x01old\x02", "j": "0", "k": "false", "m": "false"}
    for _ in range(SEGMENTS * (1 << 20) // (BATCH * len(body))):
        link.send(b"".join(link.frame(wire.SEND, fields, body) for _ in range(BATCH)))
        assert all(link.answer()[0]["code"] == 0 for _ in range(BATCH))
    # The first wish makes the broker write an image of its state, behind which segments may go.
    spare, deadline = os.path.join(data, "weir", "spare"), time.monotonic() + 5
    while len(spares(spare)) < SEGMENTS // 2 and time.monotonic() < deadline:
        assert link.call(wire.DELETE_EXPIRED_LOG, {})[0]["code"] == 0
        time.sleep(0.02)
    link.close()
    code = server.terminate()
    assert code == 0, f"ended with {code}: {server.stderr()}"
    return len(spares(spare))


def spares(folder):
    return os.listdir(folder) if os.path.isdir(folder) else []
