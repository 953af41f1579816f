#!/usr/bin/env bash
# Proves that no byte comes from upstream twice, whatever joins, leaves, dies or
# disagrees. Each row is a cluster of real nodes, a registry that counts the bytes it
# sends, and clients that hash what they get:
#
#	.ci/once.sh OCI-PROXY          all rows, in four minutes
#	.ci/once.sh OCI-PROXY join     only these
#	ONCE=long .ci/once.sh …        with the sizes of a real cluster, half an hour and more
#	SEED=7 .ci/once.sh …           with what was random in an earlier run
#
# `once rows` lists the rows, .ci/once/rows.go tells what they do. Needs the program
# `once` (go build ./.ci/once) in the PATH. Nodes are on loopback; those of chaos are
# in network namespaces, for which it needs root, ip, iptables and tc. Without them no
# links are cut or slow there, and no disk is full. KEEP_LOGS names a folder for the
# nodes' logs. Only processes that it started are stopped, and all it wrote is removed.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
oci_proxy=$(realpath "$1")
shift

work=$(mktemp -d)
mkdir -p "$work/log" "$work/small"
switch=oci-once-$$ # the namespace of the switch; those of nodes begin with it

# shellcheck source-path=SCRIPTDIR
{
  source "$here/e2e/surroundings.sh"
  source "$here/e2e/processes.sh"
  source "$here/e2e/spaces.sh"
  source "$here/e2e/checks.sh"
}
export NO_PROXY='*' no_proxy='*'

trap tidy EXIT
trap 'exit 130' INT TERM

# network makes a switch, where the registry and the clients are, and six hosts.
network() {
  local n
  [[ $EUID == 0 ]] && command -v ip iptables tc >/dev/null && make_switch 10.97.0.1/16 || return 1
  for n in {1..6}; do
    host "$n" "10.97.1.$n/16" || return 1
  done
}

# row NAME runs a row.
row() {
  local outcome options=(-program "$oci_proxy" -folder "$work/$1") where=()
  [[ ${ONCE:-} != long ]] || options+=(-long)
  [[ -z ${SEED:-} ]] || options+=(-seed "$SEED")
  if [[ $1 == chaos ]]; then
    if network && mount -t tmpfs -o size=6m,mode=700 oci-once "$work/small"; then
      where=(ip netns exec "$switch") options+=(-spaces "$switch" -small "$work/small")
    else
      echo "no links are cut or slow, and no disk is full: that needs root, ip, iptables and tc"
    fi
  fi
  mkdir -p "$work/$1"
  start "$1" "${where[@]}" once "${options[@]}" "$1"
  wait "${pids[$1]}"
  outcome=$?
  unset "pids[$1]"
  cat "$work/log/$1"
  seen=$(grep '; seed ' "$work/log/$1")
  if [[ -n ${KEEP_LOGS:-} ]]; then
    mkdir -p "$KEEP_LOGS" && (cd "$work" && cp --parents "log/$1" "$1"/node-*/log "$KEEP_LOGS")
  fi
  rm -rf "${work:?}/$1"
  return $outcome
}

command -v once >/dev/null || skip 'there is no program once: go build ./.ci/once'
while read -r name what; do
  [[ $# -gt 0 && " $* " != *" $name "* ]] || check "$name: $what" row "$name"
done < <(once rows)
finish
