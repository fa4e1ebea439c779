# Makes the Python environment of the suites, once a change of requirements.txt.
# To be sourced; sets `venv`. `.venv` is git-ignored.

scenarios="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="$scenarios/.venv"

if ! cmp -s "$scenarios/requirements.txt" "$venv/installed.txt"; then
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$scenarios/requirements.txt"
  cp "$scenarios/requirements.txt" "$venv/installed.txt"
fi
