#!/usr/bin/env bash
# Measures the program beside nginx in one run, and prints ratios:
#
#	.ci/bench.sh OCI-PROXY          all rows, some minutes
#	.ci/bench.sh OCI-PROXY blob-4k  the rows and studies whose names begin so
#	BENCH='-rounds 9 -for 2s' …     with options of the program `bench`
#
# `bench -h` lists the options, `bench rows` the rows; .ci/bench/rows.go is their table. Needs the
# program `bench` (go build ./.ci/bench) and Debian's nginx in the PATH, and two processors: the
# servers run on the first, the clients and the registry on the second. What others do on the
# machine moves all figures, the ratios least. Nothing here is a gate.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
oci_proxy=$(realpath "$1")
shift
[[ -n ${TMPDIR:-} || ! -w /dev/shm ]] || export TMPDIR=/dev/shm # a disk's own speed is not the subject
work=$(mktemp -d)
mkdir -p "$work/log"

# shellcheck source-path=SCRIPTDIR
{
  source "$here/e2e/surroundings.sh"
  source "$here/e2e/processes.sh"
  source "$here/e2e/checks.sh"
}
export NO_PROXY='*' no_proxy='*'
trap clean_up EXIT
trap 'exit 130' INT TERM
PATH=$PATH:/usr/sbin

command -v bench >/dev/null || skip 'there is no program bench: go build ./.ci/bench'
command -v nginx >/dev/null || skip 'there is no nginx: .ci/install.sh installs it'
command -v taskset >/dev/null || skip 'there is no taskset'
(($(nproc) > 1)) || skip 'it takes two processors'

# shellcheck disable=SC2086 # BENCH holds several options
taskset -c 1 bench -program "$oci_proxy" -folder "$work" ${BENCH:-} "$@"
