"""What ran on the leader by chance or by clock is the same on every replica."""

from harness.processes import eventually
from harness.workers import at_once

CHANCE = """
local tag = KEYS[1]
local now = redis.call('TIME')
redis.call('HSET', tag .. 'stamp', 'seconds', now[1], 'micros', now[2])
for i = 1, 20 do
  redis.call('SADD', tag .. 'set', 'member-' .. math.random(1, 1000000))
  redis.call('ZADD', tag .. 'sorted', math.random(), 'member-' .. math.random(1, 50))
end
redis.call('RPUSH', tag .. 'popped', unpack(redis.call('SPOP', tag .. 'set', 5)))
redis.call('RPUSH', tag .. 'picked', unpack(redis.call('SRANDMEMBER', tag .. 'set', -5)))
redis.call('RPUSH', tag .. 'drawn', unpack(redis.call('ZRANDMEMBER', tag .. 'sorted', 3)))
redis.call('HSET', tag .. 'fields', unpack(redis.call('SRANDMEMBER', tag .. 'set', 6)))
redis.call('RPUSH', tag .. 'field', redis.call('HRANDFIELD', tag .. 'fields'))
redis.call('RPUSH', tag .. 'key', redis.call('RANDOMKEY'))
redis.call('SET', tag .. 'short-' .. math.random(1, 100), 'x', 'PX', math.random(1, 300))
redis.call('PEXPIRE', tag .. 'stamp', math.random(60000, 90000))
redis.call('SET', tag .. 'deadline', 'x', 'EX', 100)
return redis.call('SCARD', tag .. 'set')
"""


def assert_same_on_all_replicas(cluster, shard):
    """All three agree in the end, and what they agree on is what the leader has."""
    digests = eventually(
        lambda: (found := cluster.digests(shard)) and len(set(found)) == 1 and found,
        within=30,
        what=f"one digest on shard {shard}",
    )
    assert len(digests) == 3
    return digests[0]


def test_a_digest_tells_data_apart(cluster):
    key = cluster.key_on(0)
    seen = {assert_same_on_all_replicas(cluster, 0)}
    with cluster.leader(0).connect() as leader:
        for change in (
            lambda: leader.set(key, "a"),
            lambda: leader.set(key, "b"),
            lambda: leader.expire(key, 1000),
            lambda: leader.set(f"{key}2", "b"),
            lambda: leader.delete(key, f"{key}2"),
        ):
            change()
            leader.wait(2, 10_000)
            seen.add(assert_same_on_all_replicas(cluster, 0))
    assert len(seen) == 5, "five different states (the last one is the first), five digests"


def test_scripts_full_of_chance_and_time(cluster):
    def worker(number):
        with cluster.client() as client:
            script = client.register_script(CHANCE)
            for _ in range(10):
                tag = cluster.key_on(number % cluster.shards, f"chance-{number % 4}")
                assert script(keys=[tag]) > 0

    at_once(12, worker)
    for shard in range(cluster.shards):
        assert_same_on_all_replicas(cluster, shard)


def test_keys_that_expire_under_the_eyes_of_clients(cluster):
    """Expiry met by reads, by writes, by scripts, and by nobody."""
    tag = cluster.key_on(1, "fleeting")
    with cluster.leader(1).connect() as leader:
        for number in range(200):
            leader.set(f"{tag}:{number}", number, px=50 + number)
            leader.hset(f"{tag}:hash:{number}", mapping={"a": 1, "b": 2})
            leader.pexpire(f"{tag}:hash:{number}", 50 + number)
        for number in range(100):
            leader.get(f"{tag}:{number}")
            leader.incr(f"{tag}:{number}")
            leader.eval("return redis.call('APPEND', KEYS[1], 'x')", 1, f"{tag}:{number}")
        leader.set(f"{tag}:last", "v")
        eventually(
            lambda: not any(leader.exists(f"{tag}:hash:{number}") for number in range(200)),
            what="all hashes expired",
        )
        # Redis leaves an expired key in the data until somebody or a sweep meets it.
        eventually(lambda: leader.dbsize() == len(leader.keys("*")), what="expired keys are swept")
    assert_same_on_all_replicas(cluster, 1)


def test_replicas_agree_after_a_failover(cluster):
    tag = cluster.key_on(2, "after")
    with cluster.client() as client:
        script = client.register_script(CHANCE)
        for _ in range(10):
            script(keys=[tag])
        cluster.leader(2).node.kill()
        eventually(lambda: client.eval(CHANCE, 1, tag) > 0, what="the shard has a leader again")
        for _ in range(10):
            client.eval(CHANCE, 1, tag)
    cluster.heal()
    assert_same_on_all_replicas(cluster, 2)
