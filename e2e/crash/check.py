"""Compares a broker that came back with the ledger of what it had promised."""
import json

import wire
from load import GROUP, QUEUES, TOPIC, body_of


class Verdict:
    """`lost`: acknowledged and gone; `wrong`: there, but not what was sent or not where it was."""

    def __init__(self):
        self.lost = []
        self.wrong = []
        self.read = 0
        self.ends = {}

    def is_clean(self):
        return not self.lost and not self.wrong


def compare(address, ledger, since=None, commits_may_fall=False):
    """Reads every queue (from the offsets `since` on, if given) and all state, and says what is wrong.

    Afterwards the ledger's `found` holds what is there, so that the next check sees it move.
    """
    verdict = Verdict()
    link = wire.Link(address, timeout=20)
    for queue in range(QUEUES):
        start = since[queue] if since else 0
        found = read_queue(link, queue, start, verdict)
        promised = ledger.acknowledged[queue]
        for offset, number in promised.items():
            if offset >= start and found.get(offset) != number:
                verdict.lost.append(f"queue {queue} offset {offset}: {number:x} was acknowledged, "
                                    f"{found.get(offset)} is there")
        for offset, number in ledger.found[queue].items():
            if offset >= start and found.get(offset) != number and offset not in promised:
                verdict.wrong.append(f"queue {queue} offset {offset}: {number:x} was there before")
        seen = set()
        for offset, number in found.items():
            if number not in ledger.begun:
                verdict.wrong.append(f"queue {queue} offset {offset}: nobody sent {number:x}")
            if number in seen:
                verdict.wrong.append(f"queue {queue} offset {offset}: {number:x} twice")
            seen.add(number)
        kept = {offset: number for offset, number in ledger.found[queue].items() if offset < start}
        ledger.found[queue] = kept | found
        verdict.ends[queue] = max(found, default=start - 1) + 1
        committed(link, queue, ledger, verdict)
    state(link, ledger, verdict)
    link.close()
    return verdict


def read_queue(link, queue, start, verdict):
    fields = {"topic": TOPIC, "queueId": str(queue)}
    header, _ = link.call(wire.MAX_OFFSET, fields)
    end = int(header["extFields"]["offset"])
    found, next_ = {}, start
    while next_ < end:
        pull = {"consumerGroup": GROUP, "topic": TOPIC, "queueId": str(queue), "queueOffset": str(next_),
                "maxMsgNums": "160", "sysFlag": "4", "commitOffset": "0", "suspendTimeoutMillis": "0",
                "subscription": "*", "subVersion": "0"}
        header, stored = link.call(wire.PULL, pull)
        if header["code"] != wire.FOUND:
            verdict.wrong.append(f"queue {queue}: {header['code']} {header.get('remark')} at {next_} of {end}")
            return found
        for offset, _, body, topic, properties in wire.records(stored):
            if offset != next_:
                verdict.wrong.append(f"queue {queue}: offset {offset} comes where {next_} should")
            number = int.from_bytes(body[:8], "big")
            tag = f"TAGS\x01t{number % 7}\x02".encode()
            if body != body_of(number) or topic != TOPIC or tag not in properties:
                verdict.wrong.append(f"queue {queue} offset {offset}: not what was sent")
            found[offset] = number
            verdict.read += 1
            next_ = offset + 1
    return found


def committed(link, queue, ledger, verdict):
    fields = {"consumerGroup": GROUP, "topic": TOPIC, "queueId": str(queue)}
    header, _ = link.call(wire.QUERY_OFFSET, fields)
    there = int(header["extFields"]["offset"]) if header["code"] == 0 else 0
    answered, sent = ledger.commits[queue]
    if there not in (answered, sent):
        text = f"queue {queue}: committed offset {there}, {answered} was acknowledged, {sent} was sent"
        (verdict.lost if there < answered else verdict.wrong).append(text)
    if there > verdict.ends[queue]:
        verdict.wrong.append(f"queue {queue}: committed offset {there} is behind the end {verdict.ends[queue]}")
    ledger.commits[queue] = (there, there)


def state(link, ledger, verdict):
    for code, table, promised in ((wire.TOPICS, "topicConfigTable", ledger.topics),
                                  (wire.GROUPS, "subscriptionGroupTable", ledger.groups)):
        header, body = link.call(code, {})
        there = json.loads(body)[table].keys() if header["code"] == 0 else ()
        verdict.lost.extend(f"{table}: {name} is gone" for name in promised - set(there))
