# shellcheck shell=bash
# Checks that print their outcome at once.

passed=0 failed=0

# check NAME COMMAND… runs a check. If it fails, the command's output is printed, and
# then that of evidence.
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

# A check may set $seen to what it saw.
seen=''

# evidence prints what may explain a failure. Scripts define their own.
evidence() { :; }

# finish prints the outcome, and fails if anything did.
finish() {
  echo "$passed passed, $failed failed"
  ((failed == 0 && passed > 0))
}

# skip REASON ends a run that is impossible on this machine.
skip() {
  echo "skipped: $1"
  tail -n 5 "$work"/log/* 2>/dev/null
  exit 0
}
