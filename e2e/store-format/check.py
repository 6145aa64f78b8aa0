#!/usr/bin/env python3
"""Fills a store through a broker, stops it, reads the directory with reader.py, and compares with
what was sent and with what `weir store` says.

  check.py WEIR
"""
import base64
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import reader

# Segments of 2 MiB, so that there are several.
CONFIG = ("[broker.store]\nsegment_bytes = 2097152\nfree_bytes_min = 4096\n"
          "[broker.limits]\nmessage_bytes_max = 131072\n")
TOPICS = {"orders": 3, "long-" * 25: 2}
LINES = 9000


def run(weir, *arguments, stdin=None, env=None):
    done = subprocess.run([weir, *arguments], input=stdin, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"weir {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def fill(weir, root, config):
    """Produces, and says which bodies each topic got."""
    ports = ["--namesrv-port", "0", "--broker-port", "0", "--admin-port", "0"]
    arguments = [weir, "standalone", "--config", config, "--data", root, *ports]
    log = subprocess.DEVNULL
    server = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=log, text=True)
    sent = {}
    try:
        ready = next((line for line in server.stdout if line.startswith("ready ")), None)
        if ready is None:
            sys.exit("the server did not start")
        namesrv = dict(word.split("=", 1) for word in ready.split()[1:])["namesrv"]
        env = os.environ | {"NAMESRV_ADDR": namesrv}
        for topic, queues in TOPICS.items():
            run(weir, "topic", "create", topic, "--queues", str(queues), env=env)
            sent[topic] = [f"{n} of {topic} {'é' * (n % 300)}" for n in range(LINES)]
            run(weir, "produce", topic, "--tag", "täg", "--key", "some thing",
                stdin="\n".join(sent[topic]) + "\n", env=env)
        change_state(weir, env)
    finally:
        server.send_signal(signal.SIGTERM)
        if server.wait(timeout=60) != 0:
            sys.exit("the server did not stop cleanly")
    return sent


def change_state(weir, env):
    """Makes records of state of several kinds."""
    for name in ("kept", "gone"):
        run(weir, "topic", "create", name, "--queues", "2", env=env)
        run(weir, "group", "create", f"{name}-group", env=env)
    run(weir, "topic", "update", "kept", "--queues", "5", env=env)
    for group in ("kept-group", "gone-group"):
        run(weir, "consume", "orders", "--group", group, "-n", "40", "--from", "earliest", env=env)
    run(weir, "topic", "delete", "gone", env=env)
    run(weir, "group", "delete", "gone-group", env=env)


def compare_state(root, found):
    """The tables are what the broker has exported."""
    state = reader.state_of(found)
    assert state == reader.state_by_snapshot(root, found)
    exported = json.loads((root / "config/topics.json").read_text())["topicConfigTable"]
    assert {"kept", *TOPICS} <= state["topics"].keys() and "gone" not in state["topics"]
    for name, topic in state["topics"].items():
        theirs = exported[name]
        said = topic["readQueues"], topic["writeQueues"], topic["perm"], topic["isOrdered"]
        assert said == tuple(theirs[key] for key in ("readQueueNums", "writeQueueNums", "perm", "order")), name
    exported = json.loads((root / "config/subscriptionGroup.json").read_text())["subscriptionGroupTable"]
    assert "kept-group" in state["groups"] and "gone-group" not in state["groups"]
    for name, group in state["groups"].items():
        assert group == exported[name], name
    # Apache's numbers as keys are no JSON.
    text = (root / "config/consumerOffset.json").read_text()
    text = re.sub(r"([{,])(\d+):", r'\1"\2":', text)
    exported = {(key.split("@")[1], key.split("@")[0], int(queue)): offset
                for key, queues in json.loads(text)["offsetTable"].items()
                for queue, offset in queues.items()}
    assert state["offsets"] == exported and exported, (state["offsets"], exported)
    return sum(len(table) for table in state.values())


def compare_records(found, said):
    assert len(found) == len(said), (len(found), len(said))
    for ours, theirs in zip(found, said):
        assert ours["body"] == base64.b64decode(theirs["bodyBase64"]), ours["position"]
        for field in ours.keys() - {"body"}:
            assert ours[field] == theirs[field], (field, ours, theirs)


def compare_derived(root, found):
    """Queue and key files hold what the records say, and nothing else."""
    queues, keys = {}, []
    for start in reader.segment_starts(root):
        if not (root / f"weir/queues/{start:020}").exists():
            assert all(one["position"] < start for one in found), start
            continue
        for queue, entries in reader.queue_entries(root, start).items():
            queues.setdefault(queue, []).extend(entries)
        keys += reader.key_entries(root, start)
    expected = {}
    for one in found:
        entry = (one["queueOffset"], one["position"], one["size"], reader.tag_hash(one))
        expected.setdefault((one["topic"], one["queueId"]), []).append(entry)
    assert queues == expected
    wanted = [(reader.key_hash(one["topic"], key), one["position"])
              for one in found if one["topic"] != "weirmq.state" for key in reader.keys_of(one)]
    assert sorted(keys) == sorted(wanted)
    return sum(map(len, queues.values())), len(keys)


def main():
    weir = str(Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as folder:
        root, config = Path(folder, "data"), Path(folder, "weir.toml")
        config.write_text(CONFIG)
        sent = fill(weir, root, config)
        found = list(reader.records(root))
        for topic, bodies in sent.items():
            ours = sorted(one["body"].decode() for one in found if one["topic"] == topic)
            assert ours == sorted(bodies), topic
        lines = run(weir, "store", "inspect", str(root), "--at", "0", "-n", "1000000000", "-o", "json")
        compare_records(found, [json.loads(line) for line in lines.splitlines()])
        entries, keys = compare_derived(root, found)
        facts = compare_state(root, found)
        report = json.loads(run(weir, "store", "verify", str(root), "-o", "json"))
        assert report["records"] == len(found) and report["isSound"], report
        segments = len(json.loads(run(weir, "store", "inspect", str(root), "-o", "json"))["segments"])
        assert segments > 2, segments
    print(f"store format: {len(found)} records, {entries} queue entries, {keys} keys and {facts} facts of "
          f"state in {segments} segments read by the page alone")


main()
