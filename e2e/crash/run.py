#!/usr/bin/env python3
"""Power cuts and kills of a real broker under load; see README.md.

  run.py cuts    --weir WEIR [--count 1000] [--results FILE]   sync flush: nothing acknowledged may be lost
  run.py control --weir WEIR [--count 100]  [--results FILE]   async flush: shows that the cut does lose something
  run.py kills   --weir WEIR [--count 1000] [--results FILE]   kill -9, also again and again during recovery

Exit code 0: nothing found. 1: something was lost or wrong. 0 with a line "skipped: …": not possible here.
"""
import argparse
import itertools
import json
import os
import random
import shutil
import sys
import tempfile
import time

import disk
from check import compare
from load import QUEUES, Ledger, Load, prepare
from recycled import fill
from results import Results
from server import NotReady, Server

MIB = 1 << 20
# Whether zeros are written ahead of the append position, which is done from 1 MiB on: a segment of
# 1 MiB stays sparse until a record is written, one of 16 MiB is written before. Recycled ones are full
# of old records.
LAYOUTS = {"pre-written": 16 * MIB, "sparse": MIB, "recycled": MIB}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", choices=["cuts", "control", "kills"])
    parser.add_argument("--weir", required=True)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--results", help="counts are added to this file, and go on from there; one file for each commit")
    parser.add_argument("--rounds", type=int, default=15, help="so many faults before the next directory, which begins empty")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--failures", default="weir-crash-failures", help="where images of failures go")
    options = parser.parse_args()
    if options.campaign != "kills" and (reason := disk.why_not()):
        print(f"skipped: {options.count} {options.campaign}: {reason}")
        return 0
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4), "big")
    print(f"repeat with --seed {seed} (the choices, not the timing)", flush=True)
    results = Results(options.results, options.campaign)
    results.note("seeds", seed)
    campaign = {"cuts": cuts, "control": control, "kills": kills}[options.campaign]
    return campaign(options, random.Random(seed), results)


def configure(folder, flush, segment_bytes, retention_hours=72):
    path = os.path.join(folder, f"weir-{retention_hours}.toml")
    with open(path, "w") as file:
        file.write(f'[broker.store]\nflush = "{flush}"\nsegment_bytes = {segment_bytes}\n'
                   f"free_bytes_min = 4096\nspare_segments_max = 64\nretention_hours = {retention_hours}\n"
                   f"retention_disk_percent = 95\n"
                   f"[broker.limits]\nmessage_bytes_max = 131072\n")
    return path


def recycle(options, results, folder, data):
    """Makes a directory whose segments will be recycled ones; says which files those are. On a disk that is
    nearly full nothing is kept to be recycled, and the counts say so."""
    spares = fill(options.weir, data, configure(folder, "async", MIB, retention_hours=0))
    results.add(segments_to_recycle=len(spares), directories_without_spares=not spares)
    return spares


def tally_segment(results, data, segment_bytes, ledger, spares):
    """Counts what kind of segment held the newest message that was acknowledged before the fault."""
    name = f"{ledger.position // segment_bytes * segment_bytes:020}"
    inode = os.stat(os.path.join(data, "commitlog", name)).st_ino
    results.tally("segments", "recycled" if inode in spares else "pre-written" if segment_bytes > MIB else "sparse")


def in_turn(dice, kinds):
    """All kinds, one after the other in an order by chance, for ever."""
    return itertools.cycle(dice.sample(sorted(kinds), len(kinds)))


class Failure(Exception):
    pass


def progress(results, options, kind, begun, first):
    done = results.get(kind)
    if done % 10 == 0 or done == options.count:
        rate = (done - first) / max(time.monotonic() - begun, 0.001)
        print(f"{kind} {done} of {options.count}, acknowledged {results.get('acknowledged')}, "
              f"lost {results.get('lost')}, wrong {results.get('wrong')}, {rate:.1f}/s", flush=True)


def judge(results, verdict, ledger):
    results.add(lost=len(verdict.lost), wrong=len(verdict.wrong), read=verdict.read)
    if not verdict.is_clean():
        raise Failure("\n".join((verdict.lost + verdict.wrong)[:10]))


def cuts(options, dice, results):
    begun, first, failed = time.monotonic(), results.get("cuts"), False
    with tempfile.TemporaryDirectory() as folder, disk.Image(512 * MIB) as image:
        layouts = in_turn(dice, LAYOUTS)
        while results.get("cuts") < options.count:
            layout = next(layouts)
            config = configure(folder, "sync", LAYOUTS[layout])
            image.format()
            ledger, since, spares = Ledger(), None, set()
            if layout == "recycled":
                image.mount()
                spares = recycle(options, results, folder, os.path.join(image.point, "data"))
                image.unmount()
            for round_ in range(options.rounds):
                before = os.path.join(folder, "before")
                try:
                    since = cut_once(
                        options, dice, results, image, config, LAYOUTS[layout], spares, ledger, round_, since, before)
                except (Failure, NotReady) as failure:
                    failed = True
                    results.add(failures=1)
                    keep(options, before, ledger, failure)
                    break
                finally:
                    results.write()
                progress(results, options, "cuts", begun, first)
                if results.get("cuts") >= options.count:
                    break
            results.add(acknowledged_state=len(ledger.topics) + len(ledger.groups))
    return finish(results, "cuts", failed)


