"""(d) A sliding-window rate limiter on a sorted set."""

from harness.processes import eventually
from harness.workers import at_once

# Members are unique (time and a counter), scores are the server's microseconds.
ALLOW = """
local now = redis.call('TIME')
local micros = now[1] * 1000000 + now[2]
local window = tonumber(ARGV[1]) * 1000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', micros - window)
local used = redis.call('ZCARD', KEYS[1])
if used >= tonumber(ARGV[2]) then
  local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  return {0, math.ceil((oldest[2] + window - micros) / 1000)}
end
local number = redis.call('INCR', KEYS[2])
redis.call('ZADD', KEYS[1], micros, number)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return {1, tonumber(ARGV[2]) - used - 1}
"""


class RateLimiter:
    """At most `limit` requests in any `window_ms`, counted per user."""

    def __init__(self, client, limit, window_ms):
        self.limit = limit
        self.window_ms = window_ms
        self._allow = client.register_script(ALLOW)

    def ask(self, user):
        """(allowed, what is left — or, if not allowed, milliseconds to wait)."""
        keys = [f"{{rate:{user}}}:window", f"{{rate:{user}}}:number"]
        allowed, rest = self._allow(keys=keys, args=[self.window_ms, self.limit])
        return bool(allowed), rest


def test_exactly_the_limit_passes_however_many_ask_at_once(cluster):
    def asker(_):
        with cluster.client() as client:
            limiter = RateLimiter(client, limit=25, window_ms=60_000)
            return sum(limiter.ask("crowd")[0] for _ in range(10))

    assert sum(at_once(16, asker)) == 25


def test_users_do_not_use_up_each_others_share(client):
    limiter = RateLimiter(client, limit=2, window_ms=60_000)
    assert [limiter.ask("ann") for _ in range(2)] == [(True, 1), (True, 0)]
    assert limiter.ask("ann")[0] is False
    assert limiter.ask("bob") == (True, 1)


def test_the_window_slides(client):
    limiter = RateLimiter(client, limit=3, window_ms=400)
    assert [limiter.ask("eve")[0] for _ in range(4)] == [True, True, True, False]
    _, wait_ms = limiter.ask("eve")
    assert 0 < wait_ms <= 400
    eventually(lambda: limiter.ask("eve")[0], within=5, what="the oldest request left the window")


def test_an_idle_user_costs_no_memory(client):
    limiter = RateLimiter(client, limit=3, window_ms=200)
    limiter.ask("gone")
    eventually(
        lambda: client.exists("{rate:gone}:window", "{rate:gone}:number") == 0,
        within=5,
        what="window and number expired",
    )
