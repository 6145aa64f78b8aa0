"""Who takes turns with a directory, and what happens to it in between."""

import struct
import subprocess
import time

from programs import PATIENCE_SECONDS, VERSIONS, Failed
from scenario import SEGMENT_BYTES, contains, expect_equal, messages_of, names, until

# Source: MessageVersion.
RECORD_MAGICS = (0xDAA320A7, 0xDAA320AB)
TOPICS = ["plain", "keyed", "ordered", "batch", "uniform", "compressed", "large"]


def write_round(scenario, name, large=300):
    """Messages of every kind that any broker serves at once."""
    sent = scenario.send("plain", "plain", name, 40)
    sent += scenario.send("keyed", "keyed", name, 60)
    for number in range(2):
        sent += scenario.send("ordered", "ordered", f"{name}-q{number}", 15, queue=number)
    sent += scenario.send("batch", "batch", name, 24)
    sent += scenario.send("plain", "uniform", name, 50, bytes=500)
    sent += scenario.send("keyed", "compressed", name, 10, bytes=12_000)
    sent += scenario.send("large", "large", name, large, bytes=12_000)
    return sent


def turn(scenario, broker, name, before, kill=False, large=300, has_keys=True):
    """One broker after the other: all is still there, more is written; answers with all there is."""
    who = "weir" if broker is scenario.weir else "apache"
    dump = lambda: begins_of(scenario, scenario.dump(TOPICS))
    scenario.check(f"{name}-{who}-opens{'-after-kill' if kill else ''}", lambda: scenario.switch(broker, kill))
    if before is not None:
        act = lambda: expect_equal(before, dump())
        # Apache may still be deriving its queues when it accepts requests.
        scenario.check(f"{name}-{who}-serves-all", act if who == "weir" else lambda: until(act))
        sample = messages_of(before)[::29]
        if has_keys:
            scenario.check(f"{name}-{who}-finds-by-key-and-id", lambda: until(lambda: finds(scenario, sample)))

    def write():
        sent = write_round(scenario, name, large)
        after = dump()
        contains(after, sent)
        if before is not None:
            for place, old in before.items():
                # What was there is still there, and offsets go on where they were.
                if after[place]["messages"][:len(old["messages"])] != old["messages"]:
                    raise Failed(f"{place} has changed while it was written")
        return after
    return scenario.check(f"{name}-{who}-goes-on", write)


def finds(scenario, sample):
    missing = scenario.client.ask(do="find", messages=sample)
    if missing:
        raise Failed(f"{len(missing)} look-ups failed: {missing[0]}")


def consume(scenario, group, topic, count, seconds=PATIENCE_SECONDS, **more):
    return scenario.client.ask(do="consume", group=scenario.topic(group), topic=scenario.topic(topic), count=count,
                               seconds=seconds, **more)


def consume_all(scenario, group, topic, expected):
    """Consumes exactly these; duplicates of what a kill left uncommitted do not count."""
    received = names(consume(scenario, group, topic, len(expected)))
    if sorted(set(received)) != sorted(expected):
        missing = sorted(set(expected) - set(received))
        extra = sorted(set(received) - set(expected))
        raise Failed(f"received {len(received)} of {len(expected)}; missing {missing[:3]}, unexpected {extra[:3]}")


