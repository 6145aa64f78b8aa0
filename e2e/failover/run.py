#!/usr/bin/env python3
"""Faults of the master of a broker group under load, in network namespaces; see README.md.

  run.py --weir WEIR --stand-in KUBE-STAND-IN [--count N] [--faults kill,freeze,…] [--results FILE]

With --results in rounds of 10 of each fault, each with a new group; counts and times are added to the file, and go on
from there.

Exit code 0: nothing was lost. 1: something was lost or wrong; with --replication async losses are counted and only what
is wrong is judged. 0 with a line "skipped: …": not possible here.
"""
import argparse
import bisect
import os
import random
import pathlib
import shutil
import subprocess
import sys
import time

import network
import official
import promises
import traffic
from injector import FAULTS, HAS_A_MASTER, OF_DISKS, PROMPT_SECONDS, USUAL, Injector, page_cache
from group import NAMESRV_PORT, Group, disk
from counts import Counts, figures

ROUND = 10


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weir", required=True)
    parser.add_argument("--stand-in", required=True)
    parser.add_argument("--count", type=int, default=2, help="faults of each kind")
    parser.add_argument("--faults", default=",".join(USUAL), help=f"of {', '.join(FAULTS)}")
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--replication", choices=["sync", "async"], default="sync",
                        help="with async a master that is gone may take acknowledged messages with it: these are counted")
    parser.add_argument("--min-in-sync", type=int, help="default: 2, or 1 with asynchronous replication")
    parser.add_argument("--ack", choices=["all", "quorum"], default="all")
    parser.add_argument("--flush", choices=["sync", "async"], default="sync")
    parser.add_argument("--lease-ms", type=int, default=6000)
    parser.add_argument("--clients", default="",
                        help="official clients instead of our own traffic: java-4.9.8,java-5.5.0,go")
    parser.add_argument("--route-poll-ms", type=int, default=30_000, help="how often these ask for routes")
    parser.add_argument("--ordered", action="store_true", help="they consume in order: the first and the last of them")
    parser.add_argument("--control", action="store_true",
                        help="blackouts with asynchronous flush: fails if nothing is lost")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--commit", help="of the program; default: this working tree's, which is what was built if people "
                                         "do as they should")
    parser.add_argument("--before", metavar="WEIR", help="every second replica runs this program, of another version")
    parser.add_argument("--before-commit", default="unknown", help="of that program")
    parser.add_argument("--results", help="counts and times are added to this file, and go on from there")
    parser.add_argument("--keep", action="store_true", help="keep logs and stores in any case")
    parser.add_argument("--failures", default="weir-failover-failures", help="where logs and stores of failures go")
    options = parser.parse_args()
    if reason := network.why_not():
        print(f"skipped: {options.count} faults of each of {options.faults}: {reason}")
        return 0
    options.faults = options.faults.split(",")
    if problem := impossible(options):
        parser.error(problem)
    options.min_in_sync = options.min_in_sync or {"sync": 2, "async": 1}[options.replication]
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
    counts = Counts(options.results, settings(options))
    names = ["api", "ns", "client", *(f"r{n}" for n in range(options.replicas))]
    while order := faults_left(options, counts):
        seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4), "big")
        print(f"repeat with --seed {seed} (the choices, not the timing)", flush=True)
        with network.trial(names, options.failures, options.keep) as trial:
            trial.is_clean = campaign(options, seed, order, counts, trial.network, trial.folder, commands)
        if not trial.is_clean:
            return 1
        if not options.results:
            break
    return 0


def impossible(options):
    """What cannot be asked for together, and why."""
    is_async = options.replication == "async"
    if is_async and (options.control or options.clients):
        return "--control and --clients are of synchronous replication: with async there is no loss that has or has not to be"
    if is_async and (options.min_in_sync or options.ack == "quorum"):
        return "--min-in-sync and --ack are of synchronous replication: with async nothing waits for other replicas"
    if is_async and "again" in options.faults:
        return "again takes --replication sync: with async the next master is the only one in sync, and nobody can follow it"
    if "thin" in options.faults and options.replicas < 3:
        return "thin takes three replicas: the master, one in sync and one that is not"
    return None


def settings(options):
    """What has to be the same for runs to be counted together."""
    return {"commit": options.commit or commit(), "build": pathlib.Path(options.weir).parent.name, "flush": options.flush,
            "replication": options.replication, "replicas": options.replicas, "minInSync": options.min_in_sync,
            "ack": options.ack, "leaseMs": options.lease_ms,
            "clients": options.clients or "own", "routePollMs": options.route_poll_ms if options.clients else None,
            "ordered": options.ordered} | ({"before": options.before_commit} if options.before else {})


def faults_left(options, counts):
    """Those of the next round."""
    most = ROUND if options.results else options.count
    return [fault for fault in options.faults for _ in range(min(most, options.count - counts.count(fault)))]


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


