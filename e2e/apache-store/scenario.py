"""One store directory and the brokers that take turns with it, and what is expected of them."""

import base64
import threading
import time

from programs import PATIENCE_SECONDS, Apache, Client, Failed, NameServer, Weir, free_broker_port

SEGMENT_BYTES = 1 << 20


class Report:
    def __init__(self):
        self.lock = threading.Lock()
        self.count = {"PASS": 0, "FAIL": 0, "SKIP": 0}

    def line(self, status, version, check, rest):
        with self.lock:
            self.count[status] += 1
            print(f"{status} {version} {check} {rest}", flush=True)


class Scenario:
    """One store directory and the brokers that take turns with it."""

    def __init__(self, version, name, report, weir, client, jars, work, extra=()):
        self.version, self.name, self.report = version, name, report
        self.work = work / f"{version}-{name}"
        self.store = self.work / "store"
        self.store.mkdir(parents=True)
        # One of its own: topics are made at whatever brokers a name server knows.
        self.namesrv = NameServer(weir, self.work)
        namesrv = self.namesrv.address
        port = free_broker_port()
        conf = self.work / "broker.conf"
        conf.write_text("\n".join([
            "brokerClusterName=DefaultCluster", f"brokerName=broker-{name}", "brokerId=0", "brokerIP1=127.0.0.1",
            "brokerIP2=127.0.0.1", f"listenPort={port}", f"namesrvAddr={namesrv}", f"storePathRootDir={self.store}",
            f"storePathCommitLog={self.store}/commitlog", "brokerRole=ASYNC_MASTER", "flushDiskType=ASYNC_FLUSH",
            "autoCreateTopicEnable=true", "autoCreateSubscriptionGroup=true", "fileReservedTime=48",
            # A JVM that has to wait for a processor is no broker that has to refuse.
            "waitTimeMillsInSendQueue=10000",
            f"mappedFileSizeCommitLog={SEGMENT_BYTES}", "maxMessageSize=65536", *extra]) + "\n")
        self.weir = Weir(weir, self.work, conf)
        self.apache = Apache(jars[version], self.work, conf, port)
        self.client = Client(client, self.work, namesrv)
        self.running = None

    def topic(self, name):
        return f"{self.name}-{name}"

    def check(self, name, act):
        """Runs one check and reports it; what follows relies on it, so a failure ends the scenario."""
        began = time.monotonic()
        try:
            result = act()
        except Failed as failure:
            self.report.line("FAIL", self.version, f"{self.name}:{name}", str(failure))
            raise
        self.report.line("PASS", self.version, f"{self.name}:{name}", f"{time.monotonic() - began:.1f}")
        return result

    def switch(self, broker, kill=False):
        """Stops the broker that runs and starts another."""
        self.halt(kill)
        self.running = broker
        broker.start()
        # TBW102 is in every broker: its route says that the name server knows this one by now.
        until(lambda: self.client.ask(do="dump", topics=["TBW102"]))

    def halt(self, kill=False):
        if self.running is not None:
            broker, self.running = self.running, None
            broker.kill() if kill else broker.stop()

    def send(self, kind, topic, name, count, **more):
        return self.client.ask(do="send", kind=kind, topic=self.topic(topic), name=name, count=count, **more)

    def dump(self, topics):
        return self.client.ask(do="dump", topics=[self.topic(topic) for topic in topics])

    def close(self):
        for process in (self.running, self.client, self.namesrv):
            if process is not None and process.process.poll() is None:
                process.kill()


def differences(expected, found):
    """What two dumps disagree about, in a few words; nothing when they are equal."""
    for place in sorted(set(expected) | set(found)):
        if place not in expected or place not in found:
            return f"{place} is only {'after' if place in found else 'before'}"
        before, after = expected[place], found[place]
        if (before["min"], before["max"]) != (after["min"], after["max"]):
            return f"{place}: {before['min']}..{before['max']} before, {after['min']}..{after['max']} after"
        for old, new in zip(before["messages"], after["messages"]):
            if old != new:
                keys = [key for key in old if old[key] != new.get(key)]
                return f"{place} {old['offset']}: " + ", ".join(f"{k} {old[k]} / {new.get(k)}" for k in keys)
        if len(before["messages"]) != len(after["messages"]):
            return f"{place}: {len(before['messages'])} messages before, {len(after['messages'])} after"
    return ""


def expect_equal(expected, found):
    difference = differences(expected, found)
    if difference:
        raise Failed(difference)


def until(act):
    """Does it again until it does not fail any more, within bounds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return act()
        except Failed:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)


def messages_of(dump):
    return [message for queue in dump.values() for message in queue["messages"]]


def contains(dump, sent):
    """Each message that was sent stands where its producer was told."""
    stored = {(m["topic"], m["queue"], m["offset"]): m for m in messages_of(dump)}
    for message in sent:
        for nth, (identity, unique) in enumerate(zip(message["id"].split(","), message["unique"].split(","))):
            found = stored.get((message["topic"], message["queue"], message["offset"] + nth))
            if found is None or (found["id"], found["unique"]) != (identity, unique):
                raise Failed(f"{message} was acknowledged and is not there")


def names(messages):
    """The names that `send` gave to messages, from their bodies."""
    return sorted(base64.b64decode(message["body"]).decode(errors="replace").split(" ")[0] for message in messages)
