# Steps that say how long they took, and something that goes on beside one. To be sourced.

steps=() step_began=0

# Ends the step before and begins one.
step() {
  step_done
  step_began=$SECONDS
  steps+=("$*")
  printf '\n==== %s ====\n' "$*"
}

step_done() {
  ((${#steps[@]})) || return 0
  steps[-1]="$(printf '%5d s  %s' $((SECONDS - step_began)) "${steps[-1]}")"
}

# All have passed.
steps_ended() {
  step_done
  printf '\n==== passed in %d s ====\n' "$SECONDS"
  printf '%s\n' "${steps[@]}"
}

declare -A beside_pid beside_log

# beside NAME COMMAND…: goes on beside the rest of the step.
beside() {
  local name="$1"
  beside_log[$name]="$(mktemp)"
  "${@:2}" >"${beside_log[$name]}" 2>&1 &
  beside_pid[$name]=$!
}

# Waits for it, shows what it wrote, and fails if it did.
beside_ended() {
  local name="$1" code=0
  wait "${beside_pid[$name]}" || code=$?
  unset "beside_pid[$name]"
  printf '\n---- %s ----\n' "$name"
  cat "${beside_log[$name]}"
  rm -f "${beside_log[$name]}"
  return "$code"
}

# Who fails lets what goes on beside it end first: it has things of its own to take down.
trap 'for name in "${!beside_pid[@]}"; do beside_ended "$name" || true; done' EXIT
