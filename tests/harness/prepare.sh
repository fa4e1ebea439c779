# Builds what a suite starts, and makes its Python environment. To be sourced by who has set `suite`, its folder, and
# `helpers`, programs of the tests that it starts. Sets `repository` and `venv`.
#
#   MOONRAFT_BINARY=…        a server that is built already
#   MOONRAFT_PROFILE=debug   which build to make and use

repository="$(cd "$suite/../.." && pwd)"
export MOONRAFT_PROFILE="${MOONRAFT_PROFILE:-release}"

for tool in python3 redis-cli redis-server cargo; do
  command -v "$tool" >/dev/null || { echo "${suite#"$repository"/}: $tool is not installed" >&2; exit 1; }
done

# shellcheck source=venv.sh
source "$(dirname "${BASH_SOURCE[0]}")/venv.sh"

release=()
[[ "$MOONRAFT_PROFILE" == release ]] && release=(--release)
build() { (cd "$repository" && cargo build --locked "${release[@]}" "$@"); }

for helper in "${helpers[@]}"; do build --package moonraft-tests --bin "$helper"; done
if [[ -z "${MOONRAFT_BINARY:-}" && -z "${MOONRAFT_RIVAL:-}" ]]; then
  build --package moonraft --bin moonraft
  export MOONRAFT_BINARY="$repository/target/$MOONRAFT_PROFILE/moonraft"
fi

# Where Debian keeps libraries of node.js.
export NODE_PATH="${NODE_PATH:-/usr/share/nodejs}"

# Each connection of 16 clients to 9 replicas is a file.
ulimit -n "$(ulimit -Hn)"
