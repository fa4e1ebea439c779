"""Fixtures: each compose file, up, and taken down whatever happens."""

import pytest

from stack import Stack


@pytest.fixture(scope="module")
def three():
    """The three-node file."""
    with Stack("docker-compose.yml", nodes=3, shards=3, network="moonraft") as stack:
        yield stack


@pytest.fixture(scope="module")
def five():
    """The five-node file."""
    file = "docker-compose-five-nodes.yml"
    with Stack(file, nodes=5, shards=5, network="moonraft-five") as stack:
        yield stack


@pytest.fixture
def cluster(three):
    """Three nodes, all healthy."""
    return three.heal()
