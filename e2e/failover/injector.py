"""What is done to the master of a group, and to others."""
import signal
import subprocess
import time

from group import FREEZE, NAMESRV_PORT, THAW, until

# What it does to the master.
FAULTS = {
    "kill": "SIGKILL",
    "freeze": "SIGSTOP beyond the lease, then SIGCONT: it wakes as a master of the past",
    "cut": "cut off from everybody, then back",
    "mute": "what it sends is lost, what others send arrives",
    "api": "cut off from the authority only: nobody has to take its place",
    "apart": "cut off from the other replicas only: the authority, the NameServer and clients still reach it",
    "thin": "the same while only one slave is in sync, and another one, which is not, is there",
    "alone": "cut off from the other replicas and from the authority: the NameServer and clients still reach it",
    "term": "SIGTERM: it hands over",
    "switch": "`weir cluster switch`: it hands over and goes on as a slave",
    "roll": "all replicas are started again, each when it says that it may be, the master last, after `weir cluster switch`",
    "again": "SIGKILL, and the next master is killed as soon as it takes messages",
    "double": "SIGKILL, and within 3 s of the next master, or of one that may become it",
    "all": "SIGKILL of all at once",
    "stall": "its disk takes nothing for 12 s (FIFREEZE)",
    "power": "its machine loses power",
    "blackout": "all machines lose power at once",
}
# What it does to the page cache of the machine, where it does anything.
OF_PAGE_CACHE = {"power": "lost where not flushed", "blackout": "lost where not flushed, of all"}
# Those that need a file system of their own.
OF_DISKS = {"stall", "power", "blackout"}
# What is done when nothing else is asked for.
USUAL = ["kill", "double", "freeze", "cut", "mute", "api", "term", "stall", "power", "blackout"]
STALL_SECONDS = 12
# Who is without an acknowledgement for longer than this has met something that nobody knows yet.
PROMPT_SECONDS = dict.fromkeys(FAULTS, 6) | dict.fromkeys(
    ["double", "freeze", "cut", "mute", "apart", "thin", "alone", "stall", "again", "all", "blackout"], 15)
# Nobody takes over from the master, or it hands over.
HAS_A_MASTER = {"api", "term", "switch", "roll"}


def page_cache(fault):
    return OF_PAGE_CACHE.get(fault, "kept")


