"""What needs more than one run of the generator. Each is a function of the turns and a broker
that has its turn, and answers figures; it leaves a broker behind that runs."""

from .cold_pull import cold_pull
from .idle_connections import idle_connections
from .replication import catch_up, replication
from .restart import restart
from .segments import batches, syncs
from .topics import topics

SCENARIO_STEPS = {
    "pull cold": cold_pull,
    "idle connections": idle_connections,
    "topics": topics,
    "restart": restart,
    "batch segments": batches,
    "sync segments": syncs,
    "replication": replication,
    "catch-up": catch_up,
}
# What others than WeirMQ have no counterpart of.
OF_WEIRMQ = {"batch segments", "sync segments", "replication", "catch-up"}
