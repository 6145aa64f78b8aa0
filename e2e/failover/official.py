"""Unmodified RocketMQ clients that follow the master, what they were promised and what they got."""
import collections
import os
import subprocess
import sys
import threading
import time

from group import until
from traffic import QUEUES, TOPIC

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "clients"))
import programs  # noqa: E402

# Clients that cannot be told how often to ask for routes, and how often they do, in milliseconds.
FIXED_POLL_MS = {"go": 30_000}
ORDERED_GROUP = "ordered"
# A consumer commits each 5 s; what it got before that comes again after a failover.
COMMIT_SECONDS = 6


class Program:
    """One client process, and the lines that it says."""

    def __init__(self, name, command, folder, note):
        self.name, self.note = name, note
        self.is_ready, self.count = threading.Event(), 0
        home = os.path.join(folder, name)
        os.makedirs(home)
        if command[0] == "java":
            command = [command[0], f"-Duser.home={home}", *command[1:]]
        self.errors = open(os.path.join(home, "stderr"), "wb")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                                        cwd=home, env=os.environ | {"HOME": home}, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            words = line.split()
            if words == ["ready"]:
                self.is_ready.set()
            elif words and words[0] in ("sent", "failed", "got"):
                self.note(self, words)

    def close(self):
        """Tells it to end, which it does when what it has begun is over."""
        self.process.stdin.close()

    def wait(self, seconds):
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.reader.join(10)
        self.errors.close()
        return code


