"""Runs in a container of the cluster's network: writers on every node's name.

Each line of input is a question, each line of output its answer in JSON:
`counts` (acknowledged writes, by writer), `errors`, `addresses` (what the client
was told of the cluster) and `finish` (stop, and tell what is lost).
"""

import json
import sys

from redis.cluster import ClusterNode, RedisCluster

from harness.recorder import Writer

PORT = 6379


def connect(number):
    """A cluster client that is told one node's name."""
    start = [ClusterNode(f"node{number}", PORT)]
    options = {"decode_responses": True, "socket_timeout": 2, "socket_connect_timeout": 2}
    return RedisCluster(startup_nodes=start, **options)


def main(nodes):
    """Writes until the input ends."""
    clients = [connect(number) for number in range(1, nodes + 1)]
    writers = [
        Writer(client, f"{{network-{number}}}", "w") for number, client in enumerate(clients)
    ]
    for writer in writers:
        writer.start()

    def finish():
        for writer in writers:
            writer.stop()
        with connect(1) as client:
            return [key for writer in writers for key in writer.lost(client)]

    answers = {
        "counts": lambda: [writer.acknowledged for writer in writers],
        "errors": lambda: [str(error) for writer in writers for error in writer.errors],
        "addresses": lambda: sorted(node.name for node in clients[0].get_nodes()),
        "finish": finish,
    }
    for question in sys.stdin:
        print(json.dumps(answers[question.strip()]()), flush=True)


main(int(sys.argv[1]))
