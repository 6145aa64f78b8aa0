#!/usr/bin/env python3
"""What Apache's mqadmin is told of a group of replicas, while its master changes; see README.md.

  mqadmin.py --weir WEIR --stand-in KUBE-STAND-IN

Exit code 0: all of it was so. 1: not so. 0 with a line "skipped: …": not possible here.
"""
import argparse
import concurrent.futures
import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
import urllib.request

import network
import traffic
from emptied import connect, send
from group import API_PORT, NAMESRV_PORT, Group, until
from official import programs

wire = traffic.wire
CLUSTER, CLUSTER_INFO, HA_STATUS = "DefaultCluster", 106, 907
TOPIC, QUEUES, MESSAGES = "asked", 4, 300
# Of the commands some wait 3 s for a thread of theirs before they end, so a few run at the same time.
SESSIONS, COMMAND_SECONDS, ATTEMPTS = 3, 60, 4
REPLICA = re.compile(r"(\w+)Replica:\tReplicaIdentity\{brokerName='(.*)', brokerId=(\d+), "
                     r"brokerAddress='(.*)', alive=(\w+)\}")
EPOCH = re.compile(r"#Epoch: EpochEntry\{epoch=(\d+), startOffset=(\d+), endOffset=(\d+)\}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weir", required=True)
    parser.add_argument("--stand-in", required=True)
    parser.add_argument("--failures", default="weir-failover-failures", help="where logs and stores of failures go")
    parser.add_argument("--print", action="store_true", help="all that mqadmin prints")
    options = parser.parse_args()
    reason = network.why_not()
    if not reason:
        command, reason = programs.stream("mqadmin")
    if reason:
        print(f"skipped: what mqadmin is told of replicas: {reason}")
        return 0
    binaries = {"weir": os.path.abspath(options.weir), "kube-stand-in": os.path.abspath(options.stand_in)}
    with network.trial(["api", "ns", "client", "r0", "r1", "r2"], options.failures) as trial:
        admin = Mqadmin(command, trial.folder, options.print)
        group = Group(trial.network, binaries, trial.folder, 3, "sync", 2, 6000, False)
        try:
            trial.is_clean = told(group, admin)
        except (TimeoutError, RuntimeError, AssertionError) as error:
            print(f"FAILED: {error}")
        finally:
            admin.stop()
            group.stop()
    return 0 if trial.is_clean else 1


class Mqadmin:
    """Some JVMs in which Apache's mqadmin runs its commands, each in one of them."""

    def __init__(self, command, folder, prints):
        self.prints, self.count, self.late, self.idle, self.processes = prints, 0, 0, queue.Queue(), []
        for number in range(SESSIONS):
            home = os.path.join(folder, f"mqadmin-{number}")
            os.makedirs(home)
            # It logs below the home directory.
            process = subprocess.Popen([command[0], f"-Duser.home={home}", *command[1:]], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=home, text=True)
            self.processes.append(process)
            self.idle.put(process)

    def run(self, command):
        """All that a command prints."""
        process = self.idle.get()
        timer = threading.Timer(COMMAND_SECONDS, process.kill)
        timer.start()
        try:
            process.stdin.write(command + "\n")
            process.stdin.flush()
            lines = []
            for line in process.stdout:
                if line == "END\n":
                    break
                lines.append(line)
            else:
                raise RuntimeError(f"mqadmin {command} did not end: {''.join(lines)}")
        finally:
            timer.cancel()
        self.idle.put(process)
        self.count += 1
        if self.prints:
            print(f"$ mqadmin {command}\n{''.join(lines)}", end="", flush=True)
        return "".join(lines)

    def ask(self, command):
        """The same of one that changes nothing: mqadmin waits 3 s for an answer, also where its JVM starts on a busy
        machine, so it is asked again then."""
        for _ in range(ATTEMPTS):
            said = self.run(command)
            if "RemotingTimeoutException" not in said:
                break
            self.late += 1
        return said

    def ask_all(self, commands):
        """What each of the commands prints, which go on at the same time."""
        with concurrent.futures.ThreadPoolExecutor(SESSIONS) as pool:
            return dict(zip(commands, pool.map(self.ask, commands)))

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()


