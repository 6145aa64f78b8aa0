"""The machine under the brokers: its memory, page cache, CPU time and ports."""

import concurrent.futures
import os
import pathlib
import random
import socket
import sys
import time

CHUNK = 1 << 20
# Sparse, and never read twice: far more than one run can read.
BALLAST_BYTES = 1 << 42
FREE_BYTES_ENOUGH = 256 << 20
FILL_SECONDS_MAX = 90


def say(text):
    print(text, file=sys.stderr, flush=True)


class Ballast:
    """Keeps memory in use, as it is on every machine that has run for an hour.

    A virtual machine gives pages that nobody uses back to its host (free page reporting), and a
    page that was given back, or that was never used, costs some 9 us when it is touched next, on
    the account of whoever touches it: three times what a broker needs for the message in it. So
    a broker's CPU would depend on how much memory happened to be free in its turn. Before each
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
