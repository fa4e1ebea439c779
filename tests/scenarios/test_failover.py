"""Failover: clients follow it without help, and nothing acknowledged is lost."""

import os
import subprocess
from pathlib import Path

import pytest
import redis

from harness.moonraft import REPOSITORY
from harness.processes import Process, eventually
from harness.recorder import Recorder
from harness.wire import Wire, WireError

ASYNCHRONOUS = "redis-server acknowledges a write before its replicas have it"


@pytest.mark.rival_may_lose(ASYNCHRONOUS)
def test_redis_py_follows_a_killed_leader(cluster):
    leader = cluster.leader(0)
    with Recorder(cluster) as recorder:
        recorder.wait_for_progress()
        leader.node.kill()
        recorder.wait_for_progress()
        recorder.assert_nothing_is_lost(cluster)
    assert cluster.leader(0) is not leader


@pytest.mark.rival_may_lose("redis-py tries ten times in a row, which an election outlasts")
def test_a_failover_is_shorter_than_the_patience_of_redis_py(cluster):
    """The client as it comes: the application sees no exception at all."""
    with Recorder(cluster) as recorder:
        recorder.wait_for_progress()
        cluster.leader(0).node.kill()
        recorder.wait_for_progress()
    assert recorder.errors == []


@pytest.mark.rival_may_lose(ASYNCHRONOUS)
def test_redis_rs_follows_a_killed_leader(cluster, directory):
    """The program in `rust/` writes through redis-rs until SIGTERM, then reads all back."""
    profile = os.environ.get("MOONRAFT_PROFILE", "release")
    program = Path(REPOSITORY, "target", profile, "redis-rs-failover")
    tags = [cluster.key_on(shard, "rust") for shard in range(cluster.shards)]
    words = [program, "--address", cluster.address(), *(f"--tag={tag}" for tag in tags)]
    writer = Process(words, directory / "redis-rs-failover.log")
    try:
        writer.wait_for_line("progress ")
        leader = cluster.leader(0)
        # The client was told an address of node 1, which is the one that dies.
        leader.node.kill()
        before = writer.output().count("\nprogress ")
        eventually(
            lambda: writer.output().count("\nprogress ") >= before + 5,
            within=60,
            what="five more rounds of writes on every shard",
        )
        code = writer.stop(within=60)
    finally:
        writer.signal(9)
    assert code == 0, writer.output()
    assert "errors 0" in writer.output().splitlines()[-1], writer.output()


def test_redis_cli_follows_a_killed_leader(cluster):
    key = cluster.key_on(0)
    leader = cluster.leader(0)
    bystander = next(r for r in cluster.replicas if r.node is not leader.node and r.shard == 1)

    def redis_cli(*words):
        command = ["redis-cli", "-c", "-p", str(bystander.port), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.strip()

    assert redis_cli("SET", key, "before") == "OK"
    leader.node.kill()
    eventually(lambda: redis_cli("SET", key, "after") == "OK", what="redis-cli -c found the leader")
    assert redis_cli("GET", key) == "after"


@pytest.mark.rival_may_lose(ASYNCHRONOUS)
def test_a_leader_killed_and_returned(cluster):
    leader = cluster.leader(1)
    with Recorder(cluster) as recorder:
        recorder.wait_for_progress()
        leader.node.kill()
        recorder.wait_for_progress()
        cluster.heal()
        recorder.wait_for_progress()
        recorder.assert_nothing_is_lost(cluster)
    assert_replicas_agree(cluster)


def test_a_follower_killed_and_returned(cluster):
    """The other node's followers are not missed: one connection sees no hiccup at all."""
    leader = cluster.leader(0)
    follower = cluster.followers(0)[0]
    key = cluster.key_on(0, "steady")
    with leader.connect(retry=None) as client:

        def write(numbers):
            for number in numbers:
                assert client.rpush(key, number) == number + 1

        write(range(100))
        follower.node.kill()
        write(range(100, 300))
        cluster.heal()
        write(range(300, 400))
        assert client.lrange(key, 0, -1) == [str(number) for number in range(400)]
    assert_replicas_agree(cluster)


@pytest.mark.rival_may_lose("redis-server syncs its file once a second, if at all")
def test_all_nodes_killed_at_once(cluster):
    with Recorder(cluster) as recorder:
        recorder.wait_for_progress()
        cluster.kill()
        recorder.stop()
    cluster.heal()
    recorder.assert_nothing_is_lost(cluster)
    assert_replicas_agree(cluster)


def test_a_replica_that_was_away_catches_up(cluster):
    """Twenty megabytes behind, it comes back with the same data as the others."""
    leader, follower = cluster.leader(0), cluster.followers(0)[0]
    follower.node.kill()
    tag = cluster.key_on(0, "bulk")
    with leader.connect() as client:
        for block in range(40):
            with client.pipeline(transaction=False) as pipe:
                for number in range(500):
                    pipe.set(f"{tag}:{block * 500 + number}", "x" * 1000)
                pipe.execute()
        client.incr(tag)
    cluster.heal()
    assert_replicas_agree(cluster)
    with follower.connect() as client:
        client.readonly()
        assert client.get(f"{tag}:19999") == "x" * 1000


@pytest.mark.rival_may_lose("a paused redis-server believes itself master when it wakes")
def test_a_paused_leader_serves_nothing_stale(cluster):
    leader = cluster.leader(0)
    key = cluster.key_on(0, "clock")
    with Wire(leader.port) as sleeper:
        assert sleeper.ask("SET", key, "old") == b"+OK\r\n"
        assert sleeper.ask("GET", key) == b"$3\r\nold\r\n"
        leader.node.pause()
        eventually(
            lambda: write_to_a_follower(cluster, leader, key, "new"),
            what="another leader took the write",
        )
        # Asked while it sleeps, so the question is the first thing it finds.
        sleeper.send("GET", key)
        leader.node.resume()
        try:
            answer = sleeper.receive()
        except WireError:
            return  # "outcome unknown" is an honest answer
        assert answer.startswith((b"-MOVED", b"-CLUSTERDOWN", b"$3\r\nnew")), answer


def write_to_a_follower(cluster, paused, key, value):
    """Writes to whichever follower of the paused leader has replaced it."""
    for replica in cluster.replicas:
        if replica.shard == paused.shard and replica.node is not paused.node:
            with replica.connect(socket_timeout=2, retry=None) as client:
                try:
                    return client.set(key, value)
                except redis.ResponseError:
                    continue
    return False


@pytest.mark.rival_may_lose("redis-server does not hand over before it stops")
def test_a_rolling_restart_costs_no_error(cluster):
    with Recorder(cluster) as recorder:
        recorder.wait_for_progress()
        for node in cluster.nodes:
            node.stop()
            recorder.wait_for_progress()
            cluster.heal()
            recorder.wait_for_progress()
        recorder.assert_nothing_is_lost(cluster)
    assert recorder.errors == []


def assert_replicas_agree(cluster):
    """Every replica of every shard holds the same data."""
    for shard in range(cluster.shards):
        eventually(
            lambda s=shard: len(set(cluster.digests(s))) == 1,
            within=30,
            what=f"the replicas of shard {shard} have one digest",
        )
