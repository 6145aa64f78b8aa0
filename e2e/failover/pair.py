#!/usr/bin/env python3
"""Official clients at a master and its slave by configuration: what Java's producers are told of a slave that does not
confirm, and consumers that read from the slave while the master is away; see README.md.

  pair.py --weir WEIR

Exit code 0: everything that was sent was consumed, at the slave too, and no offset that was committed fell. 1: not so.
0 with a line "skipped: …": not possible here.
"""
import argparse
import collections
import os
import signal
import sys
import threading
import time

import network
import official
import promises
import traffic
from group import NAMESRV_PORT, Group, until

wire = traffic.wire
MASTER, SLAVE = "r0", "r1"
POLL_MS = 1000
# Less than the 3 s that a producer of Java's waits for an answer.
LIMITS = "flush_timeout_ms = 500\n"
# Sent while consumers are stopped; more than the few that were on their way to them in that moment.
BACKLOG = 600
# A slave shows what it knows to be confirmed: what its master acknowledged for the last it shows when that one is back.
UNTOLD_SECONDS = 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weir", required=True)
    parser.add_argument("--clients", default="java-4.9.8,java-5.5.0",
                        help="Java's 4.9.8 waits up to 30 s for the answer to a pull that its master died with")
    parser.add_argument("--keep", action="store_true", help="keep logs and stores in any case")
    parser.add_argument("--failures", default="weir-failover-failures", help="where logs and stores of failures go")
    options = parser.parse_args()
    if reason := network.why_not():
        print(f"skipped: official consumers at a slave: {reason}")
        return 0
    commands, missing = official.commands(options.clients.split(","))
    for kind, reason in missing.items():
        print(f"skipped: official consumers at a slave: {kind}: {reason}")
    if not commands:
        return 0
    with network.trial(["ns", "client", MASTER, SLAVE], options.failures, options.keep) as trial:
        pair = Group(trial.network, {"weir": os.path.abspath(options.weir)}, trial.folder, 2, "sync", 2, 6000, False,
                     is_elected=False, limit_settings=LIMITS)
        clients = None
        try:
            pair.settle()
            link = wire.Link(pair.address(MASTER))
            # On a busy machine a slave may take longer than the half second that LIMITS gives it.
            until("the topic is made", lambda: wire.create_topic(link, traffic.TOPIC, traffic.QUEUES)["code"] == 0, 30)
            link.close()
            namesrv = f"{trial.network.addresses['ns']}:{NAMESRV_PORT}"
            clients = official.Clients(namesrv, list(commands), commands, POLL_MS, trial.folder, False)
            trial.is_clean = campaign(pair, clients, list(commands))
        except (TimeoutError, AssertionError, RuntimeError, wire.Gone) as error:
            print(f"FAILED: {error}")
        finally:
            if clients:
                clients.kill()
            pair.stop()
    return 0 if trial.is_clean else 1


def campaign(pair, clients, kinds):
    commits = Commits(pair, clients)
    commits.start()
    served(clients)
    for status, away in (("FLUSH_SLAVE_TIMEOUT", stopped), ("SLAVE_NOT_AVAILABLE", killed)):
        clients.fault(status)
        away(pair, lambda: until(f"each producer is told {status}",
                                 lambda: all(clients.failures[f"{kind} {status}"] for kind in kinds), 30))
        pair.settle()
        served(clients)
        clients.outages()
    without_master(pair, clients, commits, kinds)
    clients.end()
    commits.end()
    compared = promises.compare(pair.address(MASTER), traffic.TOPIC, clients)
    lines = list(clients.explain(compared))
    wrong = compared.wrong + promises.described("acknowledged", compared.lost, compared.found)
    wrong += promises.described("seen by a consumer", compared.vanished, compared.found)
    wrong += clients.problems + commits.problems + pair.logs_differ()
    for line in lines + wrong[:20]:
        print(line)
    print(f"lost {len(compared.lost)} of {clients.count()} acknowledged, {len(wrong)} wrong; {commits.count} answers about "
          f"committed offsets")
    return not wrong


