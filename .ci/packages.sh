# Debian's packages that the suites need, installed where they are missing. To be sourced.

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
command -v redis-cli >/dev/null || missing+=(redis-tools)
command -v debootstrap >/dev/null || missing+=(debootstrap)
command -v docker-compose >/dev/null || missing+=(docker-compose)
command -v node >/dev/null || missing+=(nodejs)
NODE_PATH=/usr/share/nodejs node -e 'require("redis")' 2>/dev/null || missing+=(node-redis)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
command -v ip >/dev/null || missing+=(iproute2)
command -v nft >/dev/null || missing+=(nftables)
command -v iptables-legacy >/dev/null || missing+=(iptables)
command -v sysctl >/dev/null || missing+=(procps)
command -v gcc >/dev/null || missing+=(gcc libc6-dev)
command -v objcopy >/dev/null || missing+=(binutils)
if ((${#missing[@]})); then
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq "${missing[@]}"
  # The package starts a server of its own, which nobody asked for.
  service redis-server stop || true
fi
redis-server --version
cargo --version
docker info --format 'Docker engine {{.ServerVersion}}'