def there_and_back(scenario, kill=False):
    """Apache, WeirMQ, Apache, WeirMQ, with a consumer group, retries and delays over every border."""
    s = scenario
    first = turn(s, s.apache, "1", None)
    s.check("1-apache-group-consumes", lambda: consume_all(s, "group", "keyed", [f"1-{i}" for i in range(60)]))
    s.check("1-apache-group-has-offsets", lambda: until(lambda: expect_committed(s, 60)))
    s.send("plain", "failing", "1", 6)
    s.check("1-apache-consumer-fails", lambda: expect_names(
        consume(s, "failing", "failing", 6, level=4), [f"1-{i}" for i in range(6)]))
    s.send("delayed", "delayed", "1", 8, level=4)
    if s.version == "5.5.0":
        s.send("half", "half", "1", 3)
        s.send("timer", "timer", "1", 4, seconds=600)

    time.sleep(6 if kill else 0)
    second = turn(s, s.weir, "2", first, kill)
    s.check("2-weir-knows-group-offsets", lambda: expect_committed(s, 60))
    s.check("2-weir-group-goes-on", lambda: consume_all(s, "group", "keyed", [f"2-{i}" for i in range(60)]))
    s.check("2-weir-redelivers-failed", lambda: redelivered(consume(s, "failing", "failing", 6), "1"))
    s.check("2-weir-delivers-delayed", lambda: consume_all(s, "delayed", "delayed", [f"1-{i}" for i in range(8)]))
    if s.version == "5.5.0":
        s.check("2-weir-names-what-it-does-not-serve", lambda: said(s, "RMQ_SYS_TRANS_HALF_TOPIC", "rmq_sys_wheel_timer"))
        s.check("2-weir-delivers-none-of-it", lambda: nothing_of(s, ["half", "timer"]))
    s.check("2-weir-group-has-offsets", lambda: until(lambda: expect_committed(s, 120)))
    s.send("plain", "failing", "2", 6)
    consume(s, "failing", "failing", 6, level=4)
    s.send("delayed", "delayed", "2", 8, level=4)

    third = turn(s, s.apache, "3", second)
    s.check("3-apache-knows-group-offsets", lambda: expect_committed(s, 120))
    s.check("3-apache-group-goes-on", lambda: consume_all(s, "group", "keyed", [f"3-{i}" for i in range(60)]))
    s.check("3-apache-redelivers-failed", lambda: redelivered(consume(s, "failing", "failing", 6), "2"))
    s.check("3-apache-delivers-delayed", lambda: consume_all(s, "delayed", "delayed", [f"2-{i}" for i in range(8)]))

    s.check("3-apache-group-has-offsets", lambda: until(lambda: expect_committed(s, 180)))
    # A kill loses what Apache has not written yet; it writes offsets every 5 s.
    time.sleep(6 if kill else 0)
    turn(s, s.weir, "4", third, kill)
    s.check("4-weir-knows-group-offsets", lambda: expect_committed(s, 180))
    s.check("4-weir-group-goes-on", lambda: consume_all(s, "group", "keyed", [f"4-{i}" for i in range(60)]))
    if not kill:
        # How far Apache has come with what is delayed; a kill may take that from it.
        s.check("4-weir-delivers-nothing-delayed-again", lambda: expect_each_once(
            names(messages_of(s.dump(["delayed"]))), [f"{round_name}-{i}" for round_name in "12" for i in range(8)]))
    s.check("4-weir-stops", s.halt)


def expect_committed(scenario, total):
    """Commits are one-way: a consumer that has ended may still have one under way."""
    found = scenario.client.ask(do="committed", group=scenario.topic("group"), topic=scenario.topic("keyed"))
    if sum(found.values()) != total:
        raise Failed(f"offsets are {found}, the group consumed {total} messages")


def expect_names(received, expected):
    if not set(expected) <= set(names(received)):
        raise Failed(f"received {names(received)}")


def expect_each_once(found, expected):
    if sorted(found) != sorted(expected):
        raise Failed(f"found {sorted(found)}")


def redelivered(received, round_name):
    again = [message for message in received if message["reconsumeTimes"] > 0]
    if not {f"{round_name}-{i}" for i in range(6)} <= set(names(again)):
        raise Failed(f"received again only {names(again)}")


def said(scenario, *words):
    missing = [word for word in words if word not in scenario.weir.said()]
    if missing:
        raise Failed(f"its log does not name {missing}")


def nothing_of(scenario, topics):
    for topic in topics:
        dump = scenario.dump([topic])
        if messages_of(dump):
            raise Failed(f"serves {names(messages_of(dump))}")


def many_segments(scenario, export=False):
    """More segments than Apache 5.5 derives queues from on its own (commitLogRecoverMaxNum = 10)."""
    s = scenario
    first = turn(s, s.apache, "1", None, large=1200)
    second = turn(s, s.weir, "2", first)
    s.check("2-weir-stops", s.halt)
    if export:
        s.check("2-weir-exports-queues", lambda: weir_store(s, "export-queues", s.store, "--to", s.store))
    # Apache derives its index together with its queues, so with these it knows no keys of before.
    third = turn(s, s.apache, "3", second, has_keys=not export)
    turn(s, s.weir, "4", third)
    s.check("4-weir-stops", s.halt)


