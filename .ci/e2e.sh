#!/usr/bin/env bash
# Pulls images through a node with real clients from real registries:
#
#	.ci/e2e.sh OCI-PROXY
#
# Each client pulls from each kind of upstream three times: cold; from the cache,
# where the node must not ask upstream for a blob; and with upstream gone. Then a
# node is killed in the middle of a pull, and a stranger with a repository of its own
# tries to get another's private layer. If no docker engine can be started here, its
# runs are skipped with a message.
#
# Needs the programs of install.sh and tools.sh, and the front, in the PATH.
# Everything is on 127.0.0.1 and in one folder, which is removed at the end.
# CLIENTS and MODES restrict a run; KEEP_LOGS names a folder for the logs of runs
# that fail.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
oci_proxy=$(realpath "$1")

work=$(mktemp -d)
mkdir -p "$work/log"
requests=$work/requests.jsonl # all requests to upstream
mapfile -t ports < <(front ports 7)
registry_port=${ports[0]} htpasswd_port=${ports[1]} token_port=${ports[2]}
front_port=${ports[3]} cdn_port=${ports[4]} node_port=${ports[5]}
attacked_port=${ports[6]} # of the registry that has a stranger's repository, too

# shellcheck source-path=SCRIPTDIR
{
  source "$here/e2e/surroundings.sh"
  source "$here/e2e/processes.sh"
  source "$here/e2e/corpus.sh"
  source "$here/e2e/upstreams.sh"
  source "$here/e2e/node.sh"
  source "$here/e2e/clients.sh"
  source "$here/e2e/stranger.sh"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

images=(org/app:oci org/app:docker org/app:multi a/b/c/d:deep)
big=org/big:noise
declare -A reference=() digest=()
summary=()
passed=0 failed=0 skipped=0

# prepare starts the registries and fills them.
prepare() {
  local name
  start_registries && seed "127.0.0.1:$registry_port" && start_token_registry || return 1
  for name in "${images[@]}" "$big"; do
    digest[$name]=$(digest_of "$name") || return 1
    reference[$name]=127.0.0.1:$node_port/up/$name
  done
  # Other names of the same registry: none at all, and the one with its port.
  reference[org/app:docker]=127.0.0.1:$node_port/org/app:docker
  reference[org/app:multi]=127.0.0.1:$node_port/127.0.0.1_$front_port/org/app:multi
}

# pull_all CLIENT IMAGE… pulls by tag.
pull_all() {
  local client=$1 name
  shift
  for name in "$@"; do
    "pull_$client" "${reference[$name]}" "${digest[$name]}" || { echo "pulling ${reference[$name]}" && return 1; }
  done
}

# pull_digests CLIENT IMAGE… pulls by digest.
pull_digests() {
  local client=$1 name by_digest
  shift
  for name in "$@"; do
    by_digest=${reference[$name]%:*}@${digest[$name]}
    "pull_$client" "$by_digest" "${digest[$name]}" || { echo "pulling $by_digest" && return 1; }
  done
}

# cold CLIENT IMAGE… pulls through the node alone. Each blob comes once.
cold() { pull_all "$@" && each_blob_once && only_the_node_asked; }

# cached CLIENT IMAGE… pulls again. Upstream sends no blob.
cached() { : >"$requests" && "forget_$1" && pull_all "$@" && no_blob_asked && figures_add_up; }

# outage CLIENT IMAGE… pulls again by tag and by digest, without upstream.
outage() { "forget_$1" && pull_all "$@" && "forget_$1" && pull_digests "$@"; }

# refused CLIENT pulls without a password and with a wrong one. The node refuses both.
refused() {
  local login
  for login in '' "$node_user:wrong"; do
    if "pull_$1" "${reference[org/app:oci]}" "${digest[org/app:oci]}"; then
      echo "pulled with the login '$login'" && return 1
    fi
  done
}

# check NAME COMMAND… runs a check and adds its outcome to $row. If it fails, the
# ends of the logs are printed.
check() {
  local name=$1 began=$SECONDS
  shift
  if "$@" >"$work/log/check" 2>&1; then
    passed=$((passed + 1))
    row+=$'\t'"ok $((SECONDS - began))s"
    return
  fi
  failed=$((failed + 1))
  row+=$'\t'FAILED
  printf '\n--- FAILED: %s, %s\n' "${row//$'\t'/ }" "$name"
  tail -n 15 "$work/log/check"
  echo "--- the node's log"
  tail -n 15 "$work/log/node" | cut -c 1-500
  echo "--- upstream's"
  tail -n 6 "$requests" 2>/dev/null | cut -c 1-300
}

# run_client CLIENT MODE makes all three pulls through a node with an empty cache.
run_client() {
  local client=$1 set=("${images[@]}") row="$1"$'\t'"$2" before
  before=$failed mode=$2
  [[ $mode != plain ]] || set+=("$big")
  login=''
  forget_"$client" >/dev/null 2>&1
  : >"$requests"
  if ! start_upstream "$mode" || ! fresh_node "$mode"; then
    failed=$((failed + 1)) && summary+=("$row"$'\t'"node or upstream did not start")
    tail -n 20 "$work/log/node" "$work/log/front"
    stop_upstream
    return
  fi
  if [[ $mode == login ]]; then
    check refused refused "$client"
    login=$node_user:$node_password
  fi
  check cold cold "$client" "${set[@]}"
  check cached cached "$client" "${set[@]}"
  stop_upstream
  check outage outage "$client" "${set[@]}"
  login=''
  forget_"$client" >/dev/null 2>&1
  summary+=("$row")
  ((failed == before)) || keep_logs "$client-$mode"
}

# keep_logs NAME: copies the logs of a failed run to $KEEP_LOGS, if that is set.
keep_logs() {
  [[ -n ${KEEP_LOGS:-} ]] || return 0
  mkdir -p "$KEEP_LOGS/$1" && cp -r "$work/log" "$requests" "$work/node.yml" "$KEEP_LOGS/$1/"
}

# does_not_start CLIENT says so. An engine needs rights that not every machine
# gives, so its runs are skipped; a plain program must be there.
does_not_start() {
  local outcome=skipped
  case $1 in
    docker | containerd | podman) skipped=$((skipped + 1)) ;;
    *) failed=$((failed + 1)) outcome=FAILED ;;
  esac
  echo "$1 is not on this machine or does not start here: its runs are $outcome"
  tail -n 3 "$work/log/start-$1" "$work/log/$1" 2>/dev/null
  summary+=("$1"$'\t'"-"$'\t'"$outcome"$'\t'"$outcome"$'\t'"$outcome")
}

