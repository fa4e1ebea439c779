# Builds what the suite and the measurements start, and makes their Python
# environment. To be sourced; sets `here`, `repository` and `venv`. `helpers`: programs
# of the tests to build, if others than the scenarios'.

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
repository="$(cd "$here/../.." && pwd)"
export MOONRAFT_PROFILE="${MOONRAFT_PROFILE:-release}"

for tool in python3 redis-cli redis-server cargo; do
  command -v "$tool" >/dev/null || { echo "tests/scenarios: $tool is not installed" >&2; exit 1; }
done

# shellcheck source=venv.sh
source "$here/venv.sh"

release=()
[[ "$MOONRAFT_PROFILE" == release ]] && release=(--release)
build() { (cd "$repository" && cargo build --locked "${release[@]}" "$@"); }

for helper in "${helpers[@]:-redis-rs-failover}"; do build --package moonraft-tests --bin "$helper"; done
if [[ -z "${MOONRAFT_BINARY:-}" && -z "${MOONRAFT_RIVAL:-}" ]]; then
  build --package moonraft --bin moonraft
  export MOONRAFT_BINARY="$repository/target/$MOONRAFT_PROFILE/moonraft"
fi

# Where Debian keeps libraries of node.js.
export NODE_PATH="${NODE_PATH:-/usr/share/nodejs}"

# Each connection of 16 clients to 9 replicas is a file.
ulimit -n "$(ulimit -Hn)"
