"""The cluster protocol as tools and clients read it."""

import re
import subprocess

import pytest
import redis
from redis.crc import key_slot

from harness.cluster import HOST, SLOTS
from harness.processes import eventually
from harness.wire import Wire

NODE_ID = re.compile(r"^[0-9a-f]{40}$")


@pytest.fixture
def raw(cluster):
    """A bare connection to the leader of shard 0."""
    with Wire(cluster.leader(0).port) as wire:
        yield wire


def ask(replica, *words):
    """The parsed answer of one replica, without redirects and callbacks."""
    with replica.connect() as client:
        client.response_callbacks.clear()
        return client.execute_command(*words)


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def test_slots(cluster):
    """Every range names its leader first, then the followers, each by address and id."""
    for asked in cluster.replicas:
        covered = []
        for start, end, leader, *followers in ask(asked, "CLUSTER", "SLOTS"):
            covered += range(start, end + 1)
            shard = cluster.shard_of(_key_in_slot(start))
            assert leader[:2] == [HOST, cluster.leader(shard).port]
            assert {port for _, port, *_ in followers} == {r.port for r in cluster.followers(shard)}
            for host, _, identifier, metadata in [leader, *followers]:
                assert host == HOST
                assert NODE_ID.match(text(identifier))
                assert metadata in ([], {})
        assert sorted(covered) == list(range(SLOTS))


def _key_in_slot(slot):
    return next(f"{{{n}}}" for n in range(10_000_000) if key_slot(str(n).encode()) == slot)


def pairs(flat):
    """A map, whether it came as one or as a flat array."""
    return flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2]))


def test_shards(cluster):
    shards = [pairs(shard) for shard in ask(cluster.replicas[0], "CLUSTER", "SHARDS")]
    assert len(shards) == cluster.shards
    covered = 0
    for shard in shards:
        slots = shard["slots"]
        covered += sum(end - start + 1 for start, end in zip(slots[::2], slots[1::2]))
        nodes = [pairs(node) for node in shard["nodes"]]
        assert sorted(node["role"] for node in nodes) == ["master", "replica", "replica"]
        for node in nodes:
            assert NODE_ID.match(node["id"])
            assert node["ip"] == node["endpoint"] == HOST
            assert node["port"] in {replica.port for replica in cluster.replicas}
            assert node["health"] == "online"
            assert node["replication-offset"] >= 0
    assert covered == SLOTS


def test_nodes(cluster):
    for asked in cluster.replicas:
        lines = ask(asked, "CLUSTER", "NODES").splitlines()
        assert len(lines) == len(cluster.replicas)
        identifiers, covered = {}, 0
        for line in lines:
            identifier, address, flags, master, ping, pong, epoch, link, *slots = line.split(" ")
            host_and_port, bus = address.split(",")[0].split("@")
            assert NODE_ID.match(identifier)
            assert int(bus) > 0 and int(ping) >= 0 and int(pong) >= 0 and int(epoch) >= 0
            assert link == "connected"
            flags = flags.split(",")
            assert ("myself" in flags) == (host_and_port == asked.address)
            identifiers[host_and_port] = identifier
            if "master" in flags:
                assert master == "-"
                covered += sum(int(b) - int(a) + 1 for a, _, b in (s.partition("-") for s in slots))
            else:
                assert "slave" in flags and NODE_ID.match(master) and not slots
        assert covered == SLOTS
        assert identifiers.keys() == {replica.address for replica in cluster.replicas}
        for replica in cluster.replicas:
            assert ask(replica, "CLUSTER", "MYID") == identifiers[replica.address]


def test_ids_and_roles_survive_a_restart(cluster):
    before = {r.address: ask(r, "CLUSTER", "MYID") for r in cluster.replicas}
    cluster.stop()
    cluster.heal()
    assert {r.address: ask(r, "CLUSTER", "MYID") for r in cluster.replicas} == before


def test_info(cluster):
    for replica in cluster.replicas:
        info = dict(line.split(":") for line in ask(replica, "CLUSTER", "INFO").splitlines())
        assert info["cluster_enabled" if "cluster_enabled" in info else "cluster_state"] in "ok1"
        assert info["cluster_state"] == "ok"
        assert info["cluster_slots_assigned"] == info["cluster_slots_ok"] == str(SLOTS)
        assert info["cluster_slots_pfail"] == info["cluster_slots_fail"] == "0"
        assert info["cluster_known_nodes"] == str(len(cluster.replicas))
        assert info["cluster_size"] == str(cluster.shards)
        assert int(info["cluster_current_epoch"]) >= 0
        assert int(info["cluster_my_epoch"]) >= 0


