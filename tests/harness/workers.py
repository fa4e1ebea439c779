"""Many clients at once."""

from concurrent.futures import ThreadPoolExecutor


def at_once(count, work):
    """Runs `work(number)` in `count` threads, and returns what each returned.

    The first exception of a worker is the caller's.
    """
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))
