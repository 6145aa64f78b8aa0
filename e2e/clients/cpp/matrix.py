"""The C++ remoting library of 2018, through its Python binding, against one cluster.

Arguments: name server, prefix of topic and group names, features separated by commas. Prints one
line a feature: `RESULT name ok seconds` or `RESULT name fail reason`.
"""

import os
import queue
import sys
import time
import traceback

from rocketmq.client import Message, Producer, PullConsumer, PushConsumer, SendStatus

BOUND_SECONDS = 40


def check(holds, what):
    if not holds:
        raise AssertionError(what)


class Scope:
    """What one feature works with: its own topic and group, and a producer."""

    def __init__(self, namesrv, prefix, feature):
        self.namesrv = namesrv
        self.topic = f"{prefix}-{feature}"
        self.group = f"g-{prefix}-{feature}"
        self.producer = Producer(f"p-{self.topic}", timeout=5000)
        self.producer.set_namesrv_addr(namesrv)
        self.producer.start()

    def body(self, i):
        return f"{self.topic} body {i}"

    def message(self, i, tag):
        message = Message(self.topic)
        message.set_keys(f"key-{i}")
        message.set_tags(tag)
        message.set_property("number", str(i))
        message.set_body(self.body(i))
        return message

    def send(self, first, end, tag):
        results = []
        for i in range(first, end):
            result = self.producer.send_sync(self.message(i, tag))
            check(result.status == SendStatus.OK and len(result.msg_id) >= 32 and result.offset >= 0,
                  f"send answered {result}")
            results.append(result)
        return results

    def pull(self, count, expression="*"):
        """Pulls until `count` messages are there, as dictionaries: a message dies with its batch."""
        consumer = PullConsumer(self.group)
        consumer.set_namesrv_addr(self.namesrv)
        consumer.start()
        received = []
        end = time.monotonic() + BOUND_SECONDS
        try:
            while len(received) < count:
                check(time.monotonic() < end, f"waited for {count} messages, have {len(received)}")
                before = len(received)
                try:
                    received.extend(parts(message) for message in consumer.pull(self.topic, expression))
                except Exception as error:
                    # Until the name server knows the topic.
                    check("TopicPublishInfo" in str(error) or "route" in str(error).lower(), repr(error))
                if len(received) == before:
                    time.sleep(0.02)
        finally:
            consumer.shutdown()
        return received

    def check_messages(self, received, first, end, tag):
        numbers = sorted(int(message["number"]) for message in received)
        check(numbers == list(range(first, end)), f"expected messages {first} to {end - 1}, got {numbers}")
        for message in received:
            i = int(message["number"])
            check(message["topic"] == self.topic, f"topic {message['topic']}")
            check(message["body"] == self.body(i), f"body {message['body']!r} of message {i}")
            check(message["keys"] == f"key-{i}", f"keys {message['keys']!r} of message {i}")
            check(message["tags"] == tag, f"tags {message['tags']!r} of message {i}")
            check(message["times"] == 0, f"message {i} was consumed {message['times']} times before")


def parts(message):
    return {
        "topic": message.topic, "id": message.id, "body": message.body.decode(),
        "keys": message.keys.decode(), "tags": message.tags.decode(),
        "number": message.get_property("number").decode(), "times": message.reconsume_times,
        "queue": message.queue_id, "offset": message.queue_offset,
    }


def sync(scope):
    results = scope.send(0, 12, "TagA")
    received = scope.pull(12)
    scope.check_messages(received, 0, 12, "TagA")
    places = {message["id"]: message["offset"] for message in received}
    for result in results:
        check(places.get(result.msg_id) == result.offset, f"{result} came back as {places.get(result.msg_id)}")


def oneway(scope):
    # The first send makes the topic, and says when that has happened.
    scope.send(0, 1, "TagA")
    for i in range(1, 20):
        scope.producer.send_oneway(scope.message(i, "TagA"))
    scope.check_messages(scope.pull(20), 0, 20, "TagA")


def pull(scope):
    """Everything first, then by tag; a second round starts where the first ended."""
    for i in range(20):
        scope.send(i, i + 1, ("TagA", "TagB")[i % 2])
    received = scope.pull(20)
    for tag, remainder in (("TagA", 0), ("TagB", 1)):
        numbers = sorted(int(message["number"]) for message in received if message["tags"] == tag)
        check(numbers == list(range(remainder, 20, 2)), f"messages with {tag}: {numbers}")
    # The binding keeps the offsets in the class, by queue.
    scope.send(20, 25, "TagC")
    scope.check_messages(scope.pull(5), 20, 25, "TagC")


def push(scope):
    """This library starts a new group at the newest message, so it is sent probes until it listens."""
    scope.send(0, 4, "Probe")
    arrived = queue.Queue()
    consumer = PushConsumer(scope.group)
    consumer.set_namesrv_addr(scope.namesrv)
    consumer.subscribe(scope.topic, lambda message: arrived.put(parts(message)))
    consumer.start()
    end = time.monotonic() + BOUND_SECONDS
    queues = set()
    number = 4
    while len(queues) < 4:
        check(time.monotonic() < end, f"waited for a probe from each of 4 queues, have {queues}")
        scope.send(number, number + 1, "Probe")
        number += 1
        try:
            queues.add(arrived.get(timeout=0.1)["queue"])
        except queue.Empty:
            pass
    scope.send(number, number + 20, "TagA")
    received = []
    while len(received) < 20:
        check(time.monotonic() < end, f"waited for 20 messages, have {len(received)}")
        try:
            message = arrived.get(timeout=1)
        except queue.Empty:
            continue
        if message["tags"] == "TagA":
            received.append(message)
    scope.check_messages(received, number, number + 20, "TagA")
    consumer.shutdown()


FEATURES = {"sync": sync, "oneway": oneway, "pull": pull, "push": push}


def main():
    namesrv, prefix, wanted = sys.argv[1:4]
    for name in wanted.split(","):
        begin = time.monotonic()
        try:
            FEATURES[name](Scope(namesrv, prefix, name))
            outcome = f"ok {time.monotonic() - begin:.2f}"
        except Exception as error:
            traceback.print_exc()
            outcome = "fail " + " ".join(repr(error).split())
        print(f"RESULT {name} {outcome}", flush=True)
    # The library's threads outlive its shutdown and crash in its destructors now and then.
    os._exit(0)


if __name__ == "__main__":
    main()