def campaign(options, seed, order, counts, net, folder, commands):
    chance = random.Random(seed)
    binaries = {"weir": os.path.abspath(options.weir), "kube-stand-in": os.path.abspath(options.stand_in)}
    binaries["before"] = os.path.abspath(options.before or options.weir)
    group = Group(net, binaries, folder, options.replicas, options.flush, options.min_in_sync, options.lease_ms,
                  bool(set(options.faults) & OF_DISKS), ack=options.ack, replication=options.replication)
    namesrv = f"{net.addresses['ns']}:{NAMESRV_PORT}"
    load = None
    try:
        master = group.settle()
        link = traffic.wire.Link(group.address(master))
        answer = traffic.wire.create_topic(link, traffic.TOPIC, traffic.QUEUES)
        assert answer["code"] == 0, answer
        link.close()
        patience, unaware = 60, 0
        if options.clients:
            load = official.Clients(namesrv, options.clients, commands, options.route_poll_ms, folder, options.ordered)
            unaware = 2 * options.route_poll_ms / 1000
            patience += unaware
        else:
            load = traffic.Traffic(namesrv, options.replication == "async")
        injector = Injector(group, net, load, chance, options.lease_ms, patience)
        # When each fault was over, and which one that was.
        outages, slow, before, over = {}, [], "nothing", []
        chance.shuffle(order)
        for number, fault in enumerate(order, 1):
            times = injector.do(fault)
            over.append((time.monotonic(), fault))
            for client, seconds in times.items():
                outages.setdefault((fault, client), []).append(seconds)
            said = ", ".join(f"{client} {seconds:.2f} s" for client, seconds in times.items())
            print(f"{number} of {len(order)}: {fault}, page cache {page_cache(fault)}, without an acknowledgement: {said}; "
                  f"{load.count()} acknowledged", flush=True)
            if max(times.values()) > prompt_seconds(options, fault) + unaware:
                slow.append({"fault": fault, "after": before} | {client: round(seconds, 2) for client, seconds in times.items()})
                place = os.path.join(options.failures, f"slow-{seed}-{number}-{fault}-after-{before}")
                print(f"SLOW: {fault} after {before}; logs are in {keep_logs(folder, place)}", flush=True)
            before = fault
        load.end()
        master = group.settle()
        return report(options, seed, counts, load, (outages, slow, over), group, group.address(master))
    except (TimeoutError, AssertionError, RuntimeError) as error:
        print(f"FAILED: {error}")
        for name in group.names:
            print(name, group.metrics(name))
        return False
    finally:
        if load:
            load.kill()
        group.stop()


def keep_logs(folder, place):
    """Copies what all processes have said so far; says where."""
    os.makedirs(place, exist_ok=True)
    for log in pathlib.Path(folder).glob("*.log"):
        shutil.copy(log, place)
    return place


def prompt_seconds(options, fault):
    """With asynchronous replication nobody takes over before the lease of a master that is gone is over."""
    waits_for_lease = options.replication == "async" and fault not in HAS_A_MASTER
    return PROMPT_SECONDS[fault] + (options.lease_ms / 1000 if waits_for_lease else 0)


def report(options, seed, counts, load, measured, group, address):
    outages, slow, over = measured
    may_lose = options.replication == "async"
    compared = promises.compare(address, traffic.TOPIC, load)
    lost, wrong, delays = compared.lost, compared.wrong, load.delays()
    lines = list(load.explain(compared))
    if options.ordered:
        lines += load.check_order()
    if not may_lose:
        wrong += promises.described("seen by a consumer", compared.vanished, compared.found)
    by_fault, lost_in_peace = lost_by(over, lost, load) if may_lose else ({}, 0)
    if lost_in_peace:
        wrong.append(f"{lost_in_peace} were acknowledged after the last fault and are lost")
    wrong += load.problems + group.logs_differ()
    shown = wrong if may_lose else promises.described("acknowledged", lost, compared.found) + wrong
    for line in [] if options.control else shown[:20]:
        print(line)
    faults = sorted({fault for fault, _ in outages})
    for fault in faults:
        print(f"{fault:8} {FAULTS[fault]}; page cache {page_cache(fault)}")
    show("without an acknowledgement", outages)
    show("from acknowledgement to delivery", delays)
    for line in lines:
        print(line)
    print(f"lost {len(lost)} of {load.count()} acknowledged, {len(wrong)} wrong, of {load.begun} sent")
    run = {"seed": seed, "harness": commit(), "sent": load.begun, "acknowledged": load.count(), "lost": len(lost),
           "wrong": len(wrong), "slow": slow, "notes": lines, "pageCache": {fault: page_cache(fault) for fault in faults}}
    counts.add(run | ({"lostByFault": by_fault} if may_lose else {}), outages, delays)
    if options.control:
        print("the control lost something, as it has to" if lost else "FAILED: the control lost nothing")
        return bool(lost)
    if may_lose:
        print(f"losses are counted and not judged: with asynchronous replication they may be; by fault {by_fault}")
    return not wrong and (may_lose or not lost)


def lost_by(over, lost, load):
    """How many acknowledged messages each fault took, by its kind and in order: those that were acknowledged before it was
    over, and after the one before it, when everybody was in sync again. And how many after the last."""
    ends, counts = [end for end, _ in over], [0] * (len(over) + 1)
    for _, _, number in lost:
        counts[bisect.bisect_left(ends, load.answers[number].ended)] += 1
    by_fault = {}
    for (_, fault), count in zip(over, counts):
        by_fault.setdefault(fault, []).append(count)
    return by_fault, counts[-1]


def show(what, measured):
    """Prints what was measured, by fault and client, in seconds."""
    for (fault, client), times in sorted(measured.items()):
        count, p50, p99 = figures(sorted(times))
        print(f"{fault:8} {client:18} {count:4} times, {what} p50 {p50:6.2f} s, p99 {p99:6.2f} s")


def commit():
    """Of the working tree, which is what was built if people do as they should."""
    command = ["git", "-C", os.path.dirname(os.path.abspath(__file__)), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