def cut_once(options, dice, results, image, config, segment_bytes, spares, ledger, round_, since, before):
    # It must not stay when this start fails: that is of the cut before.
    if os.path.exists(before):
        os.remove(before)
    image.mount()
    data = os.path.join(image.point, "data")
    server = Server(options.weir, data, config)
    try:
        server.ready()
    except NotReady:
        image.unmount()
        image.keep(before)
        raise
    if round_ == 0:
        prepare(server.address, ledger)
    had = ledger.count()
    is_frozen = dice.random() < 0.9
    problems, exit_code, pushed = work_and_cut(dice, image, server, ledger, round_, data, is_frozen)
    results.add(cuts=1, acknowledged=ledger.count() - had, pages_pushed=pushed)
    if not is_frozen:
        results.tally("exit_codes_after_cut", exit_code)
        errors = server.stderr()
        if "panicked" in errors or exit_code != 1:
            problems.append(f"after the cut it ended with {exit_code}: {errors}")
    image.unmount()
    image.keep(before)
    image.mount()
    tally_segment(results, data, segment_bytes, ledger, spares)
    server = Server(options.weir, data, config)
    try:
        results.note("ready_ms", round(server.ready() * 1000), keep=2000)
        is_full = round_ % 5 == 4
        verdict = compare(server.address, ledger, None if is_full else since)
    finally:
        clean = server.terminate() if dice.random() < 0.3 else server.kill()
    if clean not in (0, -9):
        problems.append(f"a clean stop ended with {clean}: {server.stderr()}")
    image.unmount()
    late = [(queue, *item) for queue, items in ledger.late.items() for item in items.items()]
    missing = sum(ledger.found[queue].get(offset) != number for queue, offset, number in late)
    results.add(answered_during_cut=len(late), answered_during_cut_missing=missing)
    if problems:
        results.add(wrong=len(problems))
        raise Failure("\n".join(problems))
    judge(results, verdict, ledger)
    return {queue: max(0, verdict.ends[queue] - 500) for queue in range(QUEUES)}


def work_and_cut(dice, image, server, ledger, round_, data, is_frozen):
    """A frozen broker does not see the cut, as with a machine's power: whatever it had answered, it had
    answered before. One that runs on sees its disk fail; what is answered from then on does not count,
    because a kernel whose file system is shut down now and then lets an fdatasync succeed that was
    under way. Answers with problems, the exit code of a broker that ran on, and pages pushed."""
    load = Load(server.address, ledger, round_)
    until = time.monotonic() + dice.choice([0.02, 0.1, 0.3]) + dice.random() * 0.2
    pushed = 0
    while time.monotonic() < until:
        if dice.random() < 0.5:
            pushed += disk.push_pages(data, dice, ledger.position, dice.randint(1, 30))
        time.sleep(0.005)
    flags = disk.LOG_FLUSH if dice.random() < 0.2 else disk.NO_LOG_FLUSH
    if is_frozen:
        server.freeze()
        pushed += disk.push_pages(data, dice, ledger.position, dice.choice([0, 20, 200]))
        image.cut(flags)
        load.is_expected = True
        exit_code = server.kill()
    else:
        load.expect_fault()
        image.cut(flags)
        exit_code = server.wait(10)
    load.end()
    return load.problems, exit_code, pushed


def control(options, dice, results):
    """Every cut on a new file system: what is lost once does not count again."""
    begun, first = time.monotonic(), results.get("cuts")
    with tempfile.TemporaryDirectory() as folder, disk.Image(512 * MIB) as image:
        before, layouts = os.path.join(folder, "before"), in_turn(dice, LAYOUTS)
        while results.get("cuts") < options.count:
            layout = next(layouts)
            config = configure(folder, "async", LAYOUTS[layout])
            image.format()
            image.mount()
            data = os.path.join(image.point, "data")
            if layout == "recycled":
                recycle(options, results, folder, data)
            ledger = Ledger()
            server = Server(options.weir, data, config)
            server.ready()
            prepare(server.address, ledger)
            _, _, pushed = work_and_cut(dice, image, server, ledger, 0, data, True)
            image.unmount()
            image.keep(before)
            image.mount()
            server = Server(options.weir, data, config)
            try:
                server.ready()
                verdict = compare(server.address, ledger)
                lost = sum("was acknowledged" in line and "queue" in line for line in verdict.lost)
                results.add(cuts=1, acknowledged=ledger.count(), lost=lost, pages_pushed=pushed,
                            cuts_with_loss=lost > 0, state_lost=len(verdict.lost) - lost)
                # Losing the newest is what asynchronous flush allows; anything else is not.
                wrong = [line for line in verdict.wrong if "is behind the end" not in line]
            except NotReady as failure:
                wrong = [str(failure)]
            finally:
                server.kill()
            if wrong:
                results.add(wrong=len(wrong))
                results.note("problems", wrong[:5])
                keep(options, before, ledger, "\n".join(wrong[:10]))
            results.tally("layouts", layout)
            image.unmount()
            results.write()
            progress(results, options, "cuts", begun, first)
    if results.get("lost") == 0:
        print("FAILED: nothing was lost with asynchronous flush, so these cuts cut nothing")
        return 1
    return finish(results, "control cuts", results.get("wrong") > 0)


