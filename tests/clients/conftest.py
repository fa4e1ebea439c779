"""Fixtures: a cluster, and one node with one shard for those who know no clusters."""

import pytest
import redis

from harness import moonraft


@pytest.fixture(scope="session")
def _cluster(tmp_path_factory):
    with moonraft.Dev(tmp_path_factory.mktemp("cluster"), nodes=3, shards=3) as dev:
        yield dev


@pytest.fixture(scope="session")
def _single(tmp_path_factory):
    with moonraft.Dev(tmp_path_factory.mktemp("single"), nodes=1, shards=1) as dev:
        yield dev


@pytest.fixture
def cluster(_cluster):
    """Three nodes with three shards and no keys."""
    with redis.RedisCluster(host="127.0.0.1", port=_cluster.port) as client:
        client.flushall(target_nodes=redis.RedisCluster.PRIMARIES)
        client.script_flush()
    return _cluster


@pytest.fixture
def single(_single):
    """One node with one shard and no keys."""
    with redis.Redis(port=_single.port) as client:
        client.flushall()
        client.script_flush()
    return _single
