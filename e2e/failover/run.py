#!/usr/bin/env python3
"""Faults of the master of a broker group under load, in network namespaces; see README.md.

  run.py --weir WEIR --stand-in KUBE-STAND-IN [--count N] [--faults kill,freeze,…]

Exit code 0: nothing was lost. 1: something was lost or wrong. 0 with a line "skipped: …": not possible here.
"""
import argparse
import ctypes
import json
import os
import random
import signal
import shutil
import statistics
import sys
import tempfile
import time

import network
import traffic
from group import BROKER_PORT, FREEZE, NAMESRV_PORT, THAW, Group, disk, until

# What it does to the master, and what to the page cache of its machine.
FAULTS = {
    "kill": "SIGKILL; the page cache stays",
    "freeze": "SIGSTOP beyond the lease, then SIGCONT; nothing is lost, but it wakes as a master of the past",
    "cut": "cut off from everybody, then back",
    "mute": "what it sends is lost, what others send arrives",
    "api": "cut off from the authority only: nobody has to take its place",
    "term": "SIGTERM: it hands over",
    "stall": "its disk takes nothing for 12 s (FIFREEZE); the page cache stays",
    "power": "its machine loses power; what was not flushed is gone",
    "blackout": "all machines lose power at once; what was not flushed is gone",
}
# Those that need a file system of their own.
OF_DISKS = {"stall", "power", "blackout"}
STALL_SECONDS = 12


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weir", required=True)
    parser.add_argument("--stand-in", required=True)
    parser.add_argument("--count", type=int, default=2, help="faults of each kind")
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--min-in-sync", type=int, default=2)
    parser.add_argument("--flush", choices=["sync", "async"], default="sync")
    parser.add_argument("--lease-ms", type=int, default=6000)
    parser.add_argument("--control", action="store_true",
                        help="blackouts with asynchronous flush: fails if nothing is lost")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--results", help="a file for the counts and times")
    parser.add_argument("--failures", default="weir-failover-failures", help="where logs and stores of failures go")
    options = parser.parse_args()
    if reason := network.why_not():
        print(f"skipped: {options.count} faults of each of {options.faults}: {reason}")
        return 0
    options.faults = options.faults.split(",")
    if options.control:
        options.faults, options.flush = ["blackout"], "async"
    if (set(options.faults) & OF_DISKS) and (reason := disk.why_not()):
        skipped = [fault for fault in options.faults if fault in OF_DISKS]
        print(f"skipped: {options.count} faults of each of {', '.join(skipped)}: {reason}")
        options.faults = [fault for fault in options.faults if fault not in OF_DISKS]
    if not options.faults:
        return 0
    options.seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4), "big")
    print(f"repeat with --seed {options.seed} (the choices, not the timing)", flush=True)
    # So that everything that was made goes, however this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = ["api", "ns", "client", *(f"r{n}" for n in range(options.replicas))]
    net = network.Network(names)
    folder = tempfile.mkdtemp(prefix="weir-failover-")
    is_clean = False
    try:
        # The harness itself talks to everybody, so it moves to where the clients are.
        enter(net.namespace("client"))
        is_clean = campaign(options, net, folder)
    finally:
        if is_clean:
            shutil.rmtree(folder)
        else:
            shutil.move(folder, options.failures)
            print(f"logs and stores are in {options.failures}")
        net.remove()
    return 0 if is_clean else 1


def enter(namespace):
    """Moves this thread, and those it starts, into a network namespace."""
    clone_newnet = 0x40000000
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{namespace}") as file:
        if libc.setns(file.fileno(), clone_newnet) != 0:
            raise OSError(ctypes.get_errno(), f"setns {namespace}")


