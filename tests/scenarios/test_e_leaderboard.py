"""(e) A leaderboard that keeps the best hundred, tells ranks and shows the top ten."""

from harness.workers import at_once


class Leaderboard:
    """Best scores first; of equal scores the later name in the alphabet."""

    KEEP = 100

    def __init__(self, client, game):
        self.client = client
        self.key = f"leaderboard:{{{game}}}"

    def submit(self, player, score):
        """Takes a score if it beats the player's own best, and drops the tail."""
        with self.client.pipeline(transaction=True) as pipe:
            pipe.zadd(self.key, {player: score}, gt=True)
            pipe.zremrangebyrank(self.key, 0, -self.KEEP - 1)
            pipe.execute()

    def rank(self, player):
        """1 is best; None is not on the board."""
        rank = self.client.zrevrank(self.key, player)
        return None if rank is None else rank + 1

    def top(self, count=10):
        """The best, with scores."""
        return self.client.zrevrange(self.key, 0, count - 1, withscores=True)


def test_trim_rank_and_top_ten_under_concurrent_players(cluster):
    # Scores are distinct, so that the outcome is one and only one.
    def score(player):
        return float((player * 7919) % 10007)

    def players(number):
        with cluster.client() as client:
            board = Leaderboard(client, "chess")
            for player in range(number * 20, number * 20 + 20):
                board.submit(f"player-{player:03}", score(player) / 2)
                board.submit(f"player-{player:03}", score(player))
                board.submit(f"player-{player:03}", score(player) - 1)  # a worse day

    at_once(16, players)

    best = sorted(((score(n), f"player-{n:03}") for n in range(320)), reverse=True)
    with cluster.client() as client:
        board = Leaderboard(client, "chess")
        assert client.zcard(board.key) == Leaderboard.KEEP
        top = [(name, value) for name, value in board.top()]
        assert [(value, name) for name, value in top] == best[:10]
        assert board.rank(best[0][1]) == 1
        assert board.rank(best[99][1]) == 100
        assert board.rank(best[100][1]) is None


def test_neighbours_ties_and_ranges(client):
    board = Leaderboard(client, "go")
    for player, score in [("ann", 10), ("bob", 20), ("cat", 20), ("dan", 30.5)]:
        board.submit(player, score)
    assert [name for name, _ in board.top()] == ["dan", "cat", "bob", "ann"]
    assert client.zrange(board.key, "(10", "+inf", byscore=True) == ["bob", "cat", "dan"]
    assert client.zincrby(board.key, 25, "ann") == 35
    assert board.rank("ann") == 1
    assert client.zcount(board.key, 20, 31) == 3
