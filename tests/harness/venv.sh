# Makes the Python environment of a suite, once a change of its requirements: its own `requirements.txt`, or the one
# beside this file. To be sourced by who has set `suite`, its folder; sets `venv`, and lets Python find `harness`.
# `.venv` is git-ignored.

requirements="$suite/requirements.txt"
[[ -f "$requirements" ]] || requirements="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/requirements.txt"
venv="$(dirname "$requirements")/.venv"
export PYTHONPATH="$suite/.."

(
  # Suites that run side by side make it once.
  exec 9>"$(dirname "$requirements")/.venv.lock"
  flock 9
  if ! cmp -s "$requirements" "$venv/installed.txt"; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
    cp "$requirements" "$venv/installed.txt"
  fi
)
