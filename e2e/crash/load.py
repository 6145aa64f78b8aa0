"""Work for a broker, and a ledger of what it promised meanwhile."""
import os
import random
import struct
import threading

import wire

TOPIC = "load"
QUEUES = 4
GROUP = "readers"
WINDOW = 8
NOISE = random.Random(1).randbytes(1 << 20)


def body_of(number):
    """The body of a message: its number, then bytes that follow from it. Up to 3 KiB, now and then
    zeros, now and then up to 40 KiB."""
    mixed = (number * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    length = (mixed >> 20) % (40_000 if mixed % 61 == 0 else 3_000)
    head = struct.pack(">Q", number)
    if mixed % 17 == 0:
        return head + bytes(length)
    at = (mixed >> 33) % (len(NOISE) - 40_000)
    return head + NOISE[at:at + length]


class Ledger:
    """What the broker has answered with success, since its directory is empty."""

    def __init__(self):
        self.lock = threading.Lock()
        # (queue -> offset -> number); every SEND_OK
        self.acknowledged = {queue: {} for queue in range(QUEUES)}
        self.begun = set()
        # Acknowledged after the fault began, so promised by nobody: queue -> offset -> number.
        self.late = {queue: {} for queue in range(QUEUES)}
        self.is_frozen = False
        self.topics, self.groups = set(), set()
        # queue -> (last commit with an answer, last commit sent)
        self.commits = {queue: (0, 0) for queue in range(QUEUES)}
        self.position = 0
        # What was found at the last check: queue -> offset -> number
        self.found = {queue: {} for queue in range(QUEUES)}

    def count(self):
        return sum(len(queue) for queue in self.acknowledged.values())


class Load:
    """Producers and an administrator, until they are stopped or the broker is gone."""

    def __init__(self, address, ledger, round_, producers=3):
        self.address, self.ledger, self.round = address, ledger, round_
        ledger.is_frozen = False
        ledger.late = {queue: {} for queue in range(QUEUES)}
        self.is_expected = False
        self.is_over = threading.Event()
        self.problems = []
        work = [(self.produce, n) for n in range(producers)] + [(self.administer, 0)]
        self.threads = [threading.Thread(target=self._guard, args=job) for job in work]
        for thread in self.threads:
            thread.start()

    def expect_fault(self):
        """From here on errors are no surprise, and nothing that is answered counts as promised."""
        with self.ledger.lock:
            self.ledger.is_frozen = True
        self.is_expected = True

    def end(self):
        self.is_over.set()
        for thread in self.threads:
            thread.join()

    def _guard(self, work, number):
        try:
            work(number)
        except wire.Gone as error:
            if not self.is_expected:
                self.problems.append(f"the broker went away before the fault: {error}")
        except Exception as error:  # A thread must not end in silence.
            self.problems.append(f"{type(error).__name__}: {error}")

    def produce(self, producer):
        link = wire.Link(self.address)
        ledger = self.ledger
        next_ = (self.round << 32) | (producer << 24)
        try:
            while not self.is_over.is_set():
                frames, sent = [], {}
                for _ in range(WINDOW):
                    body = body_of(next_)
                    fields = {"a": "producers", "b": TOPIC, "c": "TBW102", "d": str(QUEUES),
                              "e": str(next_ % QUEUES), "f": "0", "g": "1700000000000", "h": "0",
                              "i": f"KEYS\x01k{next_ % 1000}\x02TAGS\x01t{next_ % 7}\x02", "j": "0",
                              "k": "false", "m": "false"}
                    frames.append(link.frame(wire.SEND, fields, body))
                    sent[link.opaque] = next_
                    next_ += 1
                with ledger.lock:
                    ledger.begun.update(sent.values())
                link.send(b"".join(frames))
                while sent:
                    header, _ = link.answer()
                    number = sent.pop(header["opaque"])
                    self._note(header, number)
        finally:
            link.close()

    def _note(self, header, number):
        ledger = self.ledger
        with ledger.lock:
            if header["code"] != 0:
                return  # FLUSH_DISK_TIMEOUT and refusals promise nothing.
            fields = header["extFields"]
            queue, offset = int(fields["queueId"]), int(fields["queueOffset"])
            if ledger.is_frozen:
                ledger.late[queue][offset] = number
                return
            other = ledger.acknowledged[queue].setdefault(offset, number)
            if other != number:
                self.problems.append(f"queue {queue} offset {offset} was given to {other:x} and {number:x}")
            ledger.position = max(ledger.position, int(fields["msgId"][-16:], 16))

    def administer(self, _):
        link = wire.Link(self.address)
        ledger, at = self.ledger, 0
        try:
            while not self.is_over.wait(0.01):
                at += 1
                topic, group = f"made-{self.round}-{at}", f"group-{self.round}-{at}"
                self._promise(wire.create_topic(link, topic, 1), ledger.topics, topic)
                self._promise(wire.create_group(link, group), ledger.groups, group)
                for queue in range(QUEUES):
                    with ledger.lock:
                        # What is acknowledged without a gap may be committed.
                        done, _ = ledger.commits[queue]
                        while done in ledger.acknowledged[queue]:
                            done += 1
                        before = ledger.commits[queue][0]
                        if done == before:
                            continue
                        ledger.commits[queue] = (before, done)
                    fields = {"consumerGroup": GROUP, "topic": TOPIC, "queueId": str(queue),
                              "commitOffset": str(done)}
                    if link.call(wire.UPDATE_OFFSET, fields)[0]["code"] == 0:
                        with ledger.lock:
                            if not ledger.is_frozen:
                                ledger.commits[queue] = (done, done)
        finally:
            link.close()

    def _promise(self, answer, names, name):
        with self.ledger.lock:
            if answer["code"] == 0 and not self.ledger.is_frozen:
                names.add(name)


def prepare(address, ledger):
    """Makes what the load needs."""
    link = wire.Link(address)
    for answer in (wire.create_topic(link, TOPIC, QUEUES), wire.create_group(link, GROUP)):
        assert answer["code"] == 0, answer
    ledger.topics.add(TOPIC)
    ledger.groups.add(GROUP)
    link.close()
