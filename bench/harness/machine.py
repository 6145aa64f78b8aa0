"""The machine under the brokers: its memory, page cache, CPU time, block device and ports."""

import concurrent.futures
import ctypes
import os
import pathlib
import random
import socket
import subprocess
import sys
import time
import typing

SECTOR_BYTES = 512
CHUNK = 1 << 20
# Sparse, and never read twice: far more than one run can read.
BALLAST_BYTES = 1 << 42
FREE_BYTES_ENOUGH = 256 << 20
FILL_SECONDS_MAX = 90
# Numbers of the generic system call table. Source: include/uapi/asm-generic/unistd.h
PROCESS_MADVISE = 440
MADV_PAGEOUT = 21


def say(text):
    print(text, file=sys.stderr, flush=True)


class Ballast:
    """Keeps memory in use, as it is on every machine that has run for an hour.

    A virtual machine gives pages that nobody uses back to its host (free page reporting), and a
    page that was given back, or that was never used, costs some 9 us when it is touched next, on
    the account of whoever touches it (bench/results/2026-11-27-first-touch.json). A message of
    1 KiB takes three tenths of a page, so a broker's CPU would nearly double, depending on how much memory happened to be free in its turn. Before each
    turn the free memory is filled with clean page cache, by reading a file that is one big hole;
    then new pages come from there, for every broker alike.
    """

    def __init__(self, directory):
        self.path = directory / "ballast"
        self.file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        os.truncate(self.file, BALLAST_BYTES)
        self.at = 0

    def fill(self):
        """Reads on until little memory is free. Answers the bytes that were taken."""
        began, before = time.monotonic(), self.at
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as readers:
            free = free_bytes()
            while free > FREE_BYTES_ENOUGH and time.monotonic() - began < FILL_SECONDS_MAX:
                chunks = max(free // 2, 64 << 20) // CHUNK
                list(readers.map(self.read, range(self.at, self.at + chunks * CHUNK, CHUNK)))
                self.at += chunks * CHUNK
                was, free = free, free_bytes()
                # From here on the kernel makes room as fast as it is taken.
                if was - free < chunks * CHUNK // 4:
                    break
        return self.at - before

    def read(self, start):
        os.pread(self.file, CHUNK, start)

    def drop(self):
        os.close(self.file)
        self.path.unlink(missing_ok=True)


class Wakefulness:
    """Keeps every processor from going to sleep, by a process of the lowest policy on each (SCHED_IDLE),
    which runs only where nobody else wants to.

    A processor of a virtual machine that has nothing to do is taken from it, and giving it back takes
    most of a round trip. Bare metal with idle states off, or a machine with other work to
    do, does not pay that.
    """

    SPIN = ("import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); "
            "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass")

    def __init__(self):
        processors = os.sched_getaffinity(0)
        self.processes = [subprocess.Popen([sys.executable, "-c", self.SPIN, str(number)])
                          for number in processors]

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()


def free_bytes():
    return meminfo("MemFree")


def meminfo(field):
    return kibibytes("/proc/meminfo", field)


def memory(pid, field):
    """`field` of a process's status in bytes, 0 if it has none."""
    return kibibytes(f"/proc/{pid}/status", field)


def kibibytes(path, field):
    for line in pathlib.Path(path).read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


def cpu_seconds(pid):
    """CPU of all threads, to the nanosecond. Threads that ended meanwhile are missing."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            total += int(pathlib.Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
        except (OSError, IndexError):
            pass
    return total / 1e9


class Device(typing.NamedTuple):
    """What a block device has done since the machine was started."""

    read_bytes: int
    written_bytes: int
    flushes: int


def device_counters(directory):
    """Of the block device under `directory`; None if it has none."""
    device = os.stat(directory).st_dev
    for line in pathlib.Path("/proc/diskstats").read_text().splitlines():
        fields = line.split()
        if (int(fields[0]), int(fields[1])) == (os.major(device), os.minor(device)):
            return Device(int(fields[5]) * SECTOR_BYTES, int(fields[9]) * SECTOR_BYTES, int(fields[18]))
    return None


def evict(pid, directory):
    """Takes the files below `directory` out of the page cache, also where `pid` maps them.

    Advice to the kernel, not an order: whoever measures cold reads has to look at the bytes that
    the device read.
    """
    os.sync()
    if pid is not None:
        page_out_mappings(pid, str(directory))
    for path in pathlib.Path(directory).rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


class Range(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def page_out_mappings(pid, below):
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) < 6 or not fields[5].startswith(below):
            continue
        start, end = (int(word, 16) for word in fields[0].split("-"))
        part = Range(start, end - start)
        libc.syscall(PROCESS_MADVISE, process, ctypes.byref(part), ctypes.c_size_t(1), MADV_PAGEOUT, 0)
    os.close(process)


def free_port_with_neighbours():
    """A port p with p-2 and p+1 free too, as an Apache broker takes them."""
    for _ in range(1000):
        port = random.randrange(20000, 30000)
        probes = [socket.socket() for _ in range(4)]
        try:
            for probe, wanted in zip(probes, (port - 2, port - 1, port, port + 1)):
                probe.bind(("127.0.0.1", wanted))
            return port
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
    sys.exit("no free ports")
