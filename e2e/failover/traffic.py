"""Producers and a consumer that follow the master wherever it goes, and what they saw."""
import collections
import json
import os
import socket
import struct
import sys
import threading
import time

import promises

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "crash"))
import wire  # noqa: E402

TOPIC, QUEUES = "load", 4
ROUTE, MOVED, UNKNOWN_OFFSET = 105, 21, 22
# Between two commits of a consumer.
COMMIT_SECONDS = 0.1
# Between an acknowledgement and the next message: a round of 90 faults has to fit on a replica's disk (group.IMAGE_BYTES).
PAUSE_SECONDS = 0.004


class Traffic:
    """Runs in the namespace of the caller. A producer that gets no answer goes on with its next message:
    what became of that one is unknown, and it may be there. With `may_lose` a master that is gone may have taken with it
    what it had acknowledged."""

    def __init__(self, namesrv, may_lose, producers=4, timeout=1.0):
        self.namesrv, self.may_lose, self.timeout = namesrv, may_lose, timeout
        self.lock = threading.Lock()
        # (queue, offset) -> the numbers that were acknowledged there
        self.acknowledged = collections.defaultdict(list)
        # number -> how it was acknowledged
        self.answers = {}
        # queue -> offset -> number
        self.seen = {queue: {} for queue in range(QUEUES)}
        # queue -> offset and how it was answered
        self.committed = {}
        # A consumer at an offset of a queue was sent to another one, at which it had seen this number.
        self.sent_back = []
        # What was committed, in a queue, fell: its offset, how that was answered, the offset since, and when it was told.
        self.fallen = []
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
            return len(self.answers)

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

    def explain(self, compared):
        """Lines about duplicates and about what fell. Nothing is sent twice here, so each that is there twice is a
        problem."""
        twice = [number for number, count in compared.copies.items() if count > 1]
        self.problems += [f"{number:x} is stored {compared.copies[number]} times and was sent once" for number in twice]
        yield f"{len(twice)} messages are stored more than once"
        if self.may_lose:
            self.problems += promises.two_writers(compared, self.answers)
            self.problems += promises.sent_too_far_back(self.sent_back, compared.found)
            self.problems += promises.fell_in_the_log(self.fallen, compared, self.answers)
            yield f"{len(compared.vanished)} messages that a consumer saw are not there"
            yield f"consumers were sent back {len(self.sent_back)} times, what they had committed fell {len(self.fallen)} times"
            return
        self.problems += [f"queue {queue}: a consumer at {at} was sent to {to}" for queue, at, to, _ in self.sent_back]
        self.problems += [f"queue {queue}: a consumer had committed {before} at {commit.address} and was told {now}"
                          for queue, before, commit, now, _ in self.fallen]

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
                    return Connection(address, self.timeout)
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
            begun = time.monotonic()
            try:
                with self.lock:
                    self.begun += 1
                header, _ = link.call(wire.SEND, fields, body)
            except (wire.Gone, AssertionError):
                link.close()
                link = None
                continue
            if header["code"] == 0:
                self._note(header["extFields"], number, link.answer_to(begun))
                self.is_over.wait(PAUSE_SECONDS)
            else:
                # Refused, or stored with an unknown fate. Perhaps another one is master.
                link.close()
                link = None
                time.sleep(0.05)

    def _note(self, fields, number, answer):
        with self.lock:
            self.successes.append(answer.ended)
            self.answers[number] = answer
            self.acknowledged[int(fields["queueId"]), int(fields["queueOffset"])].append(number)

    def _consume(self, _):
        """Reads from wherever the master is, and commits how far it is; what it saw has to stay."""
        link, next_, next_commit = None, dict.fromkeys(range(QUEUES), 0), 0
        while not self.is_over.is_set():
            if link is None:
                link, compared = self.connect(), set()
            if link is None:
                return
            try:
                moved = [self._pull(link, queue, next_) for queue in range(QUEUES)]
                if time.monotonic() > next_commit:
                    for queue in range(QUEUES):
                        self._commit(link, queue, next_[queue], compared)
                    next_commit = time.monotonic() + COMMIT_SECONDS
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
        if header["code"] == MOVED:
            to = int(header["extFields"]["nextBeginOffset"])
            self.sent_back.append((queue, next_[queue], to, self.seen[queue].get(to)))
            next_[queue] = to
        if header["code"] != wire.FOUND:
            return False
        for offset, _, body, _, _ in wire.records(stored):
            self.seen[queue][offset] = int.from_bytes(body[:8], "big")
            next_[queue] = offset + 1
        return True

    def _commit(self, link, queue, offset, compared):
        """Commits it; before that, once on each connection, looks whether what was committed is known there. `compared`
        are the queues of which that is done."""
        fields = {"consumerGroup": "readers", "topic": TOPIC, "queueId": str(queue)}
        if queue not in compared and queue in self.committed:
            header, _ = link.call(wire.QUERY_OFFSET, fields)
            if header["code"] not in (0, UNKNOWN_OFFSET):
                return
            known = int(header["extFields"]["offset"]) if header["code"] == 0 else None
            before, answer = self.committed[queue]
            if known is None or known < before:
                self.fallen.append((queue, before, answer, known, time.monotonic()))
                del self.committed[queue]
        compared.add(queue)
        begun = time.monotonic()
        header, _ = link.call(wire.UPDATE_OFFSET, fields | {"commitOffset": str(offset)})
        if header["code"] == 0:
            self.committed[queue] = offset, link.answer_to(begun)


class Connection(wire.Link):
    """One that knows to whom it leads, and since when."""

    def __init__(self, address, timeout):
        self.address, self.since = address, time.monotonic()
        super().__init__(address, timeout)

    def answer_to(self, begun):
        return promises.Answer(self.address, self.since, begun, time.monotonic())


def quoted(body):
    """Fastjson writes broker ids without quotes."""
    import re
    return json.loads(re.sub(rb'([{,])(\d+):', rb'\1"\2":', body))
