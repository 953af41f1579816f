#!/usr/bin/env bash
# Runs every fuzz target of the module for FUZZ_TIME (default 1s). It finds the
# targets by itself, and builds each package's once.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# packages prints "PACKAGE FOLDER" for each package with fuzz targets.
packages() {
  local package folder
  go list -f '{{.ImportPath}} {{.Dir}}' ./... | while read -r package folder; do
    ! grep -qs '^func Fuzz' "$folder"/*_test.go || echo "$package $folder"
  done
}

# fuzz FOLDER TARGET runs one target. The fuzzer sometimes reports its own deadline
# as a failure when the time is up; that alone does not count.
fuzz() {
  local out
  if out=$(cd "$1" && timeout 300 "$work/targets" -test.run '^$' -test.fuzz "^$2\$" -test.fuzztime "${FUZZ_TIME:-1s}" -test.fuzzcachedir "$work/found" 2>&1); then
    echo "ok  	$2"
  elif grep -q 'context deadline exceeded' <<<"$out" && ! grep -qE 'Failing input|panic|race' <<<"$out"; then
    echo "ok  	$2: stopped at its deadline"
  else
    printf '%s\n' "$out"
    echo "FAILED	$2"
    return 1
  fi
}

run=0 failed=0
while read -r package folder; do
  echo "$package"
  go test -c -fuzz . -o "$work/targets" "$package"
  for target in $("$work/targets" -test.list '^Fuzz'); do
    run=$((run + 1))
    fuzz "$folder" "$target" </dev/null || failed=$((failed + 1))
  done
done < <(packages)
echo "$run fuzz targets, $failed of them failed"
((run > 0 && failed == 0))