def closed_after_kill(scenario):
    """`weir store close` makes a directory that was left by kill -9 one that Apache may open."""
    s = scenario
    first = turn(s, s.apache, "1", None)
    second = turn(s, s.weir, "2", first)
    s.check("2-weir-is-killed", lambda: s.halt(kill=True))
    s.check("2-weir-store-close", lambda: weir_store(s, "close", s.store))
    third = turn(s, s.apache, "3", second)
    turn(s, s.weir, "4", third)
    s.check("4-weir-stops", s.halt)


def expired(scenario):
    """WeirMQ expires the oldest segments; the log does not begin at 0 any more."""
    s = scenario
    first = turn(s, s.apache, "1", None, large=700)
    turn(s, s.weir, "2", first)
    before = expire(s, s.weir, "3-weir")
    s.check("3-weir-stops", s.halt)
    # Where queues without messages go on stands nowhere but in these.
    s.check("3-weir-exports-queues", lambda: weir_store(s, "export-queues", s.store, "--to", s.store))
    fourth = turn(s, s.apache, "4", begins_of(s, before), has_keys=False)
    turn(s, s.weir, "5", fourth)
    s.check("5-weir-stops", s.halt)


def recycled(scenario, kill=False):
    """WeirMQ writes messages of one size into segments that had another life, of messages of that size: whatever
    stands behind the end of the log looks like its continuation. Apache must not take any of it."""
    s = scenario
    turn(s, s.weir, "1", None, large=5)
    s.check("1-weir-fills-segments", lambda: s.send("plain", "uniform", "old", 6000, bytes=500))
    expire(s, s.weir, "2-weir", needs_empty=False)
    spares = {path.stat().st_ino for path in (s.store / "weir" / "spare").iterdir()}
    s.check("3-weir-opens", lambda: s.switch(s.weir))

    def until_recycled():
        for number in range(40):
            s.send("plain", "uniform", f"new{number}", 300, bytes=500)
            newest = newest_with_records(s.store)
            if newest.stat().st_ino in spares:
                return
        raise Failed(f"none of the {len(spares)} spare segments was used")
    s.check("3-weir-writes-a-recycled-segment", until_recycled)
    before = write_round(s, "3", large=5) and s.dump(TOPICS)
    s.check("3-weir-is-still-on-it", lambda: expect(newest_with_records(s.store).stat().st_ino in spares))
    s.check("3-weir-is-killed" if kill else "3-weir-stops", lambda: s.halt(kill))
    if kill:
        s.check("3-weir-store-close", lambda: weir_store(s, "close", s.store))
    s.check("3-weir-exports-queues", lambda: weir_store(s, "export-queues", s.store, "--to", s.store))
    fourth = turn(s, s.apache, "4", begins_of(s, before), large=5, has_keys=False)
    turn(s, s.weir, "5", fourth, large=5)
    s.check("5-weir-stops", s.halt)


def newest_with_records(store):
    """The segment that is written now; those behind it are prepared, without records."""
    for segment in sorted((store / "commitlog").glob("0*"), reverse=True):
        with open(segment, "rb") as file:
            if file.read(4) != bytes(4):
                return segment
    raise Failed("there are no records")


def expect(is_so):
    if not is_so:
        raise Failed("the log is on a segment without a life before")


def expired_by_apache(scenario):
    """The same by Apache, whose own next start shows what can be asked of a store of ours."""
    s = scenario
    turn(s, s.apache, "1", None, large=700)
    before = begins_of(s, expire(s, s.apache, "2-apache"), is_certain=False)
    s.check("3-apache-opens", lambda: s.switch(s.apache))
    s.check("3-apache-serves-all", lambda: until(lambda: expect_equal(before, begins_of(s, s.dump(TOPICS)))))
    fourth = turn(s, s.weir, "4", before)
    s.check("4-weir-stops", s.halt)
    s.check("4-weir-exports-queues", lambda: weir_store(s, "export-queues", s.store, "--to", s.store))
    turn(s, s.apache, "5", fourth, has_keys=False)