def told(group, admin):
    began, look = time.monotonic(), Look(group, admin)
    master = group.settle()
    link = connect(group, master)
    assert wire.create_topic(link, TOPIC, QUEUES)["code"] == 0
    link.close()
    look.at("at the start", master, group.names)
    look.ask_of_cluster()

    heir = next(name for name in group.names if name != master)
    switch = [group.binaries["weir"], "cluster", "switch", group.NAME, "--to", str(look.id(heir)), "--namesrv", look.namesrv]
    done = subprocess.run(switch, capture_output=True, text=True, timeout=60, env=group.environment)
    assert done.returncode == 0, f"weir cluster switch: {done.stdout} {done.stderr}"
    look.at("after a switch", look.settle([heir]), group.names)

    group.brokers[heir].kill()
    others = [name for name in group.names if name != heir]
    master = look.settle(others)
    look.at("without the killed master", master, others)
    slave = next(name for name in others if name != master)
    look.refuse(slave, slave, "CODE: 14 ")
    look.refuse(master, heir, "CODE: 1 ")

    group.restart(heir)
    look.at("with it again", look.settle([master]), group.names)

    elected = admin.run(look.elect(master, heir))
    look.at("after electMaster", look.settle([heir]), group.names)
    look.elected(elected)

    for line in look.wrong:
        print(line)
    print(f"mqadmin was asked {admin.count} times ({admin.late} of them again, after 3 s) in {time.monotonic() - began:.0f} s "
          f"of three replicas and {len(look.epochs)} epochs, {look.compared} answers compared, {len(look.wrong)} differ")
    return not look.wrong


