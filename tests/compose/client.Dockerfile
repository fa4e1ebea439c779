# A client in the cluster's network. redis-py is the suite's own, mounted; Debian's
# Python lacks one thing of it.
FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-async-timeout redis-tools \
 && rm -rf /var/lib/apt/lists/*
