"""Producers and a consumer that follow the master wherever it goes, and what they saw."""
import collections
import json
import os
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "crash"))
import wire  # noqa: E402

TOPIC, QUEUES = "load", 4
ROUTE = 105
# Between an acknowledgement and the next message: a round of 90 faults has to fit on a replica's disk (group.IMAGE_BYTES).
PAUSE_SECONDS = 0.004


class Traffic:
    """Runs in the namespace of the caller. A producer that gets no answer goes on with its next message:
    what became of that one is unknown, and it may be there."""

    def __init__(self, namesrv, producers=4, timeout=1.0):
        self.namesrv, self.timeout = namesrv, timeout
        self.lock = threading.Lock()
        # queue -> offset -> number
        self.acknowledged = {queue: {} for queue in range(QUEUES)}
        self.seen = {queue: {} for queue in range(QUEUES)}
        self.begun, self.problems = 0, []
        # Monotonic times of successful sends since the last fault.
        self.successes = []
        self.is_over = threading.Event()
        work = [(self._produce, number) for number in range(producers)] + [(self._consume, 0)]
        self.threads = [threading.Thread(target=self._guard, args=job, daemon=True) for job in work]
        for thread in self.threads:
            thread.start()

    def count(self):
        with self.lock:
            return sum(len(queue) for queue in self.acknowledged.values())

    def fault(self, _):
        """From here on the longest time without a success is looked for."""
        with self.lock:
            self.successes = [time.monotonic()]

    def outages(self):
        """By client, of which these producers are one: the longest time without a success since the fault, in
        seconds."""
        with self.lock:
            times = [*self.successes, time.monotonic()]
        return {"raw": max(after - before for before, after in zip(times, times[1:]))}

    def mark(self):
        """Where everybody is."""
        return self.count()

    def is_served_since(self, mark):
        return self.count() > mark + 20

    def end(self):
        self.is_over.set()
        for thread in self.threads:
            thread.join()

    def kill(self):
        """However this ended, nobody goes on."""
        self.is_over.set()

    def delays(self):
        """Nobody measures when its consumer gets what."""
        return {}

    def explain(self, copies):
        """Lines about duplicates. Nothing is sent twice here, so each is a problem."""
        twice = [number for number, count in copies.items() if count > 1]
        self.problems += [f"{number:x} is stored {copies[number]} times and was sent once" for number in twice]
        yield f"{len(twice)} messages are stored more than once"

    def _guard(self, work, number):
        try:
            work(number)
        except Exception as error:  # A thread must not end in silence.
            self.problems.append(f"{type(error).__name__}: {error}")

    def master(self):
        """The address that a route names; None without one."""
        try:
            link = wire.Link(self.namesrv, self.timeout)
            try:
                header, body = link.call(ROUTE, {"topic": TOPIC})
            finally:
                link.close()
        except (wire.Gone, AssertionError):
            return None
        if header["code"] != 0:
            return None
        return quoted(body)["brokerDatas"][0]["brokerAddrs"].get("0")

    def connect(self):
        """A connection to the master; None when everything is over before there is one."""
        while not self.is_over.is_set():
            address = self.master()
            try:
                if address:
                    return wire.Link(address, self.timeout)
            except wire.Gone:
                pass
            time.sleep(0.05)
        return None

    def _produce(self, producer):
        link, number = None, producer << 40
        while not self.is_over.is_set():
            link = link or self.connect()
            if link is None:
                return
            number += 1
            body = struct.pack(">Q", number) + bytes((number * 37) % 900)
            fields = {"a": "producers", "b": TOPIC, "c": "TBW102", "d": str(QUEUES), "e": str(number % QUEUES),
                      "f": "0", "g": "1700000000000", "h": "0", "i": f"KEYS\x01k{number}\x02", "j": "0",
                      "k": "false", "m": "false"}
            try:
                with self.lock:
                    self.begun += 1
                header, _ = link.call(wire.SEND, fields, body)
            except (wire.Gone, AssertionError):
                link.close()
                link = None
                continue
            if header["code"] == 0:
                self._note(header["extFields"], number)
                self.is_over.wait(PAUSE_SECONDS)
            else:
                # Refused, or stored with an unknown fate. Perhaps another one is master.
                link.close()
                link = None
                time.sleep(0.05)

    def _note(self, fields, number):
        queue, offset = int(fields["queueId"]), int(fields["queueOffset"])
        with self.lock:
            self.successes.append(time.monotonic())
            other = self.acknowledged[queue].setdefault(offset, number)
            if other != number:
                self.problems.append(f"queue {queue} offset {offset} was given to {other:x} and {number:x}")

    def _consume(self, _):
        """Reads from wherever the master is; what it saw has to stay."""
        link, next_ = None, dict.fromkeys(range(QUEUES), 0)
        while not self.is_over.is_set():
            link = link or self.connect()
            if link is None:
                return
            try:
                moved = [self._pull(link, queue, next_) for queue in range(QUEUES)]
                if not any(moved):
                    time.sleep(0.02)
            except (wire.Gone, AssertionError, socket.timeout):
                link.close()
                link = None

    def _pull(self, link, queue, next_):
        pull = {"consumerGroup": "readers", "topic": TOPIC, "queueId": str(queue), "queueOffset": str(next_[queue]),
                "maxMsgNums": "160", "sysFlag": "4", "commitOffset": "0", "suspendTimeoutMillis": "0",
                "subscription": "*", "subVersion": "0"}
        header, stored = link.call(wire.PULL, pull)
        if header["code"] == 21:
            self.problems.append(f"queue {queue}: a consumer at {next_[queue]} was sent to {header['extFields']}")
        if header["code"] != wire.FOUND:
            return False
        for offset, _, body, _, _ in wire.records(stored):
            self.seen[queue][offset] = int.from_bytes(body[:8], "big")
            next_[queue] = offset + 1
        return True


def quoted(body):
    """Fastjson writes broker ids without quotes."""
    import re
    return json.loads(re.sub(rb'([{,])(\d+):', rb'\1"\2":', body))


def compare(address, traffic):
    """Reads everything at this broker. Says what was promised and is not there, what is wrong besides, and how often
    each number is there."""
    lost, wrong, copies = [], [], collections.Counter()
    link = wire.Link(address, timeout=20)
    for queue in range(QUEUES):
        found, next_ = {}, 0
        header, _ = link.call(wire.MAX_OFFSET, {"topic": TOPIC, "queueId": str(queue)})
        end = int(header["extFields"]["offset"])
        while next_ < end:
            pull = {"consumerGroup": "checkers", "topic": TOPIC, "queueId": str(queue), "queueOffset": str(next_),
                    "maxMsgNums": "160", "sysFlag": "4", "commitOffset": "0", "suspendTimeoutMillis": "0",
                    "subscription": "*", "subVersion": "0"}
            header, stored = link.call(wire.PULL, pull)
            if header["code"] != wire.FOUND:
                wrong.append(f"queue {queue}: {header['code']} {header.get('remark')} at {next_} of {end}")
                break
            for offset, _, body, _, _ in wire.records(stored):
                if offset != next_:
                    wrong.append(f"queue {queue}: offset {offset} comes where {next_} should")
                found[offset] = int.from_bytes(body[:8], "big")
                next_ = offset + 1
        for what, before in (("acknowledged", traffic.acknowledged[queue]), ("seen by a consumer", traffic.seen[queue])):
            for offset, number in before.items():
                if found.get(offset) != number:
                    lost.append(f"queue {queue} offset {offset}: {number:x} was {what}, {found.get(offset)} is there")
        copies.update(found.values())
    link.close()
    return lost, wrong, copies