class Look:
    """Asks a group by mqadmin who it is, and compares that with the record, the NameServer and the log."""

    def __init__(self, group, admin):
        self.group, self.admin = group, admin
        self.namesrv = f"{group.network.addresses['ns']}:{NAMESRV_PORT}"
        self.by_name = f"-n {self.namesrv}"
        # [epoch, start, end] of each; where the log ended when it was last looked at.
        self.epochs, self.end = [], 0
        self.compared, self.wrong = 0, []
        # What is looked at: who is master, who runs, addresses by id as at NameServers, the group's record.
        self.when, self.master, self.running, self.members, self.record = "", "", [], {}, {}

    def id(self, name):
        """By which a slave is known at NameServers."""
        return self.group.names.index(name) + 1

    def address(self, name):
        return self.group.address(name)

    def settle(self, candidates):
        """Waits until one of these is master and has all that run in sync; says which."""
        running = sum(broker.is_alive() for broker in self.group.brokers.values())

        def is_so():
            masters = self.group.masters()
            return len(masters) == 1 and masters[0] in candidates and self.group.in_sync() == running

        until(f"one of {candidates} is master, and {running} are in sync", is_so, 90)
        return self.group.masters()[0]

    def compare(self, what, is_, wanted):
        self.compared += 1
        if is_ != wanted:
            self.wrong.append(f"{self.when}: {what}: {is_}, not {wanted}")

    def compare_fields(self, what, fields, wanted):
        self.compare(what, {name: fields.get(name) for name in wanted}, wanted)

    def at(self, when, master, running):
        """Sends messages, and looks when they are everywhere."""
        self.when, self.master, self.running = when, master, running
        link = connect(self.group, master)
        sent = [send(link, TOPIC, number % QUEUES, b"x" * 100) for number in range(MESSAGES)]
        link.close()
        until(f"{running} know that all have everything", self.is_quiet, 20)
        self.members = {"0" if name == master else str(self.id(name)): self.address(name) for name in running}
        until(f"the NameServer knows {self.members}", lambda: self.registered() == self.members, 20)

        before, self.end = self.end, self.ha_status(master)["masterCommitLogMaxOffset"]
        self.record = self.read_record()
        self.compare("master in the record", self.record["master"]["replica"], self.id(master) - 1)
        self.compare("in sync in the record", sorted(self.record["inSync"]), [str(self.id(name) - 1) for name in running])
        if not self.epochs or self.epochs[-1][0] != self.record["epoch"]:
            # Nobody wrote between the last look and the first word of the new master.
            self.epochs.append([self.record["epoch"], before, self.end])
        self.epochs[-1][2] = self.end
        self.compare("messages of this epoch", self.epochs[-1][1] < sent[0] < sent[-1] < self.end, True)
        self.ask()

    def ask(self):
        status = {name: f"haStatus -b {self.address(name)}" for name in self.running}
        in_sync = {name: f"getSyncStateSet -a {self.address(name)} -b {self.group.NAME}" for name in self.running}
        of_cluster, epochs = f"haStatus {self.by_name} -c {CLUSTER}", f"getBrokerEpoch {self.by_name} -b {self.group.NAME}"
        clusters = f"clusterList {self.by_name}"
        said = self.admin.ask_all([*status.values(), *in_sync.values(), of_cluster, epochs, clusters])
        for name in self.running:
            if name == self.master:
                self.master_says(said[status[name]])
            else:
                self.slave_says(name, said[status[name]])
            self.in_sync(said[in_sync[name]])
        self.master_says(said[of_cluster])
        self.logs(said[epochs])
        lines = [line.split() for line in said[clusters].splitlines() if line.startswith(CLUSTER)]
        self.compare("clusterList", {line[2]: (line[1], line[3], line[-1]) for line in lines},
                     {number: (self.group.NAME, address, "true") for number, address in self.members.items()})

    def ask_of_cluster(self):
        """What there is for a whole cluster besides, and what each broker says of itself."""
        runtime = {name: f"brokerStatus -b {self.address(name)}" for name in self.running}
        in_sync = f"getSyncStateSet {self.by_name} -a {self.address(self.master)} -c {CLUSTER}"
        epochs = f"getBrokerEpoch {self.by_name} -c {CLUSTER}"
        said = self.admin.ask_all([*runtime.values(), in_sync, epochs])
        for name in self.running:
            self.compare_fields(f"brokerStatus of {name}", dict(re.findall(r"^(\w+) *: (.*)$", said[runtime[name]], re.M)), {
                "brokerActive": "true", "commitLogMinOffset": "0", "commitLogMaxOffset": str(self.end),
                "putMessageTimesTotal": str(MESSAGES if name == self.master else 0)})
        self.in_sync(said[in_sync])
        self.logs(said[epochs])

    def master_says(self, said):
        slaves = [name for name in self.running if name != self.master]
        self.compare_fields("haStatus of the master", fields_of(said), {
            "MasterAddr": self.address(self.master), "MasterCommitLogMaxOffset": str(self.end),
            "SlaveNum": str(len(slaves)), "InSyncSlaveNum": str(len(slaves))})
        lines = [line.split() for line in said.splitlines() if line.startswith(network.SUBNET)]
        # Address, acknowledged, behind, speed, state, sent from.
        self.compare("slaves by haStatus of the master", sorted(line[:3] + line[4:] for line in lines),
                     sorted([self.address(name), str(self.end), "0", "OK", str(self.end)] for name in slaves))

    def slave_says(self, name, said):
        fields = fields_of(said)
        self.compare_fields(f"haStatus of {name}, a slave", fields, {
            "MasterAddr": self.address(self.master), "CommitLogMaxOffset": str(self.end), "MasterFlushOffset": str(self.end)})
        for field in ("LastReadTime", "LastWriteTime"):
            at = fields.get(field, "1970-01-01 00:00:00").split(",")[0]
            age = time.time() - time.mktime(time.strptime(at, "%Y-%m-%d %H:%M:%S"))
            self.compare(f"{field} of {name} is some seconds ago", abs(age) < 30, True)

    def in_sync(self, said):
        self.compare_fields("getSyncStateSet", fields_of(said), {
            "brokerName": self.group.NAME, "MasterBrokerId": str(self.id(self.master)), "MasterAddr": self.address(self.master),
            "MasterEpoch": str(self.record["epoch"]), "SyncStateSetEpoch": str(self.record["inSyncVersion"]),
            "SyncStateSetNums": str(len(self.running))})
        # The address of one that is away may have been forgotten.
        replicas = {number: (what, name, alive, address if alive == "true" else None)
                    for what, name, number, address, alive in REPLICA.findall(said)}
        self.compare("replicas by getSyncStateSet", replicas, {
            str(self.id(name)): ("InSync", self.group.NAME, "true", self.address(name)) if name in self.running
            else ("NotInSync", self.group.NAME, "false", None) for name in self.group.names})

    def logs(self, said):
        """All replicas have the same epochs."""
        logs = {}
        for part in said.split("#clusterName")[1:]:
            fields = fields_of(part)
            logs[fields.get("brokerId")] = fields.get("brokerAddr"), [[int(number) for number in one] for one in EPOCH.findall(part)]
        self.compare("getBrokerEpoch", logs, {number: (address, self.epochs) for number, address in self.members.items()})

    def elect(self, asked, heir):
        return f"electMaster -a {self.address(asked)} -b {self.id(heir)} -bn {self.group.NAME} -c {CLUSTER}"

    def elected(self, said):
        """What the answer to a hand-over has of this moment; the set's version may have grown since."""
        fields = fields_of(said)
        self.compare_fields("electMaster", fields, {
            "ClusterName": CLUSTER, "BrokerName": self.group.NAME, "BrokerMasterAddr": self.address(self.master),
            "MasterEpoch": str(self.record["epoch"])})
        version = fields.get("SyncStateSetEpoch", "")
        self.compare(f"SyncStateSetEpoch of electMaster, {version}", version.isdecimal() and int(version) <= self.record["inSyncVersion"], True)

    def refuse(self, asked, heir, why):
        """A hand-over that is refused."""
        said = self.admin.run(self.elect(asked, heir))
        self.compare(f"electMaster of {heir} asked of {asked}: {said}", why in said, True)

    def ha_status(self, name):
        link = connect(self.group, name)
        _, body = link.call(HA_STATUS, {})
        link.close()
        return json.loads(body)

    def is_quiet(self):
        """Whether everybody knows that everybody has everything, which each finds out some times a second."""
        said = [self.ha_status(name) for name in self.running]
        ends = [one["masterCommitLogMaxOffset"] if one["master"] else one["haClientRuntimeInfo"]["maxOffset"] for one in said]
        known = [one["haClientRuntimeInfo"]["masterFlushOffset"] for one in said if not one["master"]]
        known += [slave["slaveAckOffset"] for one in said if one["master"] for slave in one["haConnectionInfo"]]
        return len({*ends, *known}) == 1

    def registered(self):
        """Addresses by id, as the NameServer has them."""
        link = wire.Link(self.namesrv)
        _, body = link.call(CLUSTER_INFO, {})
        link.close()
        group = traffic.quoted(body)["brokerAddrTable"].get(self.group.NAME)
        return group["brokerAddrs"] if group else {}

    def read_record(self):
        """The group's record, as the authority has it."""
        address = f"{self.group.network.addresses['api']}:{API_PORT}"
        url = f"http://{address}/apis/weirmq.io/v1alpha1/namespaces/default/brokergroups/group"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)["status"]


def fields_of(said):
    """Lines like `#MasterEpoch<tab>7`."""
    return dict(re.findall(r"^#?(\w+)(?:\(KB/s\))?\t(.*)$", said, re.M))


if __name__ == "__main__":
    sys.exit(main())