def overwritten(scenario, kill=False):
    """A power cut loses a page; Apache cuts its log there, which only moves its write position, and
    writes on over records that were whole. What stays of them behind the end is no damage."""
    s = scenario
    turn(s, s.apache, "1", None)
    s.check("1-apache-is-killed", lambda: s.halt(kill=True))
    s.check("1-a-page-is-lost", lambda: lose_record(s, 30))
    cut = time.time()
    s.check("2-apache-opens", lambda: s.switch(s.apache))
    # Shorter than what was cut, so that old records stay.
    s.send("plain", "plain", "2", 8)
    before = s.dump(TOPICS)
    if kill:
        # What stays of before is told from damage by how far its queues are known to be on disk.
        s.check("2-apache-notes-how-far-it-is", lambda: until(lambda: vouches_for(s, cut)))
    s.check(f"3-weir-opens{'-after-kill' if kill else ''}", lambda: s.switch(s.weir, kill))
    s.check("3-weir-serves-all", lambda: expect_equal(before, s.dump(TOPICS)))
    s.check("3-weir-says-what-it-left-out", lambda: said(s, "they are cut"))
    third = turn(s, s.apache, "4", before)
    turn(s, s.weir, "5", third)
    s.check("5-weir-stops", s.halt)


def vouches_for(scenario, stored_before):
    """Apache's checkpoint says that the queues of what was stored before are on disk. Its second field is a
    time in milliseconds, of which 3 s are deducted (`StoreCheckpoint`)."""
    with open(scenario.store / "checkpoint", "rb") as file:
        _, queues_ms = struct.unpack(">QQ", file.read(16))
    if queues_ms / 1000 - 3 <= stored_before:
        raise Failed(f"its checkpoint is of {queues_ms} ms, the log was cut at {stored_before:.3f} s")


def behind(scenario, again=False):
    """A power cut keeps pages of queues and loses the log's: Apache's queues know messages that its log does not
    have, also after Apache has cut both and was stopped (`again`), because it leaves entries where they were."""
    s = scenario
    turn(s, s.apache, "1", None)
    s.check("1-apache-is-killed", lambda: s.halt(kill=True))
    s.check("1-the-last-pages-are-lost", lambda: lose_record(s, 30, all_behind=True))
    if again:
        s.check("2-apache-opens", lambda: s.switch(s.apache))
        # It sets the time of the last message in its queues when it looks at that one again.
        before = s.dump(TOPICS)
        s.check("2-apache-stops", s.halt)
    s.check("3-weir-opens", lambda: s.switch(s.weir))
    s.check("3-weir-says-what-is-not-there", lambda: said(s, "know messages that are not in the log"))
    third = s.dump(TOPICS)
    if again:
        s.check("3-weir-serves-what-apache-did", lambda: expect_equal(before, third))
    turn(s, s.apache, "4", third)
    s.check("4-apache-stops", s.halt)