def test_links(cluster):
    for link in ask(cluster.replicas[0], "CLUSTER", "LINKS"):
        link = pairs(link)
        assert link["direction"] in ("to", "from")
        assert NODE_ID.match(link["node"])
        assert link["create-time"] >= 0 and link["send-buffer-used"] >= 0
        assert link["send-buffer-allocated"] >= 0 and isinstance(link["events"], str)


def test_keyslot_follows_the_hash_tag(raw):
    cases = [
        "foo",
        "{foo}bar",
        "foo{}bar",
        "{}",
        "foo{{bar}}",
        "foo{bar}{zap}",
        "",
        "a{b",
        "a}b{c}",
    ]
    for key in cases:
        assert raw.ask("CLUSTER", "KEYSLOT", key) == b":%d\r\n" % key_slot(key.encode())


def test_keys_in_a_slot(cluster):
    tag = cluster.key_on(0, "slotted")
    slot = key_slot(tag.encode())
    keys = sorted(f"{tag}:{number}" for number in range(25))
    leader = cluster.leader(0)
    with leader.connect() as client:
        for key in keys:
            client.set(key, "v")
    assert ask(leader, "CLUSTER", "COUNTKEYSINSLOT", slot) == 25
    assert sorted(ask(leader, "CLUSTER", "GETKEYSINSLOT", slot, 100)) == keys
    some = ask(leader, "CLUSTER", "GETKEYSINSLOT", slot, 10)
    assert len(set(some)) == 10 and set(some) < set(keys)
    assert ask(leader, "CLUSTER", "COUNTKEYSINSLOT", (slot + 1) % SLOTS) == 0
    for bad, refusal in [(-1, "Invalid slot"), (SLOTS, "Invalid slot"), ("x", "not an integer")]:
        with pytest.raises(redis.ResponseError, match=refusal):
            ask(leader, "CLUSTER", "COUNTKEYSINSLOT", bad)


# Redirects


def test_moved_names_the_leader(cluster):
    """From everybody who does not lead the shard: its followers and strangers alike."""
    for shard in range(cluster.shards):
        key, leader = cluster.key_on(shard), cluster.leader(shard)
        moved = f"-MOVED {key_slot(key.encode())} {leader.address}\r\n".encode()
        for replica in cluster.replicas:
            if replica is not leader:
                with Wire(replica.port) as wire:
                    assert wire.ask("SET", key, "v") == moved
                    assert wire.ask("GET", key) == moved
        with leader.connect() as client:
            assert client.get(key) is None, "a redirected write had an effect"


def test_moved_names_the_new_leader_after_a_failover(cluster):
    key, old = cluster.key_on(0), cluster.leader(0)
    old.node.kill()

    def all_point_to_one():
        answers = set()
        for replica in cluster.running_replicas():
            with Wire(replica.port) as wire:
                answers.add(wire.ask("GET", key))
        answers.discard(b"$-1\r\n" if b"$-1\r\n" in answers else b"_\r\n")
        (moved,) = answers
        return moved.startswith(b"-MOVED ") and old.address.encode() not in moved

    eventually(all_point_to_one, what="everybody redirects to the new leader")


def test_a_transaction_on_a_foreign_key_is_refused_at_once(cluster):
    with Wire(cluster.leader(0).port) as wire:
        assert wire.ask("MULTI") == b"+OK\r\n"
        assert wire.ask("SET", cluster.key_on(1), "v").startswith(b"-MOVED ")
        assert wire.ask("EXEC").startswith(b"-EXECABORT ")


def test_crossslot(cluster, raw):
    mine, other = cluster.key_on(0, "one"), cluster.key_on(0, "two")
    assert key_slot(mine.encode()) != key_slot(other.encode())
    refusal = b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"
    assert raw.ask("MSET", mine, "1", other, "2") == refusal
    assert raw.ask("MGET", mine, other) == refusal
    assert raw.ask("DEL", mine, other) == refusal
    assert raw.ask("EVAL", "return 1", 2, mine, other) == refusal
    assert raw.ask("MSET", f"{mine}a", "1", f"{mine}b", "2") == b"+OK\r\n"


def test_a_script_may_not_leave_its_shard(cluster, raw):
    mine, other, foreign = cluster.key_on(0), cluster.key_on(0, "two"), cluster.key_on(1)
    assert key_slot(mine.encode()) != key_slot(other.encode())
    script = "return redis.call('SET', ARGV[1], 'v')"
    assert raw.ask("EVAL", script, 1, mine, other) == b"+OK\r\n"
    assert raw.ask("EVAL", script, 0, other) == b"+OK\r\n"
    with Wire(cluster.followers(0)[0].port) as wire:
        assert wire.ask("EVAL", script, 1, mine, other).startswith(b"-MOVED ")
        assert wire.ask("EVAL", script, 0, other).startswith(b"-READONLY ")
    answer = raw.ask("EVAL", script, 1, mine, foreign)
    assert answer.startswith(b"-ERR Script attempted to access a non local key"), answer
    with cluster.client() as client:
        assert client.get(foreign) is None


