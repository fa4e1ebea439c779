"""(a) Money moves between accounts under WATCH/MULTI/EXEC; none appears or vanishes."""

import random

from redis.exceptions import WatchError

from harness.workers import at_once

ACCOUNTS = 8
OPENING_BALANCE = 1000
CLIENTS = 16
TRANSFERS_EACH = 40


class InsufficientFunds(Exception):
    """The account does not hold that much."""


class Bank:
    """Accounts in one hash tag, so that one transaction may touch any two."""

    def __init__(self, client):
        self.client = client

    @staticmethod
    def key(account):
        """The key of an account's balance."""
        return f"{{bank}}:account:{account}"

    def open(self, account, balance):
        """Creates an account."""
        self.client.set(self.key(account), balance)

    def transfer(self, source, target, amount):
        """Moves money; tries again while somebody else moves the same money.

        Returns how often it had to start over.
        """
        conflicts = 0
        with self.client.pipeline(transaction=True) as pipe:
            while True:
                try:
                    pipe.watch(self.key(source), self.key(target))
                    if int(pipe.get(self.key(source))) < amount:
                        raise InsufficientFunds
                    pipe.multi()
                    pipe.decrby(self.key(source), amount)
                    pipe.incrby(self.key(target), amount)
                    pipe.execute()
                    return conflicts
                except WatchError:
                    conflicts += 1

    def balances(self):
        """All balances, read at one moment."""
        return [int(value) for value in self.client.mget(map(self.key, range(ACCOUNTS)))]


def test_the_total_is_conserved_under_sixteen_clients(cluster):
    with cluster.client() as client:
        bank = Bank(client)
        for account in range(ACCOUNTS):
            bank.open(account, OPENING_BALANCE)

        def customer(number):
            dice = random.Random(number)
            done, conflicts = 0, 0
            with cluster.client() as own_client:
                own_bank = Bank(own_client)
                for _ in range(TRANSFERS_EACH):
                    source, target = dice.sample(range(ACCOUNTS), 2)
                    try:
                        conflicts += own_bank.transfer(source, target, dice.randint(1, 400))
                        done += 1
                    except InsufficientFunds:
                        pass
                    assert sum(own_bank.balances()) == ACCOUNTS * OPENING_BALANCE
            return done, conflicts

        results = at_once(CLIENTS, customer)

        balances = bank.balances()
        assert sum(balances) == ACCOUNTS * OPENING_BALANCE
        assert min(balances) >= 0
        assert sum(done for done, _ in results) > 0
        assert sum(conflicts for _, conflicts in results) > 0, "nobody ever collided: no test"


def test_exec_fails_when_a_watched_key_changed(client):
    key = Bank.key(1)
    client.set(key, 10)
    with client.pipeline(transaction=True) as pipe:
        pipe.watch(key)
        client.set(key, 20)
        pipe.multi()
        pipe.set(key, 30)
        try:
            pipe.execute()
            raise AssertionError("EXEC went through")
        except WatchError:
            pass
    assert client.get(key) == "20"