def without_newest(scenario, kill=False):
    """The newest file of the log is gone. Apache goes on without a word to anybody but its log; WeirMQ does not start."""
    s = scenario
    first = turn(s, s.apache, "1", None)
    s.check("1-apache-is-killed" if kill else "1-apache-stops", lambda: s.halt(kill))
    newest, aside = newest_with_records(s.store), s.work / "aside"
    newest.rename(aside)
    s.check("2-weir-refuses", lambda: refused(s, newest.name, "is not there; put it back"))
    aside.rename(newest)
    s.check("3-weir-opens", lambda: s.switch(s.weir))
    s.check("3-weir-serves-all", lambda: expect_equal(first, s.dump(TOPICS)))
    fourth = turn(s, s.apache, "4", first)
    s.check("4-apache-stops", lambda: s.halt(kill))
    newest = newest_with_records(s.store)
    newest.unlink()
    s.check("5-weir-refuses", lambda: refused(s, newest.name, "is not there; put it back"))
    s.check("5-weir-store-repair", lambda: weir_store(s, "repair", s.store, "--cut-at-damage"))
    s.check("5-weir-opens", lambda: s.switch(s.weir))
    left = s.dump(TOPICS)
    s.check("5-weir-serves-the-rest", lambda: expect_beginning(fourth, left))
    turn(s, s.apache, "6", left)
    s.check("6-apache-stops", s.halt)
    with open(newest_with_records(s.store), "r+b") as file:
        file.truncate(SEGMENT_BYTES // 2)
    s.check("7-weir-refuses-a-short-file", lambda: refused(s, "bytes long", "put the whole file back"))
    s.check("7-apache-refuses-it-too", lambda: expect_failure(s.apache.start))


def refused(scenario, *words):
    try:
        scenario.weir.start()
    except Failed:
        return said(scenario, *words)
    scenario.weir.kill()
    raise Failed("it started")


def expect_failure(act):
    try:
        act()
    except Failed:
        return
    raise Failed("it started")


def expect_beginning(whole, left):
    """Each queue has its first messages, and not all have all."""
    if len(messages_of(left)) >= len(messages_of(whole)):
        raise Failed("nothing is lost")
    for place, queue in left.items():
        if queue["messages"] != whole[place]["messages"][:len(queue["messages"])]:
            raise Failed(f"{place} does not begin as before")


def lose_record(scenario, count, all_behind=False):
    """Takes the head off the record that many before the last one of the newest segment with any, or that record
    and all behind it."""
    for segment in sorted((scenario.store / "commitlog").glob("0*"), reverse=True):
        with open(segment, "r+b") as file:
            begins, at = [], 0
            while True:
                file.seek(at)
                size, magic = struct.unpack(">iI", file.read(8))
                if size <= 0 or magic not in RECORD_MAGICS:
                    break
                begins.append(at)
                at += size
            if begins:
                if len(begins) <= count:
                    raise Failed(f"{segment} has only {len(begins)} records")
                file.seek(begins[-count - 1])
                file.write(bytes(at - begins[-count - 1] if all_behind else 40))
                return
    raise Failed("there are no records")


def expire(scenario, broker, name, needs_empty=True):
    """Has a broker expire all that it may; answers with what is left. Some queue has nothing left. WeirMQ keeps
    expired segments for their next life only on a disk that is not full."""
    s = scenario
    text = s.weir.broker_conf.read_text()
    hours = ";".join(f"{hour:02}" for hour in range(24))
    s.weir.broker_conf.write_text(text.replace("fileReservedTime=48", f"fileReservedTime=0\ndeleteWhen={hours}\ndiskMaxUsedSpaceRatio=95"))
    s.check(f"{name}-opens", lambda: s.switch(broker))

    def until_expired():
        deadline = time.monotonic() + 200
        while len(list((s.store / "commitlog").glob("0*"))) > 2:
            if time.monotonic() > deadline:
                raise Failed("not everything expired within 200 s")
            time.sleep(1)
        left = s.dump(TOPICS)
        empty = [place for place, queue in left.items() if queue["max"] > 0 and not queue["messages"]]
        if needs_empty and not empty:
            raise Failed("every queue has messages left, so this would prove nothing about empty ones")
        return left
    left = s.check(f"{name}-expires", until_expired)
    s.weir.broker_conf.write_text(text)
    return left


def begins_of(scenario, dump, is_certain=None):
    """Apache 4.9 forgets where a queue without messages begins: its next start says 0, although it
    knows where the queue ends. 5.5 says so until it looks next. Then each queue counts from its first
    message on."""
    if scenario.version != "4.9.4" if is_certain is None else is_certain:
        return dump
    begin = lambda queue: queue["messages"][0]["offset"] if queue["messages"] else queue["max"]
    return {place: queue | {"min": begin(queue)} for place, queue in dump.items()}


def weir_store(scenario, *words):
    done = subprocess.run([str(word) for word in (scenario.weir.binary, "store", *words)], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE_SECONDS)
    if done.returncode != 0:
        raise Failed(f"ended with {done.returncode}: {done.stdout[-500:]}")


# 5.5 has to be told to look at more than ten segments; 4.9 does not know the setting.
ALL_SEGMENTS = {"5.5.0": ["commitLogRecoverMaxNum=100000"]}
# Apache writes its checkpoint with its queues: each minute, if they are told nothing else.
NOTES_SOON = dict.fromkeys(VERSIONS, ["flushConsumeQueueThoroughInterval=1000"])
SHORT = {"clean": (there_and_back, {})}
LONG = SHORT | {
    "killed": (lambda scenario: there_and_back(scenario, kill=True), {}),
    "closed": (closed_after_kill, {}),
    "segments": (many_segments, ALL_SEGMENTS),
    "exported": (lambda scenario: many_segments(scenario, export=True), {}),
    "expired": (expired, {}),
    "recycled": (recycled, {}),
    "recycled-killed": (lambda scenario: recycled(scenario, kill=True), {}),
    "expired-by-apache": (expired_by_apache, {}),
    "overwritten": (overwritten, {}),
    "overwritten-killed": (lambda scenario: overwritten(scenario, kill=True), NOTES_SOON),
    "behind": (behind, {}),
    "behind-again": (lambda scenario: behind(scenario, again=True), {}),
    "without-newest": (without_newest, {}),
    "without-newest-killed": (lambda scenario: without_newest(scenario, kill=True), {}),
}
