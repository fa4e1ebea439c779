"""A scan that outlives its leader: the cursor goes on at the next one, and misses nothing."""

import pytest

STAY = 3000
COME_AND_GO = 12000


def change(client, tag, verb, numbers):
    """Puts or removes keys, fields, members and scores of these numbers."""
    with client.pipeline(transaction=False) as pipe:
        for number in numbers:
            name = f"{tag}:{number}"
            if verb == "put":
                pipe.set(name, "")
                pipe.hset(f"{tag}hash", name, "")
                pipe.sadd(f"{tag}set", name)
                pipe.zadd(f"{tag}sorted", {name: number})
            else:
                pipe.delete(name)
                pipe.hdel(f"{tag}hash", name)
                pipe.srem(f"{tag}set", name)
                pipe.zrem(f"{tag}sorted", name)
        pipe.execute()


def commands(tag):
    """One walk of each kind: its words before and after the cursor, and how many words an element is."""
    return {
        "keys": (["SCAN"], ["MATCH", f"{tag}:*", "COUNT", 10], 1),
        "hash": (["HSCAN", f"{tag}hash"], ["COUNT", 10], 2),
        "set": (["SSCAN", f"{tag}set"], ["COUNT", 10], 1),
        "sorted": (["ZSCAN", f"{tag}sorted"], ["COUNT", 10], 2),
    }


def walk(replica, before, after, width, cursor, seen, calls_max):
    """Goes on with a walk. Returns the cursor, 0 at the end."""
    with replica.connect() as client:
        client.set_response_callback(before[0], lambda reply, **_: reply)
        for _ in range(calls_max):
            cursor, found = client.execute_command(*before, cursor, *after)
            cursor = int(cursor)
            # Clients keep it as a double, or as a signed number of 64 bits.
            assert cursor < 2**53
            seen.update(found[::width])
            if cursor == 0:
                break
    return cursor


@pytest.mark.moonraft_only("a cursor of redis-server is good at one node")
def test_a_scan_goes_on_at_the_next_leader(cluster):
    leader, (follower, _) = cluster.leader(0), cluster.followers(0)
    tag = cluster.key_on(0, "scan")
    with leader.connect() as client:
        change(client, tag, "put", range(STAY))
        # What grows and shrinks while a replica is away leaves other tables there.
        follower.node.kill()
        change(client, tag, "put", range(STAY, STAY + COME_AND_GO))
        change(client, tag, "remove", range(STAY, STAY + COME_AND_GO))
    cluster.heal()

    leader, walks, seen = cluster.leader(0), commands(tag), {}
    cursors = {}
    for kind, words in walks.items():
        seen[kind] = set()
        cursors[kind] = walk(leader, *words, 0, seen[kind], 100)
        assert cursors[kind] != 0, f"{kind}: there is more than a hundred calls return"
    leader.node.kill()
    following = cluster.leader(0)
    assert following is not leader
    with following.connect() as client:
        change(client, tag, "put", range(STAY, STAY + 500))
    for kind, words in walks.items():
        cursors[kind] = walk(following, *words, cursors[kind], seen[kind], 100)
    with following.connect() as client:
        change(client, tag, "remove", range(STAY, STAY + 500))
    for kind, words in walks.items():
        end = walk(following, *words, cursors[kind], seen[kind], STAY) if cursors[kind] else 0
        assert end == 0, f"{kind}: a scan ends"
        missed = {f"{tag}:{number}" for number in range(STAY)} - seen[kind]
        assert not missed, f"{kind}: {len(missed)} were missed"
