"""Where things lie."""

import pathlib

BENCH = pathlib.Path(__file__).resolve().parent.parent
REPOSITORY = BENCH.parent
# What is built, fetched and stored; not in the repository.
TARGET = BENCH / "target"
PEERS = TARGET / "peers"
RESULTS = BENCH / "results"
