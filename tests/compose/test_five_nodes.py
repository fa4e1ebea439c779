"""The five-node file. A module of its own: the three-node cluster, whose ports it
uses, is taken down before it begins."""

from stack import HostWriters, NetworkWriters, wait_for_progress


def test_five_nodes_survive_the_loss_of_two(five):
    with HostWriters(five) as host, NetworkWriters(five) as network:
        wait_for_progress(host, network)
        for node in five.nodes[:2]:
            node.kill()
        wait_for_progress(host, network)
        five.heal()
        wait_for_progress(host, network)
        assert host.finish() + network.finish() == []
