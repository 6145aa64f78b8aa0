#!/usr/bin/env python3
"""Faults of the master of a broker group under load, in network namespaces; see README.md.

  run.py --weir WEIR --stand-in KUBE-STAND-IN [--count N] [--faults kill,freeze,…]

Exit code 0: nothing was lost. 1: something was lost or wrong. 0 with a line "skipped: …": not possible here.
"""
import argparse
import json
import os
import random
import pathlib
import statistics
import subprocess
import sys

import network
import official
import traffic
from injector import FAULTS, OF_DISKS, USUAL, Injector
from group import BROKER_PORT, NAMESRV_PORT, Group, disk

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weir", required=True)
    parser.add_argument("--stand-in", required=True)
    parser.add_argument("--count", type=int, default=2, help="faults of each kind")
    parser.add_argument("--faults", default=",".join(USUAL), help=f"of {', '.join(FAULTS)}")
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--min-in-sync", type=int, default=2)
    parser.add_argument("--flush", choices=["sync", "async"], default="sync")
    parser.add_argument("--lease-ms", type=int, default=6000)
    parser.add_argument("--clients", default="",
                        help="official clients instead of our own traffic: java-4.9.8,java-5.5.0,go")
    parser.add_argument("--route-poll-ms", type=int, default=30_000, help="how often these ask for routes")
    parser.add_argument("--ordered", action="store_true", help="they consume in order: the first and the last of them")
    parser.add_argument("--control", action="store_true",
                        help="blackouts with asynchronous flush: fails if nothing is lost")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--results", help="a file for the counts and times")
    parser.add_argument("--keep", action="store_true", help="keep logs and stores in any case")
    parser.add_argument("--failures", default="weir-failover-failures", help="where logs and stores of failures go")
    options = parser.parse_args()
    if reason := network.why_not():
        print(f"skipped: {options.count} faults of each of {options.faults}: {reason}")
        return 0
    options.faults, options.commit = options.faults.split(","), commit()
    if options.control:
        options.faults, options.flush = ["blackout"], "async"
    if (set(options.faults) & OF_DISKS) and (reason := disk.why_not()):
        skipped = [fault for fault in options.faults if fault in OF_DISKS]
        print(f"skipped: {options.count} faults of each of {', '.join(skipped)}: {reason}")
        options.faults = [fault for fault in options.faults if fault not in OF_DISKS]
    if not options.faults:
        return 0
    options.clients, commands = clients(options)
    if options.clients is None:
        return 0
    options.seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4), "big")
    print(f"repeat with --seed {options.seed} (the choices, not the timing)", flush=True)
    names = ["api", "ns", "client", *(f"r{n}" for n in range(options.replicas))]
    with network.trial(names, options.failures, options.keep) as trial:
        trial.is_clean = campaign(options, trial.network, trial.folder, commands)
    return 0 if trial.is_clean else 1


def clients(options):
    """The official clients that can be had here and how to start each; None where that leaves nothing to do."""
    wanted = [name for name in options.clients.split(",") if name]
    commands, missing = official.commands(wanted)
    for name in wanted:
        fixed = official.FIXED_POLL_MS.get(name, options.route_poll_ms)
        if fixed != options.route_poll_ms:
            missing[name] = f"it asks for routes each {fixed} ms and cannot be told otherwise"
    for name, reason in missing.items():
        print(f"skipped: {name}: {reason}")
    found = [name for name in wanted if name not in missing]
    return (found if found or not wanted else None), commands


def campaign(options, net, folder, commands):
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
        patience = 60
        if options.clients:
            load = official.Clients(namesrv, options.clients, commands, options.route_poll_ms, folder, options.ordered)
            patience += 2 * options.route_poll_ms / 1000
        else:
            load = traffic.Traffic(namesrv)
        injector = Injector(group, net, load, chance, options.lease_ms, patience)
        outages = {}
        order = [fault for fault in options.faults for _ in range(options.count)]
        chance.shuffle(order)
        for number, fault in enumerate(order, 1):
            times = injector.do(fault)
            for client, seconds in times.items():
                outages.setdefault((fault, client), []).append(seconds)
            said = ", ".join(f"{client} {seconds:.2f} s" for client, seconds in times.items())
            print(f"{number} of {len(order)}: {fault}, without an acknowledgement: {said}; {load.count()} acknowledged", flush=True)
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
            load.kill()
        group.stop()


def report(options, load, outages, address):
    lost, wrong, copies = traffic.compare(address, load)
    lines = list(load.explain(copies))
    if options.ordered:
        lines += load.check_order()
    wrong += load.problems
    for line in [] if options.control else (lost + wrong)[:20]:
        print(line)
    outage_seconds = figures("without an acknowledgement", outages)
    delay_seconds = figures("from acknowledgement to delivery", load.delays())
    for line in lines:
        print(line)
    print(f"lost {len(lost)} of {load.count()} acknowledged, {len(wrong)} wrong, of {load.begun} sent")
    if options.results:
        with open(options.results, "w") as file:
            json.dump({"commit": options.commit, "build": pathlib.Path(options.weir).parent.name, "seed": options.seed,
                       "flush": options.flush, "replicas": options.replicas, "minInSync": options.min_in_sync,
                       "leaseMs": options.lease_ms, "clients": options.clients or "own",
                       "routePollMs": options.route_poll_ms if options.clients else None, "ordered": options.ordered,
                       "sent": load.begun, "acknowledged": load.count(), "lost": len(lost), "wrong": len(wrong),
                       "notes": lines, "outageSeconds": outage_seconds, "deliverySeconds": delay_seconds}, file, indent=1)
    if options.control:
        print("the control lost something, as it has to" if lost else "FAILED: the control lost nothing")
        return bool(lost)
    return not lost and not wrong


def figures(what, measured):
    """Prints and answers with what was measured, by fault and client, in seconds."""
    answer = {}
    for (fault, client), times in sorted(measured.items()):
        times.sort()
        p50, p99 = statistics.median(times), times[min(len(times) - 1, int(len(times) * 0.99))]
        answer.setdefault(fault, {"what": FAULTS[fault]})[client] = {
            "count": len(times), "p50": round(p50, 3), "p99": round(p99, 3), "all": [round(time, 3) for time in times]}
        print(f"{fault:8} {client:18} {len(times):4} times, {what} p50 {p50:6.2f} s, p99 {p99:6.2f} s")
    return answer


def commit():
    """Of the working tree, which is what was built if people do as they should."""
    command = ["git", "-C", os.path.dirname(os.path.abspath(__file__)), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