def campaign(options, net, folder):
    chance = random.Random(options.seed)
    binaries = {"weir": os.path.abspath(options.weir), "kube-stand-in": os.path.abspath(options.stand_in)}
    group = Group(net, binaries, folder, options.replicas, options.flush, options.min_in_sync, options.lease_ms,
                  bool(set(options.faults) & OF_DISKS))
    namesrv = f"{net.addresses['ns']}:{NAMESRV_PORT}"
    load = None
    try:
        master = group.settle()
        link = traffic.wire.Link(f"{net.addresses[master]}:{BROKER_PORT}")
        answer = traffic.wire.create_topic(link, traffic.TOPIC, traffic.QUEUES)
        assert answer["code"] == 0, answer
        link.close()
        load = traffic.Traffic(namesrv)
        outages = {}
        order = [fault for fault in options.faults for _ in range(options.count)]
        chance.shuffle(order)
        for number, fault in enumerate(order, 1):
            outage = one_fault(fault, group, net, load, chance, options)
            outages.setdefault(fault, []).append(outage)
            print(f"{number} of {len(order)}: {fault}, {outage:.2f} s without an acknowledgement, "
                  f"{load.count()} acknowledged", flush=True)
        load.end()
        master = group.settle()
        return report(options, load, outages, f"{net.addresses[master]}:{BROKER_PORT}")
    except (TimeoutError, AssertionError, RuntimeError) as error:
        print(f"FAILED: {error}")
        for name in group.names:
            print(name, group.metrics(name))
        return False
    finally:
        if load:
            load.is_over.set()
        group.stop()


def one_fault(fault, group, net, load, chance, options):
    """Does it to the master, waits until messages are taken again and everybody is back; answers for how
    long nothing was acknowledged, in seconds."""
    master = group.settle()
    acknowledged = load.count()
    until("there is load", lambda: load.count() > acknowledged + 50, 30)
    time.sleep(chance.random())
    broker, beyond = group.brokers[master], options.lease_ms / 1000 * (1.2 + chance.random())
    load.fault()
    if fault == "kill":
        broker.kill()
        serves_again(group, load, options)
        group.brokers[master] = group.start(master)
    elif fault == "freeze":
        broker.send(signal.SIGSTOP)
        serves_again(group, load, options)
        time.sleep(beyond)
        broker.send(signal.SIGCONT)
    elif fault == "cut":
        net.cut(master)
        serves_again(group, load, options)
        time.sleep(beyond)
        net.heal(master)
    elif fault == "mute":
        net.mute(master, [name for name in net.addresses if name != master])
        serves_again(group, load, options)
        time.sleep(beyond)
        net.heal(master)
    elif fault == "api":
        net.mute(master, ["api"])
        serves_again(group, load, options)
        time.sleep(beyond * 2)
        net.heal(master)
    elif fault == "stall":
        group.disks[master].freeze(FREEZE)
        try:
            serves_again(group, load, options)
            time.sleep(STALL_SECONDS)
        finally:
            group.disks[master].freeze(THAW)
    elif fault == "power":
        group.lose_power([master])
        serves_again(group, load, options)
    elif fault == "blackout":
        group.lose_power(group.names)
        serves_again(group, load, options)
    elif fault == "term":
        broker.send(signal.SIGTERM)
        broker.process.wait(30)
        serves_again(group, load, options)
        group.restart(master)
    outage = load.outage()
    group.settle()
    return outage


def serves_again(group, load, options):
    acknowledged = load.count()
    until("messages are acknowledged again", lambda: load.count() > acknowledged + 20, 60)


def report(options, load, outages, address):
    lost, wrong, duplicates = traffic.compare(address, load)
    wrong += load.problems
    for line in [] if options.control else (lost + wrong)[:20]:
        print(line)
    figures = {}
    for fault, times in outages.items():
        times.sort()
        p50, p99 = statistics.median(times), times[min(len(times) - 1, int(len(times) * 0.99))]
        figures[fault] = {"count": len(times), "p50": round(p50, 3), "p99": round(p99, 3), "what": FAULTS[fault]}
        print(f"{fault:7} {len(times):4} times, without an acknowledgement p50 {p50:.2f} s, p99 {p99:.2f} s  ({FAULTS[fault]})")
    print(f"lost {len(lost)} of {load.count()} acknowledged, {len(wrong)} wrong, {duplicates} duplicates of {load.begun} sent")
    if options.results:
        with open(options.results, "w") as file:
            json.dump({"seed": options.seed, "flush": options.flush, "replicas": options.replicas,
                       "minInSync": options.min_in_sync, "leaseMs": options.lease_ms, "acknowledged": load.count(),
                       "lost": len(lost), "wrong": len(wrong), "duplicates": duplicates, "outageSeconds": figures},
                      file, indent=1)
    if options.control:
        print("the control lost something, as it has to" if lost else "FAILED: the control lost nothing")
        return bool(lost)
    return not lost and not wrong


if __name__ == "__main__":
    sys.exit(main())
