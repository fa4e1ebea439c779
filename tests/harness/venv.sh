# Makes the Python environment of the suites, once a change of requirements.txt: of `suite`, or of the scenarios.
# To be sourced; sets `venv`. `.venv` is git-ignored.

suite="${suite:-$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)}"
venv="$suite/.venv"

if ! cmp -s "$suite/requirements.txt" "$venv/installed.txt"; then
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$suite/requirements.txt"
  cp "$suite/requirements.txt" "$venv/installed.txt"
fi
