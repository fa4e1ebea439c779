"""Fixtures: the cluster under test, clean and whole at the start of each test."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from harness import moonraft, rival
from harness.cluster import Cluster

RIVAL = os.environ.get("MOONRAFT_RIVAL", "")
if RIVAL not in ("", "redis"):
    raise pytest.UsageError(f"MOONRAFT_RIVAL is `{RIVAL}`: it can be `redis`, or unset")

# A test that is not done by then hangs; its stacks are printed.
TEST_SECONDS_MAX = 180


def pytest_configure(config):
    """Declares our markers."""
    for marker in (
        "moonraft_only(reason): what the rival does not offer",
        "rival_may_lose(reason): the rival acknowledges before a majority has it, so it may fail",
    ):
        config.addinivalue_line("markers", marker)


def pytest_collection_modifyitems(items):
    """Applies the markers about the rival, and a deadline to every test."""
    for item in items:
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TEST_SECONDS_MAX))
        only = item.get_closest_marker("moonraft_only")
        may_lose = item.get_closest_marker("rival_may_lose")
        if RIVAL and only:
            item.add_marker(pytest.mark.skip(reason=f"rival: {only.args[0]}"))
        if RIVAL and may_lose:
            item.add_marker(pytest.mark.xfail(reason=may_lose.args[0], strict=False))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Remembers that something failed, so that the logs are kept."""
    report = yield
    if report.failed:
        item.session.stash[FAILED] = True
    return report


FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def directory(request):
    """Where servers keep data and logs; removed unless a test failed."""
    path = Path(tempfile.mkdtemp(prefix="moonraft-scenarios-"))
    yield path
    if request.session.stash.get(FAILED, False):
        print(f"\nlogs and data are kept in {path}")
    else:
        shutil.rmtree(path)


@pytest.fixture(scope="session")
def make_cluster(directory):
    """Makes clusters of the kind under test; all are ended with the session."""
    clusters = []

    def make(nodes=3, shards=3):
        kind = rival.Node if RIVAL else moonraft.Node
        home = directory / f"cluster-{len(clusters) + 1}"
        home.mkdir()
        clusters.append(Cluster(kind, home, nodes, shards))
        return clusters[-1].start()

    yield make
    for cluster in clusters:
        for node in cluster.nodes:
            node.resume()
            if node.is_running():
                node.kill()


@pytest.fixture
def own_cluster(directory, request):
    """Makes a cluster of its own that has not been started."""
    made = []

    def make(nodes, shards):
        home = directory / request.node.name
        home.mkdir()
        made.append(Cluster(moonraft.Node, home, nodes, shards))
        return made[-1]

    yield make
    for node in (node for cluster in made for node in cluster.nodes):
        if node.is_running():
            node.kill()


@pytest.fixture(scope="session")
def _shared_cluster(make_cluster):
    return make_cluster()


@pytest.fixture
def cluster(_shared_cluster):
    """Three nodes, three shards, no keys, every leader at home."""
    _shared_cluster.heal()
    for shard in range(_shared_cluster.shards):
        with _shared_cluster.leader(shard).connect() as leader:
            leader.flushall()
    return _shared_cluster


@pytest.fixture
def client(cluster):
    """One cluster client, as an application makes it."""
    with cluster.client() as client:
        yield client
