"""What clients were told, beside what is there in the end."""
import bisect
import collections
import math
import os
import sys
import typing

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "crash"))
import wire  # noqa: E402


class Answer(typing.NamedTuple):
    """What a broker said yes to, a send or a commit: which one, on a connection since when, and when the request
    began and was answered. Times are monotonic seconds."""
    address: str
    since: float
    begun: float
    ended: float


class Compared(typing.NamedTuple):
    # queue -> offset -> number
    found: dict
    # What was acknowledged, and what a consumer saw, and is not there: queue, offset, number.
    lost: list
    vanished: list
    wrong: list
    # number -> how often it is there
    copies: dict


def compare(address, topic, load):
    """Reads all of the topic at this broker, and looks for what was promised."""
    wrong = []
    link = wire.Link(address, timeout=20)
    found = {queue: read(link, topic, queue, wrong) for queue in load.seen}
    link.close()
    given = [(*place, number) for place, numbers in load.acknowledged.items() for number in numbers]
    seen = [(queue, offset, number) for queue, by_offset in load.seen.items() for offset, number in by_offset.items()]

    def is_missing(place):
        queue, offset, number = place
        return found[queue].get(offset) != number

    copies = collections.Counter(number for by_offset in found.values() for number in by_offset.values())
    return Compared(found, list(filter(is_missing, given)), list(filter(is_missing, seen)), wrong, copies)


def read(link, topic, queue, wrong):
    """A whole queue, by offset; what cannot be is added to `wrong`."""
    found, next_ = {}, 0
    header, _ = link.call(wire.MAX_OFFSET, {"topic": topic, "queueId": str(queue)})
    end = int(header["extFields"]["offset"])
    while next_ < end:
        pull = {"consumerGroup": "checkers", "topic": topic, "queueId": str(queue), "queueOffset": str(next_),
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
    return found


def described(what, places, found):
    """Lines about what is not there."""
    def there(queue, offset):
        return f"{found[queue][offset]:x}" if offset in found[queue] else "nothing"

    return [f"queue {queue} offset {offset}: {number:x} was {what}, {there(queue, offset)} is there"
            for queue, offset, number in places]


def two_writers(compared, answers):
    """Whoever acknowledged a message that is lost was not the only one who did, if something that stands at its place
    or behind it, so in another log, had been acknowledged before the lost one was sent."""
    offsets, soonest = {}, {}
    for queue, by_offset in compared.found.items():
        offsets[queue], earliest = sorted(by_offset), math.inf
        for offset in reversed(offsets[queue]):
            answer = answers.get(by_offset[offset])
            earliest = min(earliest, answer.ended if answer else math.inf)
            soonest[queue, offset] = earliest
    for queue, offset, number in compared.lost:
        behind = bisect.bisect_left(offsets[queue], offset)
        there = offsets[queue][behind] if behind < len(offsets[queue]) else None
        late = answers[number].begun - soonest.get((queue, there), math.inf)
        if late > 0:
            yield (f"two writers: queue {queue} offset {offset}: {number:x} was sent to {answers[number].address} {late:.3f} s "
                   "after another one had acknowledged what is there")


def sent_too_far_back(sent_back, found):
    """A consumer may be sent to where its master's log ends, which is where the first lost message stood: so what it saw
    at that offset is not there."""
    for queue, at, to, saw in sent_back:
        if saw is not None and found[queue].get(to) == saw:
            yield f"queue {queue}: a consumer at {at} was sent to {to}, where the log still has what it saw"


def fell_in_the_log(fallen, compared, answers):
    """What was committed may be lost with its master, as messages are, but not if a message is there that the same master
    took after it: what stands before that in the log is there as well. Who is master no more closes its connections."""
    for queue, before, commit, now, ended in fallen:
        for number in compared.copies:
            answer = answers.get(number)
            if answer and answer.address == commit.address and answer.since < commit.ended < answer.begun < ended:
                yield (f"queue {queue}: a consumer had committed {before} at {commit.address} and was told {now}, though "
                       f"{number:x}, which was sent there later, is in the log")
                break