# survives_kill kills the node when it has the smallest layer of $big while the
# others arrive. Once started again, the node still has that layer, and the pull
# finishes.
survives_kill() {
  local first
  first=$(crane manifest --insecure "127.0.0.1:$registry_port/$big" | jq -r '.layers | min_by(.size).digest')
  start_upstream slow && fresh_node plain || return 1
  start pull bounded crane pull --insecure --format=oci "${reference[$big]}" "$work/cut"
  within 60 at_least CurrentSize 20000000 || { echo "no layer became complete" && return 1; }
  running pull || { echo "the pull was over too soon" && return 1; }
  stop node KILL
  stop pull
  stop_upstream
  : >"$requests"
  start_upstream plain && start_node || return 1
  pull_crane "${reference[$big]}" "${digest[$big]}" && each_blob_once || return 1
  ! blobs_asked | grep -F "$first" || { echo "a blob that was complete was fetched again" && return 1; }
}

# finish prints the table, and fails if anything did.
finish() {
  printf '%s\n' "${summary[@]}" |
    awk -F '\t' 'BEGIN { f = "%-11s %-9s %-10s %-10s %-10s %s\n"; printf f, "client", "mode", "cold", "cached", "outage", "" }
      $2 == "login" { printf f, $1, $2, $4, $5, $6, "without the password: " ($3 ~ /^ok/ ? "refused" : $3); next }
      { printf f, $1, $2, $3, $4, $5, "" }'
  echo "$passed passed, $failed failed, $skipped skipped"
  ((failed == 0))
}

if ! prepare >"$work/log/prepare" 2>&1; then
  echo "the registries could not be started or filled:"
  tail -n 20 "$work/log/prepare" "$work"/log/{registry,htpasswd,seeding,token} 2>/dev/null
  exit 1
fi
for client in ${CLIENTS:-"${clients[@]}"}; do
  start_"$client" >"$work/log/start-$client" 2>&1 || { does_not_start "$client" && continue; }
  for upstream in ${MODES:-plain htpasswd token redirect login}; do
    run_client "$client" "$upstream"
  done
  stop "$client"
done
mode='' row=$'crane\tkill -9'
check 'killed in the middle of a pull' survives_kill
summary+=("$row")
stop_upstream
for program in docker-registry registry; do
  mode='' row="$program"$'\t'stranger
  check 'a stranger gets nothing' stranger_gets_nothing "$program"
  summary+=("$row")
done
finish
