"""(l) Saga state in a hash with a time to live; two-phase commit with SETEX keys in one tag."""

import pytest

from harness.processes import eventually
from harness.workers import at_once

# Moves on only from the expected step, so that two workers cannot both do it.
ADVANCE = """
if redis.call('HGET', KEYS[1], 'step') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'step', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'moves', 1)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""


class Saga:
    """A business process of several steps, and what undoes them."""

    STEPS = ["started", "flight", "hotel", "paid"]

    def __init__(self, client, number, ttl_ms=60_000):
        self.client = client
        self.key = f"saga:{number}"
        self.ttl_ms = ttl_ms
        self._advance = client.register_script(ADVANCE)

    def begin(self):
        """Creates the state and its deadline together."""
        with self.client.pipeline(transaction=True) as pipe:
            pipe.hset(self.key, mapping={"step": self.STEPS[0], "moves": 0})
            pipe.pexpire(self.key, self.ttl_ms)
            pipe.execute()

    def advance(self, before, after):
        """Whether it was I who moved it on."""
        return bool(self._advance(keys=[self.key], args=[before, after, self.ttl_ms]))

    def compensate(self):
        """Walks back step by step, and returns what was undone."""
        undone = []
        while (step := self.client.hget(self.key, "step")) != self.STEPS[0]:
            before = self.STEPS[self.STEPS.index(step) - 1]
            if self.advance(step, before):
                undone.append(step)
        return undone


def test_each_step_is_taken_by_one_worker(cluster, client):
    saga = Saga(client, 1)
    saga.begin()

    def worker(_):
        with cluster.client() as own_client:
            own = Saga(own_client, 1)
            return [own.advance(a, b) for a, b in zip(Saga.STEPS, Saga.STEPS[1:])]

    # A worker may be late for a step, so the steps are tried until all are done.
    taken = []
    eventually(
        lambda: taken.extend(at_once(8, worker)) or client.hget(saga.key, "step") == "paid",
        what="the saga is done",
    )
    assert [sum(column) for column in zip(*taken)] == [1, 1, 1]
    assert client.hget(saga.key, "moves") == "3"
    assert 0 < client.pttl(saga.key) <= 60_000


def test_a_failed_saga_is_compensated_backwards(client):
    saga = Saga(client, 2)
    saga.begin()
    assert saga.advance("started", "flight")
    assert saga.advance("flight", "hotel")
    assert saga.compensate() == ["hotel", "flight"]
    assert not saga.advance("hotel", "paid"), "a late worker must not finish it"


def test_an_abandoned_saga_disappears(client):
    saga = Saga(client, 3, ttl_ms=200)
    saga.begin()
    assert client.hgetall(saga.key) == {"step": "started", "moves": "0"}
    eventually(lambda: not client.exists(saga.key), within=5, what="the saga expired")
    assert not saga.advance("started", "flight")


class TwoPhaseCommit:
    """Participants vote with keys that expire; a decision is made from all votes at once."""

    PARTICIPANTS = ["stock", "payment", "shipping"]

    DECIDE = """
    if redis.call('EXISTS', KEYS[1]) == 1 then
      return redis.call('GET', KEYS[1])
    end
    local decision = 'commit'
    for i = 2, #KEYS do
      if redis.call('GET', KEYS[i]) ~= 'prepared' then decision = 'abort' end
    end
    redis.call('SETEX', KEYS[1], ARGV[1], decision)
    for i = 2, #KEYS do redis.call('DEL', KEYS[i]) end
    return decision
    """

    def __init__(self, client, number):
        self.client = client
        self.tag = f"{{transaction-{number}}}"
        self._decide = client.register_script(self.DECIDE)

    def vote_key(self, participant):
        """Where a participant's vote is."""
        return f"{self.tag}:{participant}"

    def prepare(self, participant, seconds=60):
        """A promise that holds for a time."""
        self.client.setex(self.vote_key(participant), seconds, "prepared")

    def decide(self):
        """The decision: whoever asks, and however often, gets the same."""
        votes = [self.vote_key(participant) for participant in self.PARTICIPANTS]
        return self._decide(keys=[f"{self.tag}:decision", *votes], args=[60])


def test_commit_when_all_are_prepared(cluster, client):
    transaction = TwoPhaseCommit(client, 1)
    for participant in transaction.PARTICIPANTS:
        transaction.prepare(participant)

    def coordinator(_):
        with cluster.client() as own_client:
            return TwoPhaseCommit(own_client, 1).decide()

    assert at_once(8, coordinator) == ["commit"] * 8
    assert client.exists(*map(transaction.vote_key, transaction.PARTICIPANTS)) == 0


@pytest.mark.parametrize("missing", TwoPhaseCommit.PARTICIPANTS)
def test_abort_when_one_did_not_vote(client, missing):
    transaction = TwoPhaseCommit(client, missing)
    for participant in transaction.PARTICIPANTS:
        if participant != missing:
            transaction.prepare(participant)
    assert transaction.decide() == "abort"
    transaction.prepare(missing)
    assert transaction.decide() == "abort", "a decision is final"


def test_a_vote_that_expired_does_not_count(client):
    transaction = TwoPhaseCommit(client, 2)
    transaction.prepare("stock", seconds=1)
    eventually(lambda: not client.exists(transaction.vote_key("stock")), within=5)
    transaction.prepare("payment")
    transaction.prepare("shipping")
    assert transaction.decide() == "abort"
