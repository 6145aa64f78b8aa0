"""A data directory whose next segments are recycled ones, full of records of their first life."""
import os
import time

import wire
from server import Server

TOPIC = "expired"
# A directory's rounds write about as many.
SEGMENTS = 60
BATCH = 32


def fill(weir, data, config):
    """Fills segments of 1 MiB with messages that expire at once, lets them expire, and stops cleanly.
    `config` has a retention of 0 hours. Says which files wait to be written again, by inode: they get other
    names then."""
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
    spare, deadline = os.path.join(data, "weir", "spare"), time.monotonic() + 5
    assert link.call(wire.DELETE_EXPIRED_LOG, {})[0]["code"] == 0
    while len(spares(spare)) < SEGMENTS - 10 and time.monotonic() < deadline:
        time.sleep(0.02)
    link.close()
    code = server.terminate()
    assert code == 0, f"ended with {code}: {server.stderr()}"
    return spares(spare)


def spares(folder):
    return {entry.inode() for entry in os.scandir(folder)} if os.path.isdir(folder) else set()
