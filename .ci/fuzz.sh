#!/usr/bin/env bash
# Runs every fuzz target of the module for FUZZ_TIME (default 1s). It finds the
# targets by itself.
set -euo pipefail
cd "$(dirname "$0")/.."

# targets prints "PACKAGE TARGET" for each fuzz target.
targets() {
  # A package's targets come first, then its "ok PACKAGE" line.
  go test -list '^Fuzz' ./... | awk '/^Fuzz/ { found[n++] = $1 }
    $1 == "ok" { for (i = 0; i < n; i++) print $2, found[i]; n = 0 }'
}

# fuzz PACKAGE TARGET runs one target. The fuzzer sometimes reports its own deadline
# as a failure when the time is up; that alone does not count.
fuzz() {
  local out
  if out=$(timeout 300 go test -run '^$' -fuzz "^$2\$" -fuzztime "${FUZZ_TIME:-1s}" "$1" 2>&1); then
    tail -n 1 <<<"$out"
  elif grep -q 'context deadline exceeded' <<<"$out" && ! grep -qE 'Failing input|panic|race' <<<"$out"; then
    echo "ok  	$1	$2: stopped at its deadline"
  else
    printf '%s\n' "$out"
    return 1
  fi
}

found=$(targets)
failed=0
while read -r package target; do
  [[ -n $target ]] || continue
  echo "$target"
  fuzz "$package" "$target" </dev/null || failed=$((failed + 1))
done <<<"$found"
echo "$(grep -c . <<<"$found" || true) fuzz targets, $failed of them failed"
((failed == 0))