class Clients:
    """A producer and a push consumer of each kind in `names`, each consumer in a group of its own; with
    `is_ordered` one producer that sends by key and two ordered consumers of one group, of the first and the last
    kind. Times are monotonic seconds."""

    def __init__(self, namesrv, names, commands, poll_ms, folder, is_ordered):
        self.lock = threading.Lock()
        # (queue, offset) -> the numbers that were acknowledged there
        self.acknowledged = collections.defaultdict(list)
        # queue -> offset -> number
        self.seen = {queue: {} for queue in range(QUEUES)}
        # (queue, offset) -> when it was acknowledged
        self.acknowledged_at = {}
        # number -> when its first send began and its last one ended
        self.sends = {}
        # group -> [(begin, end, consumer, number, queue, offset)]
        self.deliveries = collections.defaultdict(list)
        self.failures = collections.Counter()
        self.successes = collections.defaultdict(list)
        self.begun, self.problems = 0, []
        # (name, begin, end)
        self.faults = []
        self.is_ordered = is_ordered
        self.is_over = threading.Event()
        self.producers, self.consumers = [], []
        self.namesrv, self.commands, self.poll_ms, self.folder = namesrv, commands, poll_ms, folder
        if is_ordered:
            kinds = [names[0], names[-1]]
            roles = [("produce-ordered", names[0], "producers")]
            roles += [("consume-ordered", kind, ORDERED_GROUP) for kind in kinds]
        else:
            roles = [(role, name, f"{role}-{name.replace('.', '-')}") for name in names for role in ("produce", "consume")]
        for number, (role, name, group) in enumerate(roles):
            self._start(number, role, name, group)
        for program in self.producers + self.consumers:
            self._await(program)

    def _start(self, number, role, name, group):
        """Starts a producer or a consumer of this kind; no two have the same number."""
        instance = f"{role.split('-')[0]}-{name}-{number}"
        words = [self.namesrv, role, TOPIC, group, instance.replace(".", "-"), str(number),
                 str(FIXED_POLL_MS.get(name, self.poll_ms))]
        note = self._sent if role.startswith("produce") else self._got
        program = Program(instance, self.commands[name] + words, self.folder, note)
        program.kind, program.group = name, group
        (self.producers if role.startswith("produce") else self.consumers).append(program)
        return program

    def _await(self, program):
        if not program.is_ready.wait(60):
            ended = program.process.poll()
            ended = "" if ended is None else f": it ended with {ended}, see {program.errors.name}"
            raise TimeoutError(f"{program.name} did not start within 60 s{ended}")

    def join(self, kinds_and_groups, first_number):
        """More consumers, which are numbered from there on."""
        more = [self._start(number, "consume", *one) for number, one in enumerate(kinds_and_groups, first_number)]
        for consumer in more:
            self._await(consumer)
        return more

    def leave(self, consumer):
        """Ends it, after it has committed how far it is."""
        consumer.close()
        self._ended(consumer)
        self.consumers.remove(consumer)

    def _sent(self, producer, words):
        begin, end, number = int(words[1]) / 1e9, int(words[2]) / 1e9, int(words[3])
        with self.lock:
            first, _ = self.sends.get(number, (begin, end))
            self.sends[number] = (first, end)
            self.begun += first == begin
            if words[0] == "failed":
                self.failures[f"{producer.kind} {words[4]}"] += 1
                return
            queue, offset = int(words[4]), int(words[5])
            producer.count += 1
            self.successes[producer.name].append(end)
            self.acknowledged_at[queue, offset] = end
            self.acknowledged[queue, offset].append(number)

    def _got(self, consumer, words):
        begin, end, number, queue, offset = int(words[1]) / 1e9, int(words[2]) / 1e9, *map(int, words[3:6])
        with self.lock:
            consumer.count += 1
            self.deliveries[consumer.group].append((begin, end, consumer.name, number, queue, offset))
            other = self.seen[queue].setdefault(offset, number)
            if other != number:
                self.problems.append(f"queue {queue} offset {offset} was {other:x} and then {number:x} to a consumer")

    def count(self):
        with self.lock:
            return len(self.acknowledged_at)

    def mark(self):
        """Where everybody is."""
        return {program: program.count for program in self.producers + self.consumers}

    def is_served_since(self, mark):
        """Whether each of them has got on; of ordered consumers one may have no queue."""
        if any(program.count <= mark[program] + 20 for program in self.producers):
            return False
        served = [program.count > mark[program] + 20 for program in self.consumers]
        return any(served) if self.is_ordered else all(served)

    def fault(self, name):
        """From here on the longest time without a success is looked for."""
        with self.lock:
            now = time.monotonic()
            self.faults.append((name, now, now))
            self.successes = collections.defaultdict(list, {program.name: [now] for program in self.producers})

    def outages(self):
        """By producer: the longest time without a success since the fault, in seconds. The fault is over."""
        with self.lock:
            (fault, begin, _), now = self.faults[-1], time.monotonic()
            self.faults[-1] = (fault, begin, now)
            return {program.kind: longest_gap([*self.successes[program.name], now]) for program in self.producers}

    def end(self):
        """Ends the producers, and the consumers when they have got everything."""
        self.is_over.set()
        for program in self.producers:
            program.close()
        for program in self.producers:
            self._ended(program)
        try:
            until("every consumer group has everything", lambda: not any(self.missing().values()), 120)
        except TimeoutError:
            for group, missing in self.missing().items():
                if missing:
                    self.problems.append(f"group {group} never got {len(missing)} that were acknowledged: "
                                         f"{sorted(missing)[:5]} (queue, offset)")
        for program in self.consumers:
            program.close()
        for program in self.consumers:
            self._ended(program)

    def _ended(self, program):
        code = program.wait(60)
        if code != 0:
            self.problems.append(f"{program.name} ended with {code}")

    def kill(self):
        """However this ended, nobody is left."""
        for program in self.producers + self.consumers:
            if program.process.poll() is None:
                program.process.kill()
                program.process.wait()

    def missing(self):
        """What was acknowledged, and a group has not got, as queue and offset, by group."""
        with self.lock:
            everything = set(self.acknowledged_at)
            groups = {program.group for program in self.consumers}
            return {group: everything - {(queue, offset) for *_, queue, offset in self.deliveries[group]}
                    for group in groups}

    def explain(self, compared):
        """Lines about duplicates and their causes, and about what clients were told. What has no cause becomes a
        problem."""
        twice = [number for number, count in compared.copies.items() if count > 1]
        no_cause = [number for number in twice if not self._meets_fault(*self.sends[number])]
        self.problems += [f"{number:x} is stored twice, and its send met no fault" for number in no_cause]
        yield (f"{len(twice)} messages are stored more than once: the client sent them again when an attempt "
               f"during a fault had no answer; {len(no_cause)} without that cause")
        for group, deliveries in sorted(self.deliveries.items()):
            yield self._explain_group(group, sorted(deliveries))
        for reason, count in sorted(self.failures.items()):
            yield f"failed sends: {count} of {reason}"

    def _explain_group(self, group, deliveries):
        first, again, no_cause = {}, 0, 0
        for begin, *_, queue, offset in deliveries:
            before = first.setdefault((queue, offset), begin)
            if before != begin:
                again += 1
                no_cause += not (self._meets_fault(begin, begin) or self._was_not_committed(before, begin))
        if no_cause:
            self.problems.append(f"group {group} got {no_cause} messages again without a fault")
        return (f"group {group}: {len(deliveries)} deliveries, {again} of them again (not committed when the fault came), "
                f"{no_cause} without that cause")

    def delays(self):
        """By fault and group: how long a message took at most from its acknowledgement to its delivery, in seconds,
        for each time that it was done."""
        delays = collections.defaultdict(list)
        for group, deliveries in self.deliveries.items():
            first = {}
            for begin, *_, queue, offset in sorted(deliveries):
                first.setdefault((queue, offset), begin)
            late = [(at, first[key] - at) for key, at in self.acknowledged_at.items() if key in first]
            for fault, start, over in self.faults:
                during = [delay for at, delay in late if start - 1 <= at <= over + 1]
                delays[fault, group].append(max(during, default=0))
        return delays

    def _meets_fault(self, begin, end):
        return any(begin <= over + COMMIT_SECONDS and end >= start for _, start, over in self.faults)

    def _was_not_committed(self, first, again):
        """Whether a fault came before a delivery could be committed. Who consumes in order may go on late: when it
        asks for its queues again, which Java does each 20 s."""
        return any(start - COMMIT_SECONDS <= first <= over and again >= start for _, start, over in self.faults)

    def check_order(self):
        """Problems of ordered consumption: two consumers of one queue at once, and what came out of turn."""
        deliveries = sorted(self.deliveries[ORDERED_GROUP])
        last, next_ = {}, collections.Counter()
        for begin, end, consumer, number, queue, _ in deliveries:
            until_, who = last.get(queue, (0, consumer))
            if begin < until_ and who != consumer:
                self.problems.append(f"queue {queue} was worked on by {who} until {until_:.3f}, and by {consumer} from {begin:.3f}")
            last[queue] = max((end, consumer), (until_, who))
            key, sequence = number >> 32, number & 0xFFFFFFFF
            if sequence > next_[key]:
                self.problems.append(f"key {key}: {sequence} came when {next_[key]} was the next")
            next_[key] = max(next_[key], sequence + 1)
        changes = sum(one[2] != other[2] for queue in range(QUEUES)
                      for one, other in pairs([delivery for delivery in deliveries if delivery[4] == queue]))
        yield f"ordered: {len(deliveries)} deliveries of {len(next_)} keys; queues passed to the other consumer {changes} times"


def pairs(items):
    return zip(items, items[1:])


def longest_gap(times):
    return max(after - before for before, after in pairs(sorted(times)))


def commands(names):
    """How to start each kind of client, and why some cannot be."""
    found, skipped = {}, {}
    for name in names:
        command, missing = programs.stream(name)
        if missing:
            skipped[name] = missing
        else:
            found[name] = command
    return found, skipped
