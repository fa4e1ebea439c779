"""What the suites share: processes and waiting, requests and replies as bytes, nodes, clusters, writers.

`processes`, `wire` and `moonraft` need nothing but Python; the rest needs redis-py.
"""