class Injector:
    """Does faults to a group, and waits until its clients are served again."""

    def __init__(self, group, net, load, chance, lease_ms, patience):
        self.group, self.net, self.load, self.chance = group, net, load, chance
        # Then nobody is served before the fault is over.
        self.needs_all = group.min_in_sync == group.replicas
        self.lease, self.patience = lease_ms / 1000, patience

    def do(self, fault):
        """Does it to the master, waits until messages are taken again and everybody is back; answers for how
        long nothing was acknowledged, in seconds, by client."""
        master = self.group.settle()
        mark = self.load.mark()
        until("there is load", lambda: self.load.is_served_since(mark), self.patience)
        time.sleep(self.chance.random())
        self.load.fault(fault)
        getattr(self, f"_{fault}")(master)
        self._serves_again()
        outages = self.load.outages()
        self.group.settle()
        return outages

    def _serves_again(self):
        mark = self.load.mark()
        until("everybody is served again", lambda: self.load.is_served_since(mark), self.patience)

    def _serves_meanwhile(self):
        if not self.needs_all:
            self._serves_again()

    def _others(self, master):
        return [name for name in self.group.names if name != master]

    def _beyond_lease(self):
        time.sleep(self.lease * (1.2 + self.chance.random()))

    def _kill(self, master):
        self.group.brokers[master].kill()
        self._serves_meanwhile()
        self.group.restart(master)

    def _freeze(self, master):
        broker = self.group.brokers[master]
        broker.send(signal.SIGSTOP)
        self._serves_meanwhile()
        self._beyond_lease()
        broker.send(signal.SIGCONT)

    def _cut(self, master):
        self.net.cut(master)
        self._serves_meanwhile()
        self._beyond_lease()
        self.net.heal(master)

    def _mute(self, master):
        self.net.mute(master, [name for name in self.net.addresses if name != master])
        self._serves_meanwhile()
        self._beyond_lease()
        self.net.heal(master)

    def _api(self, master):
        self.net.mute(master, ["api"])
        self._serves_meanwhile()
        self._beyond_lease()
        self._beyond_lease()
        self.net.heal(master)

    def _apart(self, master):
        """For long enough that a master that may go on alone takes the others out of the set."""
        self.net.part(master, self._others(master))
        self._serves_meanwhile()
        self._beyond_lease()
        self._beyond_lease()
        self.net.heal(master)

    def _thin(self, master):
        away = self.chance.choice(self._others(master))
        self.group.end(away)
        until(f"{away} is out of the in-sync set", lambda: self.group.in_sync() == self.group.replicas - 1, 30)
        self.net.part(master, self._others(master))
        self.group.restart(away)
        self._serves_meanwhile()
        self._beyond_lease()
        self._beyond_lease()
        self.net.heal(master)

    def _alone(self, master):
        self.net.part(master, [*self._others(master), "api"])
        self._serves_meanwhile()
        self._beyond_lease()
        self.net.heal(master)

    def _term(self, master):
        self.group.end(master)
        self._serves_meanwhile()
        self.group.restart(master)

    def _switch(self, master):
        namesrv = f"{self.net.addresses['ns']}:{NAMESRV_PORT}"
        command = [self.group.binaries["weir"], "cluster", "switch", self.group.NAME, "--namesrv", namesrv]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=self.group.environment)
        if done.returncode != 0:
            raise RuntimeError(f"weir cluster switch: {done.stdout} {done.stderr}")
        until("another one is master", lambda: self.group.masters() not in ([], [master]), 30)

    def _roll(self, master):
        """As an operator does it: slaves first, then a hand-over, then the old master."""
        slaves = self._others(master)
        for name in [*slaves, master]:
            if name == master:
                until("all slaves are back", lambda: all(map(self.group.is_safe_to_restart, slaves)), 60)
                self._switch(master)
            until(f"{name} may be started again", lambda: self.group.is_safe_to_restart(name), 60)
            self.group.end(name)
            self.group.restart(name)

    def _again(self, master):
        self.group.brokers[master].kill()
        until("another one takes messages", self.group.masters, 60)
        next_ = self.group.masters()[0]
        self.group.brokers[next_].kill()
        self.group.restart(master)
        self._serves_meanwhile()
        self.group.restart(next_)

    def _double(self, master):
        self.group.brokers[master].kill()
        time.sleep(3 * self.chance.random())
        next_ = (self.group.masters() or [self.chance.choice(self._others(master))])[0]
        self.group.brokers[next_].kill()
        for name in (master, next_):
            self.group.restart(name)

    def _all(self, _):
        for broker in self.group.brokers.values():
            broker.kill()
        for name in self.group.names:
            self.group.restart(name)

    def _stall(self, master):
        """Meanwhile it has to answer whoever asks how it is, and to say in the end what is wrong. An append hangs, so
        it is silent, and the others replace it: it cannot give its office up before the disk goes on."""
        said, begin = "", len(self.group.log(master))
        self.group.disks[master].freeze(FREEZE)
        try:
            end = time.monotonic() + STALL_SECONDS
            while time.monotonic() < end:
                said = self.group.health(master)
                time.sleep(0.2)
            self._serves_meanwhile()
            has_resigned = "this master gives its office up" in self.group.log(master)[begin:]
        finally:
            self.group.disks[master].freeze(THAW)
        if has_resigned:
            raise RuntimeError(f"{master} gave its office up, where the others have to elect one of them without its word")
        if "the disk has taken nothing for" not in said:
            raise RuntimeError(f"{master} does not say that its disk stalls: {said}")

    def _power(self, master):
        self.group.lose_power([master])

    def _blackout(self, _):
        self.group.lose_power(self.group.names)
