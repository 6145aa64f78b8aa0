#!/usr/bin/env python3
"""Disks that fail in other ways than by losing power: what the broker does, says and keeps.

  faults.py --weir WEIR [--results FILE]

One line for each: PASS, FAIL with the reason, or SKIP with the reason. Exit code 1 if one failed.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
import time

import disk
import wire
from check import compare
from load import Ledger, Load, prepare
from results import Results
from run import configure
from server import NotReady, Server

MIB = 1 << 20


class Wrong(Exception):
    pass


def expect(holds, text):
    if not holds:
        raise Wrong(text)


def started(options, data, config, ledger=None):
    server = Server(options.weir, data, config)
    server.ready()
    if ledger is not None:
        prepare(server.address, ledger)
    return server


def refused(options, data, config, *words):
    """A start that has to fail with one clear message."""
    try:
        server = Server(options.weir, data, config)
        server.ready()
    except NotReady as error:
        text = str(error)
        expect("ended with 1" in text and "panicked" not in text, text)
        missing = [word for word in words if word.lower() not in text.lower()]
        expect(not missing, f"the message lacks {missing}: {text}")
        return text
    server.kill()
    raise Wrong("it started")


def ended_by_itself(server, load, *words):
    code = server.wait(15)
    load.end()
    errors = server.stderr()
    expect(code == 1, f"ended with {code}: {errors}")
    expect("panicked" not in errors, errors)
    expect(any(word in errors for word in words), f"no word of {words}: {errors}")
    return errors.splitlines()[-1]


def a_device_runs_full_below_its_file_system(options, folder):
    """The file system believes in blocks that the device does not have, so an fsync fails. Afterwards
    the device gets more space: what was acknowledged has to be there."""
    config, ledger = configure(folder, "sync", 4 * MIB), Ledger()
    with disk.Image(512 * MIB, limit=48 * MIB, failures=options.failures) as image:
        image.mount()
        data = os.path.join(image.point, "data")
        server = started(options, data, config, ledger)
        load = Load(server.address, ledger, 0)
        load.is_expected = True
        said = ended_by_itself(server, load, "write-back", "put/output error", "No space left")
        image.unmount()
        disk.run("mount", "-o", f"remount,size={600 * MIB}", image.thin)
        image.mount()
        return after(options, data, config, ledger, said, image)


def a_file_system_goes_read_only_under_load(options, folder):
    config, ledger = configure(folder, "sync", 4 * MIB), Ledger()
    with disk.Image(256 * MIB, failures=options.failures) as image:
        image.mount()
        data = os.path.join(image.point, "data")
        server = started(options, data, config, ledger)
        load = Load(server.address, ledger, 0)
        time.sleep(0.3)
        load.expect_fault()
        # The way ext4 reacts to an error of its own: it gives up its journal and goes read-only.
        disk.run("mount", "-o", "remount,abort", image.point)
        said = ended_by_itself(server, load, "Read-only file system", "put/output error")
        image.unmount()
        image.mount()
        return after(options, data, config, ledger, said, image)


def after(options, data, config, ledger, said, image):
    server = started(options, data, config)
    try:
        verdict = compare(server.address, ledger)
        expect(verdict.is_clean(), "\n".join((verdict.lost + verdict.wrong)[:5]))
    finally:
        server.kill()
        image.unmount()
    return f"{ledger.count()} acknowledged, 0 lost; it said: {said[:160]}"


def a_full_disk_refuses_sends_and_serves_readers(options, folder):
    config, ledger = configure(folder, "sync", 4 * MIB), Ledger()
    with disk.Image(48 * MIB, failures=options.failures) as image:
        image.mount()
        data = os.path.join(image.point, "data")
        server = started(options, data, config, ledger)
        try:
            load = Load(server.address, ledger, 0)
            deadline = time.monotonic() + 30
            count = -1
            # Until no send succeeds any more.
            while ledger.count() != count and time.monotonic() < deadline:
                count = ledger.count()
                time.sleep(1)
            load.end()
            expect(not load.problems, load.problems)
            expect(time.monotonic() < deadline, "the disk did not run full")
            link = wire.Link(server.address)
            header, _ = link.call(wire.SEND, {
                "a": "p", "b": "load", "c": "TBW102", "d": "4", "e": "0", "f": "0", "g": "0", "h": "0",
                "i": "", "j": "0", "k": "false", "m": "false"}, b"x" * 1000)
            link.close()
            expect(header["code"] != 0, "a send succeeded on a full disk")
            verdict = compare(server.address, ledger)
            expect(verdict.is_clean(), "\n".join((verdict.lost + verdict.wrong)[:5]))
        finally:
            server.kill()
        return f"{count} acknowledged and read; then {header['code']}: {header.get('remark')}"


def a_read_only_file_system_at_the_start(options, folder):
    config = configure(folder, "sync", 4 * MIB)
    with disk.Image(64 * MIB, failures=options.failures) as image:
        image.mount()
        data = os.path.join(image.point, "data")
        started(options, data, config, Ledger()).terminate()
        disk.run("mount", "-o", "remount,ro", image.point)
        return refused(options, data, config, data, "read-only")


def a_missing_segment(options, folder):
    config, ledger = configure(folder, "sync", MIB), Ledger()
    data = os.path.join(folder, "data")
    server = started(options, data, config, ledger)
    load = Load(server.address, ledger, 0)
    while ledger.position < 4 * MIB:
        time.sleep(0.05)
    load.end()
    server.terminate()
    os.remove(os.path.join(data, "commitlog", f"{MIB:020}"))
    return refused(options, data, config, "damaged")


def a_directory_in_use(options, folder):
    config = configure(folder, "sync", 4 * MIB)
    data = os.path.join(folder, "data")
    server = started(options, data, config)
    try:
        return refused(options, data, config, data, "in use by another process")
    finally:
        server.kill()


NEED_DISK = [a_device_runs_full_below_its_file_system, a_file_system_goes_read_only_under_load,
             a_full_disk_refuses_sends_and_serves_readers, a_read_only_file_system_at_the_start]
FAULTS = [*NEED_DISK, a_missing_segment, a_directory_in_use]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weir", required=True)
    parser.add_argument("--results")
    parser.add_argument("--failures", default="weir-crash-failures", help="where images of failures go")
    options = parser.parse_args()
    results, failed = Results(options.results, "faults"), False
    reason = disk.why_not()
    for fault in FAULTS:
        name = fault.__name__
        if reason and fault in NEED_DISK:
            print(f"SKIP {name}: {reason}", flush=True)
            results.add(skipped=1)
            continue
        try:
            with tempfile.TemporaryDirectory() as folder:
                said = fault(options, folder)
            print(f"PASS {name}: {said}", flush=True)
            results.add(passed=1)
            results.counts[name] = re.sub(r"(/[\w.-]+)*/data\b", "DATA", said)
        except (Wrong, NotReady, wire.Gone, subprocess.CalledProcessError) as error:
            failed = True
            detail = getattr(error, "stderr", None) or error
            print(f"FAIL {name}: {detail}", flush=True)
            results.add(failed=1)
    results.write()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
