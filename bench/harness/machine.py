"""The machine under the brokers: its processes and ports."""

import os
import pathlib
import random
import socket
import sys


def say(text):
    print(text, file=sys.stderr, flush=True)


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
