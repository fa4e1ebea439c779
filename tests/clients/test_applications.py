"""What applications use that is built on Redis: locks, limits, queues of jobs."""

import dramatiq
import huey
import limits
import pytest
import redis
import redis_lock
from dramatiq.brokers.redis import RedisBroker

from harness.processes import eventually
from harness.workers import at_once

THREADS = 8


STRATEGIES = [
    limits.strategies.FixedWindowRateLimiter,
    limits.strategies.MovingWindowRateLimiter,
    limits.strategies.SlidingWindowCounterRateLimiter,
]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_limit_of_limits_limits(cluster, strategy):
    """Who comes at once from several threads is let in exactly as often as may be."""
    storage = limits.storage.RedisClusterStorage(f"redis+cluster://127.0.0.1:{cluster.port}")
    assert storage.check()
    limiter, limit = strategy(storage), limits.parse("20/hour")
    let_in = []
    at_once(THREADS, lambda _: let_in.extend(limiter.hit(limit, "somebody") for _ in range(10)))
    assert let_in.count(True) == 20 and len(let_in) == 10 * THREADS
    assert limiter.hit(limit, "somebody else")
    limiter.clear(limit, "somebody")
    assert limiter.hit(limit, "somebody")


def count_under(make_lock, client):
    """A counter that is read and written under a lock by several threads."""

    def count(_):
        for _ in range(10):
            with make_lock():
                value = int(client.get("{counter}") or 0)
                client.set("{counter}", value + 1)

    at_once(THREADS, count)
    assert int(client.get("{counter}")) == 10 * THREADS


def test_a_lock_of_redis_py_is_exclusive(cluster):
    with redis.RedisCluster(host="127.0.0.1", port=cluster.port) as client:
        count_under(lambda: client.lock("lock", timeout=20, sleep=0.005), client)
        lock = client.lock("lock", timeout=20)
        assert lock.acquire() and not client.lock("lock").acquire(blocking=False)
        assert lock.extend(10) and lock.reacquire()
        lock.release()
        with pytest.raises(redis.exceptions.LockError):
            lock.release()


def test_a_lock_of_python_redis_lock_is_exclusive(single):
    """It waits in the server, by `BLPOP`. The keys of a lock are of one slot by its tag."""
    client, name = redis.Redis(port=single.port), "{lock}"
    count_under(lambda: redis_lock.Lock(client, name, expire=20), client)
    one, other = (redis_lock.Lock(client, name, expire=20) for _ in range(2))
    assert one.acquire(blocking=False) and not other.acquire(blocking=False)
    assert not other.acquire(timeout=1)
    one.extend(30)
    assert one.locked()
    one.release()
    with pytest.raises(redis_lock.NotAcquired):
        other.release()
    redis_lock.reset_all(client)


def test_jobs_of_huey_run_exactly_once(single):
    """Its workers wait by `BRPOP`; a job that fails is tried again, one that is for later comes later."""
    queue = huey.RedisHuey("jobs", port=single.port)
    done, failed_once, count = [], [], 200

    @queue.task(retries=1)
    def job(number):
        if number == 7 and not failed_once:
            failed_once.append(number)
            raise ValueError("the first time it does not go well")
        done.append(number)
        return 2 * number

    consumer = queue.create_consumer(workers=4, periodic=False, check_worker_health=False)
    consumer.start()
    try:
        results = [job(number) for number in range(count)]
        later = job.schedule(args=(count,), delay=1)
        assert later.get(blocking=True, timeout=60) == 2 * count
        eventually(lambda: len(done) >= count + 1, within=60, what="all jobs have run")
        assert results[11].get(blocking=True, timeout=60) == 22
    finally:
        consumer.stop()
    assert sorted(done) == list(range(count + 1))
    assert failed_once == [7]


def test_jobs_of_dramatiq_run_exactly_once(single):
    """Its scripts make up names of keys that they do not declare, of several slots."""
    broker = RedisBroker(url=f"redis://127.0.0.1:{single.port}/0")
    done, failed_once = [], []

    @dramatiq.actor(broker=broker, queue_name="jobs", max_retries=3, min_backoff=10, max_backoff=20)
    def job(number):
        if number == 7 and not failed_once:
            failed_once.append(number)
            raise ValueError("the first time it does not go well")
        done.append(number)

    count = 200
    for number in range(count):
        job.send(number)
    job.send_with_options(args=[count], delay=50)
    worker = dramatiq.Worker(broker, worker_timeout=100, worker_threads=THREADS)
    worker.start()
    try:
        eventually(lambda: len(done) >= count + 1, within=60, what="all jobs have run")
        broker.join("jobs", timeout=20_000)
        worker.join()
    finally:
        worker.stop()
    assert sorted(done) == list(range(count + 1))
    assert failed_once == [7]
    assert broker.client.hlen("dramatiq:jobs.msgs") == 0
    broker.close()