def without_master(pair, clients, commits, kinds):
    """Consumers that lack much lose their master and go on at its slave, where others begin and end, too."""
    running = list(clients.consumers)
    for consumer in running:
        consumer.process.send_signal(signal.SIGSTOP)
    before = clients.count()
    until(f"{BACKLOG} are sent that nobody has", lambda: clients.count() >= before + BACKLOG, 60)
    clients.fault("no master")
    pair.brokers[MASTER].kill()
    killed_at = time.monotonic()
    lacking = {group: len(messages) for group, messages in clients.missing().items()}
    for consumer in running:
        consumer.process.send_signal(signal.SIGCONT)
    late = clients.join([(kind, f"late-{kind.replace('.', '-')}") for kind in kinds], 100)
    ends = shown(pair, SLAVE)
    until("every group has what the slave shows", lambda: not any(
        offset < ends[queue] for messages in clients.missing().values() for queue, offset in messages), 60)
    seconds = time.monotonic() - killed_at
    for group, messages in clients.missing().items():
        early = [place for place in messages if clients.acknowledged_at[place] < killed_at - UNTOLD_SECONDS]
        clients.problems += [f"the slave did not show group {group} {early} (queue, offset)"] * bool(early)
        print(f"group {group} got {lacking.get(group, clients.count()) - len(messages)} messages at the slave, the last of them "
              f"{seconds:.1f} s after the master's end, and not the last {len(messages)}")
    for consumer in late:
        clients.leave(consumer)
    commits.are_known_at(SLAVE, {consumer.group: ends for consumer in running} | {consumer.group: [1] * len(ends) for consumer in late})
    committed = commits.without_master()
    pair.restart(MASTER)
    again = clients.join([(consumer.kind, consumer.group) for consumer in late], 200)
    pair.settle()
    served(clients)
    clients.outages()
    for group in (consumer.group for consumer in again):
        times = collections.Counter((queue, offset) for *_, queue, offset in list(clients.deliveries[group]))
        if twice := [place for place, count in times.items() if count > 1 and place[1] < committed[group, place[0]]]:
            clients.problems.append(f"group {group} had committed {len(twice)} at the slave and got them again: {twice[:5]}")


def shown(pair, name):
    """Where the queues end for consumers of this replica."""
    link = wire.Link(pair.address(name))
    places = [{"topic": traffic.TOPIC, "queueId": str(queue)} for queue in range(traffic.QUEUES)]
    ends = [int(link.call(wire.MAX_OFFSET, place)[0]["extFields"]["offset"]) for place in places]
    link.close()
    return ends


def stopped(pair, meanwhile):
    """The slave is connected and says nothing."""
    pair.brokers[SLAVE].send(signal.SIGSTOP)
    meanwhile()
    pair.brokers[SLAVE].send(signal.SIGCONT)


def killed(pair, meanwhile):
    pair.brokers[SLAVE].kill()
    meanwhile()
    pair.restart(SLAVE)


def served(clients):
    mark = clients.mark()
    until("everybody is served", lambda: clients.is_served_since(mark), 60)


class Commits(threading.Thread):
    """Asks both replicas again and again how far each group is. What one has said it never takes back, and a master that
    comes back knows with its first answer what was committed at its slave until then. What is committed there later it
    learns a moment later."""

    def __init__(self, pair, clients):
        super().__init__(daemon=True)
        self.pair, self.clients, self.groups = pair, clients, set()
        # replica -> (group, queue) -> the largest offset that it told
        self.told = {name: {} for name in pair.names}
        # What the slave told before the master came back.
        self.handed_over = {}
        self.count, self.problems, self.is_over = 0, [], threading.Event()

    def run(self):
        links = {}
        while not self.is_over.wait(0.05):
            for name in self.pair.names:
                try:
                    if name not in links:
                        links[name] = wire.Link(self.pair.address(name), 1)
                    self._ask(name, links[name])
                except (wire.Gone, AssertionError):
                    if name in links:
                        links.pop(name).close()
                except Exception as error:  # A thread must not end in silence.
                    self.problems.append(f"{type(error).__name__}: {error}")
                    return

    def without_master(self):
        """What the slave has told, once nobody commits at the master any more."""
        self.handed_over = dict(self.told[SLAVE])
        return self.handed_over

    def _ask(self, name, link):
        self.groups |= {consumer.group for consumer in list(self.clients.consumers)}
        for group in self.groups:
            for queue in range(traffic.QUEUES):
                key = group, queue
                least = self.told[name].get(key, 0)
                if name == MASTER:
                    least = max(least, self.handed_over.get(key, 0))
                fields = {"consumerGroup": group, "topic": traffic.TOPIC, "queueId": str(queue), "setZeroIfNotFound": "false"}
                header, _ = link.call(wire.QUERY_OFFSET, fields)
                if header["code"] not in (0, traffic.UNKNOWN_OFFSET):
                    continue
                offset = int(header["extFields"]["offset"]) if header["code"] == 0 else 0
                self.count += 1
                if offset < least:
                    self.problems.append(f"group {group}, queue {queue}: {name} says {offset} after {least}")
                self.told[name][key] = max(offset, least)

    def are_known_at(self, name, wanted):
        """Waits until this replica says that each group has committed so much of each queue, or more."""
        until(f"committed at {name}: {wanted}", lambda: all(
            self.told[name].get((group, queue), 0) >= offset for group, offsets in wanted.items()
            for queue, offset in enumerate(offsets)), 60)

    def end(self):
        self.is_over.set()
        self.join()
        assert self.count, "nobody said what is committed"


if __name__ == "__main__":
    sys.exit(main())
