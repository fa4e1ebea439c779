"""(f) A bounded counter, a counter with a time to live, a list without duplicates."""

from harness.processes import eventually
from harness.workers import at_once

COUNT_UP_TO = """
local value = tonumber(redis.call('GET', KEYS[1]) or '0')
if value >= tonumber(ARGV[1]) then
  return -1
end
return redis.call('INCR', KEYS[1])
"""

COUNT_FOR = """
local value = redis.call('INCR', KEYS[1])
if value == 1 then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return value
"""

PUSH_ONCE = """
if redis.call('LPOS', KEYS[1], ARGV[1]) then
  return 0
end
return redis.call('RPUSH', KEYS[1], ARGV[1])
"""


def test_a_bounded_counter_stops_at_its_bound(cluster):
    def clicker(_):
        with cluster.client() as client:
            count = client.register_script(COUNT_UP_TO)
            return [count(keys=["clicks"], args=[100]) for _ in range(20)]

    answers = [answer for found in at_once(16, clicker) for answer in found]
    assert sorted(answer for answer in answers if answer > 0) == list(range(1, 101))
    assert answers.count(-1) == 16 * 20 - 100
    with cluster.client() as client:
        assert client.get("clicks") == "100"


def test_a_counter_forgets_after_its_time(client):
    count = client.register_script(COUNT_FOR)
    assert [count(keys=["visits"], args=[300]) for _ in range(3)] == [1, 2, 3]
    assert 0 < client.pttl("visits") <= 300, "counting does not prolong it"
    eventually(lambda: client.get("visits") is None, within=5, what="the counter expired")
    assert count(keys=["visits"], args=[60_000]) == 1


def test_a_list_takes_each_element_once(cluster):
    words = [f"word-{number}" for number in range(30)]

    def writer(number):
        with cluster.client() as client:
            push = client.register_script(PUSH_ONCE)
            turned = words[number:] + words[:number]
            return sum(push(keys=["vocabulary"], args=[word]) > 0 for word in turned)

    assert sum(at_once(16, writer)) == len(words)
    with cluster.client() as client:
        stored = client.lrange("vocabulary", 0, -1)
        assert sorted(stored) == sorted(words)
        assert client.lpos("vocabulary", stored[7]) == 7
        assert client.lpos("vocabulary", "absent") is None
