# shellcheck shell=bash
# Checks that print what came of them as they go.

passed=0 failed=0

# check NAME COMMAND…: one thing that must hold. What the command prints is shown
# when it fails, and so is what evidence prints.
check() {
  local name=$1 began=$SECONDS
  shift
  if "$@" >"$work/log/check" 2>&1; then
    passed=$((passed + 1))
    printf 'ok      %3d s  %s%s\n' $((SECONDS - began)) "$name" "${seen:+ ($seen)}"
    seen=''
    return 0
  fi
  seen='' failed=$((failed + 1))
  printf 'FAILED  %3d s  %s\n' $((SECONDS - began)) "$name"
  tail -n 25 "$work/log/check" | cut -c 1-300
  evidence 2>&1 | cut -c 1-400
  return 1
}

# A command that is checked may say in $seen what it saw.
seen=''

# evidence prints what a failure may be explained by; scripts write their own.
evidence() { :; }

# finish prints the outcome, and fails if anything did.
finish() {
  echo "$passed passed, $failed failed"
  ((failed == 0 && passed > 0))
}

# skip REASON: a machine on which this run can't be made.
skip() {
  echo "skipped: $1"
  tail -n 5 "$work"/log/* 2>/dev/null
  exit 0
}
