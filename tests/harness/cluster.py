"""A cluster of three nodes and three shards, and what a test may do to it.

A *node* is what a machine would hold: kill it and every replica on it is gone.
A *replica* is one address, one shard on one node. Shard `s` is led by node
`1 + s mod 3` while all are well; `heal` brings the cluster back to that state,
so every test starts from the same picture.

Two kinds of node exist: `moonraft.Node` (one process) and `rival.Node` (three
redis-server processes, one a shard). Everything here works on either, because
it asks only what any cluster client may ask.
"""

import contextlib
from dataclasses import dataclass

import redis
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot

from harness.moonraft import PORTS_PER_NODE, Ports
from harness.processes import eventually, free_ports

HOST = "127.0.0.1"
SLOTS = 16384


@dataclass(frozen=True)
class Replica:
    """One shard on one node: to a client, one Redis Cluster node."""

    node: object
    shard: int
    port: int

    @property
    def address(self):
        """`host:port`, as MOVED and CLUSTER SLOTS give it."""
        return f"{HOST}:{self.port}"

    def connect(self, **options):
        """A client of this address alone, that follows no redirect."""
        options = {"decode_responses": True, "socket_timeout": 10, **options}
        return redis.Redis(host=HOST, port=self.port, **options)


class Cluster:
    """Nodes, and the questions and faults of the tests."""

    def __init__(self, make_node, directory, nodes=3, shards=3):
        self.shards = shards
        self.directory = directory
        first = free_ports(nodes * PORTS_PER_NODE)
        ports = [Ports.of_node(first + PORTS_PER_NODE * number, shards) for number in range(nodes)]
        self.nodes = [make_node(number + 1, ports, shards, directory) for number in range(nodes)]
        self.replicas = [
            Replica(node, shard, port)
            for node in self.nodes
            for shard, port in enumerate(node.ports.clients)
        ]

    # Life

    def start(self):
        """Starts every node that is not running, and waits until all is well."""
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_until_ready()
        eventually(self.is_whole, within=60, what="every shard led from home, all replicas known")
        return self

    def heal(self):
        """Undoes every fault: nodes run again, leaders are home."""
        for node in self.nodes:
            node.resume()
        self.start()

    def stop(self):
        """Ends all nodes, politely."""
        for node in self.nodes:
            node.stop()

    def kill(self):
        """Ends all nodes as a power cut would."""
        for node in self.nodes:
            node.kill()

    def is_whole(self):
        """Whether every replica sees every shard complete, and led from its home."""
        wanted = {
            self.home(shard).address: {r.address for r in self.replicas if r.shard == shard}
            for shard in range(self.shards)
        }
        for replica in self.replicas:
            with replica.connect(socket_timeout=2) as client:
                seen = _slot_owners(client)
                state = client.execute_command("CLUSTER INFO")["cluster_state"]
            if state != "ok" or seen != wanted:
                for node in self.nodes:
                    node.lead_home()
                raise AssertionError(f"{replica.address} says {state}, and who has slots: {seen}")
        return True

    # Who is who

    def home(self, shard):
        """The replica that leads `shard` when all are well."""
        node = self.nodes[shard % len(self.nodes)]
        return next(r for r in self.replicas if r.node is node and r.shard == shard)

    def leader(self, shard):
        """The replica that leads `shard` now, asked of every node that answers."""
        mine = {r.address: r for r in self.replicas if r.shard == shard}

        def ask():
            for replica in self.running_replicas():
                # One that is busy or isolated does not speak for the others.
                with (
                    contextlib.suppress(redis.RedisError),
                    replica.connect(socket_timeout=2) as client,
                ):
                    leaders = _slot_owners(client)
                    found = [mine[address] for address in leaders if address in mine]
                    if found and found[0].node.is_running():
                        return found[0]
            return None

        return eventually(ask, what=f"shard {shard} has a running leader")

    def followers(self, shard):
        """The replicas of `shard` that do not lead it."""
        return self.followers_of(self.leader(shard))

    def followers_of(self, leader):
        """The other replicas of a replica's shard."""
        return [r for r in self.replicas if r.shard == leader.shard and r is not leader]

    def shard_of(self, key):
        """The shard that owns `key`."""
        slot = key_slot(key.encode() if isinstance(key, str) else key)
        with self.running_replicas()[0].connect() as client:
            for start, end, *owners in client.execute_command("CLUSTER SLOTS"):
                if start <= slot <= end:
                    port = owners[0][1]
                    return next(r.shard for r in self.replicas if r.port == port)
        raise AssertionError(f"nobody owns slot {slot} of {key!r}")

    def key_on(self, shard, name="key"):
        """A key whose hash tag puts it on `shard`; the same each time."""
        for number in range(1000):
            key = f"{{{name}-{number}}}"
            if self.shard_of(key) == shard:
                return key
        raise AssertionError(f"no key found for shard {shard}")

    def running_replicas(self):
        """The replicas of the nodes that are up."""
        return [replica for replica in self.replicas if replica.node.is_running()]

    # Clients

    def client(self, **options):
        """A cluster client as an application makes it: it is told one address."""
        options = {"decode_responses": True, **options}
        replica = self.running_replicas()[0]
        return RedisCluster(startup_nodes=[ClusterNode(HOST, replica.port)], **options)

    def address(self):
        """One address that answers, as `host:port`."""
        return self.running_replicas()[0].address

    def configure(self, name, value):
        """`CONFIG SET` on every replica."""
        for replica in self.running_replicas():
            with replica.connect() as client:
                client.config_set(name, value)

    def digests(self, shard):
        """`DEBUG DIGEST` of every replica of `shard`."""
        return [_digest(replica) for replica in self.running_replicas() if replica.shard == shard]


def _digest(replica):
    with replica.connect() as client:
        return client.execute_command("DEBUG DIGEST")


def _slot_owners(client):
    """The address of each leader, with those of all replicas of its slots.

    Asks CLUSTER SLOTS, and fails unless all 16384 slots are covered.
    """
    covered, owners = 0, {}
    for start, end, *nodes in client.execute_command("CLUSTER SLOTS"):
        covered += end - start + 1
        addresses = [f"{_text(node[0])}:{node[1]}" for node in nodes]
        owners.setdefault(addresses[0], set()).update(addresses)
    if covered != SLOTS:
        raise AssertionError(f"{covered} slots covered")
    return owners


def _text(value):
    return value.decode() if isinstance(value, bytes) else value