def kills(options, dice, results):
    begun, first, failed = time.monotonic(), results.get("kills"), False
    # Recycled segments as often as all others, with either way to flush.
    kinds = in_turn(dice, [(flush, is_recycled) for flush in ("sync", "async") for is_recycled in (True, False)])
    while results.get("kills") < options.count:
        with tempfile.TemporaryDirectory() as folder:
            flush, is_recycled = next(kinds)
            segment_bytes = MIB if is_recycled else dice.choice([MIB, 4 * MIB])
            config = configure(folder, flush, segment_bytes)
            data = os.path.join(folder, "data")
            before = os.path.join(folder, "before")
            ledger, since, start_time = Ledger(), None, 0.02
            spares = recycle(options, results, folder, data) if is_recycled else set()
            for round_ in range(options.rounds):
                try:
                    since, start_time = kill_once(
                        options, dice, results, data, config, flush, segment_bytes, spares, ledger, round_, since,
                        start_time, before)
                except (Failure, NotReady) as failure:
                    failed = True
                    results.add(failures=1)
                    keep(options, before, ledger, failure)
                    break
                finally:
                    results.write()
                progress(results, options, "kills", begun, first)
                if results.get("kills") >= options.count:
                    break
            results.tally("directories", flush)
    return finish(results, "kills", failed)


def kill_once(options, dice, results, data, config, flush, segment_bytes, spares, ledger, round_, since, start_time, before):
    shutil.rmtree(before, ignore_errors=True)
    server = Server(options.weir, data, config)
    try:
        server.ready()
    except NotReady:
        shutil.copytree(data, before)
        raise
    if round_ == 0:
        prepare(server.address, ledger)
    had = ledger.count()
    load = Load(server.address, ledger, round_)
    time.sleep(dice.choice([0.02, 0.1, 0.25]) + dice.random() * 0.1)
    load.is_expected = True
    server.kill()
    load.end()
    results.add(kills=1, acknowledged=ledger.count() - had)
    results.tally("kills_by_flush", flush)
    tally_segment(results, data, segment_bytes, ledger, spares)
    if load.problems or server.stderr():
        raise Failure("\n".join([*load.problems, server.stderr()]))
    if dice.random() < 0.2:
        chain(options, dice, results, data, config, start_time)
    # As the kill left it: the start that is checked cuts its end.
    shutil.copytree(data, before)
    server = Server(options.weir, data, config)
    try:
        took = server.ready()
        results.note("ready_ms", round(took * 1000), keep=2000)
        verdict = compare(server.address, ledger, None if round_ % 5 == 4 else since)
    finally:
        server.kill()
    judge(results, verdict, ledger)
    return {queue: max(0, verdict.ends[queue] - 500) for queue in range(QUEUES)}, took


def chain(options, dice, results, data, config, start_time):
    """Five kills in a row, each somewhere in the start of the one before."""
    before_ready = 0
    for _ in range(5):
        server = Server(options.weir, data, config)
        time.sleep(dice.random() * start_time)
        before_ready += not server.kill_and_see_if_ready()
        if "panicked" in server.stderr():
            raise Failure(server.stderr())
    results.add(chains=1, kills_during_start=5, kills_before_ready=before_ready)


def keep(options, path, ledger, failure):
    """A failing case stays, with what was promised."""
    place = disk.kept_in(options.failures)
    with open(os.path.join(place, "ledger.json"), "w") as file:
        json.dump({"failure": str(failure), "acknowledged": ledger.acknowledged,
                   "commits": ledger.commits, "topics": sorted(ledger.topics),
                   "groups": sorted(ledger.groups)}, file)
    if os.path.isdir(path):
        shutil.copytree(path, os.path.join(place, "data"))
    elif os.path.exists(path):
        shutil.move(path, os.path.join(place, "image"))
    print(f"FAILED: {failure}\nkept in {place}", flush=True)


def finish(results, kind, failed):
    counts = {name: value for name, value in results.counts.items() if isinstance(value, int)}
    print(f"{kind}: {json.dumps(counts, sort_keys=True)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
