"""A rolling restart under load costs clients no error and hardly a pause.

Each node in turn is told to stop (SIGTERM), waited for, started again and waited
for until it says that it is ready, while redis-py, redis-rs and node-redis write.
The longest wait of each is printed (`tests/scenarios/run -k rolling -s`), since
what it may be depends on how busy the machine is: 100 ms is the aim on a quiet
one, and what is asserted is that no client waited for a timeout of any kind.
"""

import pytest
from load import RedisPyLoad, node_redis_load, redis_rs_load, wait_for_progress

from harness.wire import Wire, WireError, request

# The shortest timeout that a client could have run into: half an election.
PAUSE_MS_MAX = 500

NOT_GRACEFUL = "redis-server does not hand over before it stops"


def restart_all(cluster, loads):
    """Restarts one node after the other under these loads. Returns what they saw."""
    try:
        for load in loads:
            load.start()
        for node in cluster.nodes:
            wait_for_progress(loads)
            node.stop()
            wait_for_progress(loads)
            node.launch()
            node.wait_until_ready()
        # Leadership goes home, which must be as smooth.
        cluster.heal()
        wait_for_progress(loads)
        return [load.stop() for load in loads]
    finally:
        for load in loads:
            load.abandon()


def assert_smooth(outcomes):
    """No error, nothing lost, no pause that a client would call one."""
    for outcome in outcomes:
        print(outcome)
    for outcome in outcomes:
        assert outcome.errors == [], outcome
        assert outcome.lost == 0, outcome
        assert outcome.longest_ms < PAUSE_MS_MAX, outcome


@pytest.mark.rival_may_lose(NOT_GRACEFUL)
def test_redis_py_and_redis_rs_notice_no_rolling_restart(cluster, directory):
    loads = [RedisPyLoad(cluster), redis_rs_load(cluster, directory)]
    assert_smooth(restart_all(cluster, loads))


@pytest.mark.rival_may_lose(NOT_GRACEFUL)
def test_node_redis_notices_no_rolling_restart(cluster, directory):
    """It hands CLUSTERDOWN and TRYAGAIN to the application, and what a closed connection leaves open."""
    assert_smooth(restart_all(cluster, [node_redis_load(cluster, directory)]))


@pytest.mark.moonraft_only("redis-server does not hand over before it stops")
def test_what_is_in_flight_when_a_node_stops_is_answered(cluster):
    """A pipeline and a subscriber of the node that ends: each reply and each message comes, then the end."""
    leader, key = cluster.leader(0), cluster.key_on(0)
    count = 2000
    with Wire(leader.port) as client, Wire(leader.port) as subscriber:
        assert subscriber.ask("SUBSCRIBE", "news").startswith(b"*3")
        for number in range(10):
            assert client.ask("PUBLISH", "news", number).startswith(b":")
        client.send_raw(request("INCR", key) * count)
        assert leader.node.process.stop() == 0
        answers = [client.receive() for _ in range(count)]
        messages = [subscriber.receive() for _ in range(10)]
        assert [message.split(b"\r\n")[-2] for message in messages] == [b"%d" % n for n in range(10)]
        for wire in (client, subscriber):
            with pytest.raises(WireError):
                wire.receive()
    executed = [answer for answer in answers if answer.startswith(b":")]
    assert executed == [b":%d\r\n" % number for number in range(1, len(executed) + 1)]
    assert all(answer.startswith((b":", b"-MOVED")) for answer in answers)
    cluster.heal()
    with cluster.client() as reader:
        assert int(reader.get(key) or 0) == len(executed)