def test_readonly_and_readwrite(cluster):
    key, follower = cluster.key_on(0), cluster.followers(0)[0]
    with cluster.leader(0).connect() as leader:
        leader.set(key, "v")
    with Wire(follower.port) as wire:
        assert wire.ask("GET", key).startswith(b"-MOVED ")
        assert wire.ask("READONLY") == b"+OK\r\n"
        eventually(lambda: wire.ask("GET", key) == b"$1\r\nv\r\n", what="the follower has the key")
        assert wire.ask("SET", key, "w").startswith(b"-MOVED ")
        reads = "return redis.call('GET', KEYS[1])"
        assert wire.ask("EVAL", f"#!lua flags=no-writes\n{reads}", 1, key) == b"$1\r\nv\r\n"
        assert wire.ask("EVAL", reads, 1, key).startswith(b"-MOVED "), "it does not say that it only reads"
        assert wire.ask("GET", cluster.key_on(1)).startswith(b"-MOVED "), "another shard's key"
        assert wire.ask("READWRITE") == b"+OK\r\n"
        assert wire.ask("GET", key).startswith(b"-MOVED ")


def test_asking(cluster, raw):
    assert raw.ask("ASKING") == b"+OK\r\n"
    # It lifts no redirect where no slot is on its way.
    assert raw.ask("GET", cluster.key_on(1)).startswith(b"-MOVED ")


@pytest.mark.moonraft_only("redis-server answers CLUSTERDOWN at once, and by its own rules")
def test_clusterdown_only_when_a_shard_has_lost_its_quorum(cluster):
    survivor, key = cluster.nodes[0], cluster.key_on(0)
    for node in cluster.nodes[1:]:
        node.kill()
    replica = next(r for r in cluster.replicas if r.node is survivor and r.shard == 0)
    attempts = []

    def is_refused():
        attempts.append(str(len(attempts)))
        with Wire(replica.port) as wire:
            return wire.ask("SET", key, attempts[-1]).startswith(b"-CLUSTERDOWN ")

    eventually(is_refused, within=60, what="the lasting loss of a quorum is told")
    cluster.heal()
    with cluster.client() as client:
        # Those before were of unknown outcome; the refused one must never happen.
        assert client.get(key) != attempts[-1], "a refused write had an effect"
        assert client.set(key, "served again")


# redis-cli


def redis_cli(*words):
    """A finished run of redis-cli, its output without colours."""
    command = ["redis-cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    done.stdout = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    return done


def test_redis_cli_cluster_check(cluster):
    for replica in (cluster.replicas[0], cluster.replicas[-1]):
        done = redis_cli("--cluster", "check", replica.address)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "[OK] All nodes agree about slots configuration." in done.stdout
        assert f"[OK] All {SLOTS} slots covered." in done.stdout
        assert len(re.findall(r"^M: ", done.stdout, re.M)) == cluster.shards
        assert len(re.findall(r"^S: ", done.stdout, re.M)) == len(cluster.replicas) - cluster.shards
        assert done.stdout.count("2 additional replica(s)") == cluster.shards
        assert "[ERR]" not in done.stdout and "[WARNING]" not in done.stdout


def test_redis_cli_cluster_info(cluster):
    for shard in range(cluster.shards):
        with cluster.leader(shard).connect() as leader:
            for number in range(shard + 1):
                leader.set(f"{cluster.key_on(shard)}:{number}", "v")
    done = redis_cli("--cluster", "info", cluster.address())
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"[OK] 6 keys in {cluster.shards} masters." in done.stdout
    for shard in range(cluster.shards):
        leader = re.escape(cluster.leader(shard).address)
        line = re.search(
            rf"^{leader} \(\w+\.\.\.\) -> (\d+) keys \| (\d+) slots \| 2 slaves\.$",
            done.stdout,
            re.M,
        )
        assert line, done.stdout
        assert int(line[1]) == shard + 1
    assert "0.00 keys per slot on average." in done.stdout


def test_redis_cli_follows_redirects_from_any_node(cluster):
    keys = [cluster.key_on(shard) for shard in range(cluster.shards)]
    for replica in cluster.replicas:
        for key in keys:
            assert redis_cli("-c", "-p", replica.port, "SET", key, "v").stdout.strip() == "OK"
            assert redis_cli("-c", "-p", replica.port, "GET", key).stdout.strip() == "v"
