"""A node of the rival: redis-server processes that stand in for a Moonraft node.

`MOONRAFT_RIVAL=redis` runs the suite against this, which shows that the suite
asks for nothing but Redis's behaviour. One process a shard, so that killing a
node takes from the cluster what killing a Moonraft node takes.
"""

import redis

from harness.processes import Process, eventually

# An absent master is replaced after about this long.
NODE_TIMEOUT_MS = 1000


class Node:
    """The redis-server processes that one Moonraft process stands for."""

    # All nodes of a cluster, by the directory they share: a node joins the
    # others itself, since redis-server does not read a cluster file.
    _clusters = {}

    def __init__(self, number, ports, shards, directory):
        self.number = number
        self.all_ports = ports
        self.ports = ports[number - 1]
        self.shards = shards
        self.directory = directory
        self.processes = [None] * shards
        self.members = self._clusters.setdefault(str(directory), [])
        self.members.append(self)

    def launch(self):
        """Starts the processes that are not running."""
        for shard, port in enumerate(self.ports.clients):
            process = self.processes[shard]
            if process is None or not process.is_running():
                self.processes[shard] = self._launch_one(shard, port)

    def _launch_one(self, shard, port):
        home = self.directory / f"node-{self.number}-shard-{shard}"
        home.mkdir(parents=True, exist_ok=True)
        settings = {
            "port": port,
            "bind": "127.0.0.1",
            "dir": home,
            "save": "",
            "appendonly": "yes",
            "cluster-enabled": "yes",
            "cluster-announce-ip": "127.0.0.1",
            "cluster-port": port + 3 + self.shards,
            "cluster-node-timeout": NODE_TIMEOUT_MS,
            "cluster-replica-validity-factor": 0,
            "cluster-allow-replica-migration": "no",
            "repl-diskless-sync-delay": 0,
            "repl-ping-replica-period": 1,
            "enable-debug-command": "yes",
        }
        words = ["redis-server"]
        for name, value in settings.items():
            words += [f"--{name}", value]
        return Process(words, home.with_suffix(".log"))

    def wait_until_ready(self):
        """Every process answers; the first time, the cluster is made as well."""
        for client in self._clients():
            eventually(client.ping, within=30, what=f"redis-server of node {self.number} answers")
        if self is self.members[-1] and self._is_new():
            self._make_cluster()

    def _clients(self):
        return [redis.Redis(port=port, decode_responses=True) for port in self.ports.clients]

    def _is_new(self):
        return self._clients()[0].execute_command("CLUSTER INFO")["cluster_known_nodes"] == "1"

    def _make_cluster(self):
        everybody = [client for node in self.members for client in node._clients()]
        per_shard = 16384 // self.shards
        leaders = []
        for shard in range(self.shards):
            leader = self.members[shard % len(self.members)]._clients()[shard]
            last = 16383 if shard == self.shards - 1 else (shard + 1) * per_shard - 1
            leader.execute_command("CLUSTER ADDSLOTSRANGE", shard * per_shard, last)
            leaders.append(leader)
        for epoch, client in enumerate(everybody, start=1):
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", epoch)
        for client in everybody[1:]:
            for node in self.members:
                for port in node.ports.clients:
                    bus = port + 3 + self.shards
                    client.execute_command("CLUSTER MEET", "127.0.0.1", port, bus)
        for node in self.members:
            for shard, client in enumerate(node._clients()):
                leader = leaders[shard].execute_command("CLUSTER MYID")
                if client.execute_command("CLUSTER MYID") != leader:
                    eventually(
                        lambda c=client, l=leader: c.execute_command("CLUSTER REPLICATE", l),
                        what="a replica knows its master",
                    )

    def lead_home(self):
        """Takes back the leadership of the shards whose home this is."""
        for shard, client in enumerate(self._clients()):
            is_home = shard % len(self.members) == self.number - 1
            if is_home and client.info("replication")["role"] == "slave":
                client.execute_command("CLUSTER FAILOVER")

    def is_running(self):
        """Whether any process is there."""
        return any(process and process.is_running() for process in self.processes)

    def kill(self):
        """kill -9."""
        for process in self.processes:
            process.kill()

    def pause(self):
        """SIGSTOP."""
        for process in self.processes:
            process.pause()

    def resume(self):
        """SIGCONT."""
        for process in self.processes:
            if process is not None:
                process.resume()

    def stop(self):
        """SIGTERM."""
        for process in self.processes:
            if process is not None and process.is_running():
                process.stop()
