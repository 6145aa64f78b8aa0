#!/usr/bin/env python3
"""A slave whose disk was emptied, after the log from before the newest image has expired, becomes master; see README.md.

  emptied.py --weir WEIR --stand-in KUBE-STAND-IN

Exit code 0: every topic, group and offset and what is left of the messages was there. 1: not so. 0 with a line
"skipped: …": not possible here.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys

import network
import traffic
from group import NAMESRV_PORT, Group, until

wire = traffic.wire
TOPICS = {f"topic-{number}": 1 + number % 7 for number in range(40)}
GROUPS = [f"group-{number}" for number in range(10)]
# The group that reads what is left; a pull makes its group.
CHECKERS = "checkers"
FILLER, FILLER_BYTES, RUNTIME_INFO = "filler", 100_000, 28
SEGMENTS = 6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weir", required=True)
    parser.add_argument("--stand-in", required=True)
    parser.add_argument("--failures", default="weir-failover-failures", help="where logs and stores of failures go")
    options = parser.parse_args()
    if reason := network.why_not():
        print(f"skipped: a slave whose disk was emptied: {reason}")
        return 0
    binaries = {"weir": os.path.abspath(options.weir), "kube-stand-in": os.path.abspath(options.stand_in)}
    with network.trial(["api", "ns", "client", "r0", "r1", "r2"], options.failures) as trial:
        group = Group(trial.network, binaries, trial.folder, 3, "async", 2, 6000, False, "retention_hours = 0\n")
        try:
            trial.is_clean = promoted(group)
        except (TimeoutError, RuntimeError, AssertionError) as error:
            print(f"FAILED: {error}")
        finally:
            group.stop()
    return 0 if trial.is_clean else 1


def promoted(group):
    master = group.settle()
    link = connect(group, master)
    created_at = fill(link)
    until("what was before the newest image has expired", lambda: expire(group, created_at), 120)
    for number in range(200):
        send(link, FILLER, 0, b"late %d" % number)
    before = everything(link)
    link.close()

    slave = next(name for name in group.names if name != master)
    group.end(slave)
    shutil.rmtree(os.path.join(group.disks[slave].path, "data"))
    group.restart(slave)
    # By its own word: for a moment its master still counts the one that was stopped.
    until("the slave is in sync", lambda: group.is_safe_to_restart(slave), 90)
    namesrv = f"{group.network.addresses['ns']}:{NAMESRV_PORT}"
    command = [group.binaries["weir"], "cluster", "switch", group.NAME, "--to", str(group.names.index(slave) + 1),
               "--namesrv", namesrv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=group.environment)
    if done.returncode != 0:
        raise RuntimeError(f"weir cluster switch: {done.stdout} {done.stderr}")
    until("the slave is master", lambda: group.masters() == [slave], 30)
    link = connect(group, slave)
    after = everything(link)
    link.close()
    wrong = [f"{what}: {name}: {before[what].get(name)} before, {after[what].get(name)} after"
             for what in before for name in sorted(before[what].keys() | after[what].keys())
             if before[what].get(name) != after[what].get(name)]
    for line in wrong[:20]:
        print(line)
    counts = ", ".join(f"{len(before[what])} {what}" for what in before)
    print(f"a slave with an empty disk became master: {counts} compared, {len(wrong)} differ; the log began "
          f"{log_begin(group, slave) - created_at} bytes behind the last creation")
    return not wrong


def connect(group, name):
    return wire.Link(group.address(name), 20)


def fill(link):
    """Topics with a message in each queue, groups with an offset in each, and then enough to bury them. Answers where
    the log ended before that."""
    for topic, queues in [*TOPICS.items(), (FILLER, 1)]:
        assert wire.create_topic(link, topic, queues)["code"] == 0
    for name in [*GROUPS, CHECKERS]:
        assert wire.create_group(link, name)["code"] == 0
    for topic, queues in TOPICS.items():
        for queue in range(queues):
            send(link, topic, queue, b"early")
            for name in GROUPS:
                fields = {"consumerGroup": name, "topic": topic, "queueId": str(queue), "commitOffset": "1"}
                assert link.call(wire.UPDATE_OFFSET, fields)[0]["code"] == 0
    created_at = send(link, FILLER, 0, b"x" * FILLER_BYTES)
    for _ in range(SEGMENTS * (16 << 20) // FILLER_BYTES):
        send(link, FILLER, 0, os.urandom(FILLER_BYTES // 2).hex().encode())
    return created_at


def send(link, topic, queue, body):
    """Sends one message; answers where it is in the log."""
    fields = {"a": "producers", "b": topic, "c": "TBW102", "d": "4", "e": str(queue), "f": "0", "g": "1700000000000",
              "h": "0", "i": "", "j": "0", "k": "false", "m": "false"}
    header, _ = link.call(wire.SEND, fields, body)
    assert header["code"] == 0, header
    return int(header["extFields"]["msgId"][-16:], 16)


def expire(group, created_at):
    """Asks every replica to delete what has expired; whether all logs begin behind what was created first."""
    for name in group.names:
        link = connect(group, name)
        link.call(wire.DELETE_EXPIRED_LOG, {})
        link.close()
    return all(log_begin(group, name) > created_at for name in group.names)


def log_begin(group, name):
    link = connect(group, name)
    _, body = link.call(RUNTIME_INFO, {})
    link.close()
    return int(json.loads(body)["table"]["commitLogMinOffset"])


def everything(link):
    """Topics, groups, committed offsets, ends of queues, and the messages that are left, by name."""
    topics = json.loads(link.call(wire.TOPICS, {})[1])["topicConfigTable"]
    groups = json.loads(link.call(wire.GROUPS, {})[1])["subscriptionGroupTable"]
    queues = [(topic, queue) for topic, count in TOPICS.items() for queue in range(count)] + [(FILLER, 0)]
    offsets, ends, messages = {}, {}, {}
    for topic, queue in queues:
        place = {"topic": topic, "queueId": str(queue)}
        ends[topic, queue] = [link.call(code, place)[0]["extFields"]["offset"] for code in (wire.MIN_OFFSET, wire.MAX_OFFSET)]
        for name in GROUPS if topic != FILLER else []:
            header, _ = link.call(wire.QUERY_OFFSET, place | {"consumerGroup": name})
            offsets[name, topic, queue] = header["code"], header.get("extFields", {}).get("offset")
        messages |= {(topic, queue, offset): hash(body) for offset, body in left(link, topic, queue, *map(int, ends[topic, queue]))}
    return {"topics": topics, "groups": groups, "offsets": offsets, "ends of queues": ends, "messages": messages}


def left(link, topic, queue, at, end):
    while at < end:
        pull = {"consumerGroup": CHECKERS, "topic": topic, "queueId": str(queue), "queueOffset": str(at),
                "maxMsgNums": "32", "sysFlag": "4", "commitOffset": "0", "suspendTimeoutMillis": "0",
                "subscription": "*", "subVersion": "0"}
        header, stored = link.call(wire.PULL, pull)
        if header["code"] != wire.FOUND:
            yield at, f"{header['code']} {header.get('remark')}".encode()
            return
        for offset, _, body, _, _ in wire.records(stored):
            yield offset, body
            at = offset + 1


if __name__ == "__main__":
    sys.exit(main())
