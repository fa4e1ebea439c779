"""Scripts and batches of cluster clients: each gives its value, once, on whichever shard its keys are."""

import asyncio
import os
import subprocess
import threading
from pathlib import Path

import coredis
import glide_sync as glide
import redis

from harness import moonraft

# One a shard, and more.
KEYS = [f"{{tag-{number}}}" for number in range(12)]
COUNT = "return {redis.call('INCRBY', KEYS[1], ARGV[1]), KEYS[1]}"


def glide_client(port):
    address = glide.NodeAddress("127.0.0.1", port)
    configuration = glide.GlideClusterClientConfiguration([address], request_timeout=5000)
    return glide.GlideClusterClient.create(configuration)


def test_glide_scripts(cluster):
    client = glide_client(cluster.port)
    try:
        script = glide.Script(COUNT)
        for total in (5, 10, 15):
            for key in KEYS:
                assert client.invoke_script(script, keys=[key], args=["5"]) == [total, key.encode()]
        # Somebody else has taken them away.
        with redis.RedisCluster(host="127.0.0.1", port=cluster.port) as other:
            other.script_flush()
        assert client.invoke_script(script, keys=[KEYS[0]], args=["1"]) == [16, KEYS[0].encode()]
    finally:
        client.close()


def test_glide_batches(cluster):
    client = glide_client(cluster.port)
    try:
        batch = glide.ClusterBatch(is_atomic=False)
        for key in KEYS:
            batch.set(key, key.upper())
            batch.get(key)
        expected = [reply for key in KEYS for reply in ("OK", key.upper().encode())]
        assert client.exec(batch, raise_on_error=True) == expected
        block = glide.ClusterBatch(is_atomic=True)
        block.incr("{block}:a")
        block.incrby("{block}:b", 7)
        block.mget(["{block}:a", "{block}:b"])
        assert client.exec(block, raise_on_error=True) == [1, 7, [b"1", b"7"]]
    finally:
        client.close()


def test_redis_py_scripts(cluster):
    """From several threads, none of which has said what the script is."""
    with redis.RedisCluster(host="127.0.0.1", port=cluster.port, decode_responses=True) as client:
        script = client.register_script(COUNT)

        def run():
            for key in KEYS:
                assert script(keys=[key], args=[1])[1] == key

        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [client.get(key) for key in KEYS] == ["8"] * len(KEYS)
        sha = client.script_load(COUNT)
        assert client.script_exists(sha) == [True]
        assert client.evalsha(sha, 1, KEYS[0], 2) == [10, KEYS[0]]


def test_redis_py_pipelines(cluster):
    with redis.RedisCluster(host="127.0.0.1", port=cluster.port, decode_responses=True) as client:
        with client.pipeline() as pipeline:
            for key in KEYS:
                pipeline.set(key, key.upper()).get(key)
            assert pipeline.execute() == [reply for key in KEYS for reply in (True, key.upper())]


def test_coredis_scripts_and_pipelines(cluster):
    async def run():
        client = coredis.RedisCluster("127.0.0.1", cluster.port, decode_responses=True)
        async with client:
            script = client.register_script(COUNT)
            for total in (3, 6):
                for key in KEYS:
                    assert await script([key], [3]) == [total, key]
            async with client.pipeline() as pipeline:
                values = [pipeline.incr(key) for key in KEYS]
            assert [await value for value in values] == [7] * len(KEYS)

    asyncio.run(run())


def test_redis_rs_scripts(cluster):
    """Its blocking and its asynchronous cluster client; see `rust/redis_rs_scripts.rs`."""
    profile = os.environ.get("MOONRAFT_PROFILE", "release")
    program: Path = moonraft.REPOSITORY / "target" / profile / "redis-rs-scripts"
    done = subprocess.run([program, f"127.0.0.1:{cluster.port}", *KEYS], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
