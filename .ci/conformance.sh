#!/usr/bin/env bash
# Runs the OCI distribution spec's own conformance suite through a node, and at the
# same time through the three nodes of a cluster, which answer in turn:
#
#	.ci/conformance.sh OCI-PROXY          docs/conformance.md has to say what comes out
#	.ci/conformance.sh OCI-PROXY update   writes what comes out into it
#
# The suite reads what it has pushed. A node does not take pushes, so a front sends
# them straight to the registry behind the nodes. Deletes are off, because a cache
# may serve what upstream no longer has. Needs conformance, olareg and front in the
# PATH. KEEP_LOGS names a folder for the suite's own reports.
set -uo pipefail
export LC_ALL=C # for sort and join
here=$(cd "$(dirname "$0")" && pwd)
oci_proxy=$(realpath "$1") update=${2:-}
document=$here/../docs/conformance.md
# shellcheck source-path=SCRIPTDIR
source "$here/e2e/processes.sh"

work=$(mktemp -d)
mkdir "$work/log"
trap clean_up EXIT
trap 'exit 130' INT TERM
mapfile -t ports < <(front ports 6)
registry_port=${ports[0]} node_port=${ports[1]} gossip_port=${ports[2]} peer_port=${ports[3]}
declare -A front_port=([node]=${ports[4]} [mesh]=${ports[5]})
addresses=(127.0.0.2 127.0.0.3 127.0.0.4) # of the cluster's nodes

# start_node NAME ADDRESS [LINE…] starts a node with further lines of config.
start_node() {
  local name=$1 address=$2
  shift 2
  cat >"$work/$name.yml" <<END
port: $node_port
address: $address
default_registry: "127.0.0.1:$registry_port"
defaults: {cache_dir: $work/$name}
registries:
  "127.0.0.1:$registry_port": {insecure: true, alias: [up]}
END
  printf '%s\n' "$@" >>"$work/$name.yml"
  start "$name" "$oci_proxy" serve -c "$work/$name.yml"
}

# start_front WHAT ADDRESS… starts the front of the nodes there.
start_front() {
  local what=$1 address upstreams=()
  shift
  for address in "$@"; do
    upstreams+=(-upstream "http://$address:$node_port")
  done
  start "front-$what" front -listen "127.0.0.1:${front_port[$what]}" "${upstreams[@]}" \
    -writes "http://127.0.0.1:$registry_port" -prefix up -log "$work/log/requests-$what"
}

# start_all starts registry, nodes and fronts.
start_all() {
  local address
  start registry olareg serve --addr 127.0.0.1 --port "$registry_port" --dir "$work/registry" \
    --api-sparse-image --api-sparse-index
  start_node node 127.0.0.1
  for address in "${addresses[@]}"; do
    start_node "$address" "$address" "cluster: {name: node-${address##*.}, bind_addr: '$address:$gossip_port', peer_addr: '$address:$peer_port'," \
      "  seeds: ['${addresses[0]}:$gossip_port', '${addresses[1]}:$gossip_port'], secret: only-for-this-run}"
  done
  start_front node 127.0.0.1
  start_front mesh "${addresses[@]}"
  within 20 answers "$registry_port" /v2/ && within 20 answers "$node_port" /_/ready &&
    within 20 answers "${front_port[node]}" /v2/ && within 20 answers "${front_port[mesh]}" /v2/ &&
    within 30 all_met
}

# all_met reports whether each node of the cluster sees all three.
# shellcheck disable=SC2317 # within calls it
all_met() {
  local address
  for address in "${addresses[@]}"; do
    curl -sf -m 5 "http://$address:$node_port/v2/" | jq -e '.nodes == 3' || return
  done
}

# suite WHAT runs the checks through that front, including two headers that the spec
# makes optional and that nodes send.
suite() {
  mkdir "$work/$1-results"
  OCI_REGISTRY=127.0.0.1:${front_port[$1]} OCI_TLS=disabled OCI_LOG=error OCI_RESULTS_DIR=$work/$1-results \
    OCI_REPO1=up/$1/first OCI_REPO2=up/$1/second \
    OCI_API_BLOBS_DELETE=false OCI_API_MANIFESTS_DELETE=false OCI_API_TAGS_DELETE=false \
    OCI_API_BLOBS_DIGEST_HEADER=true OCI_API_MANIFESTS_DIGEST_HEADER=true OCI_DATA_SPARSE=true \
    timeout -k 5 600 conformance >"$work/log/suite-$1" 2>&1 </dev/null
}

# count WHAT FIGURE prints one of the figures of a report, 0 if it lacks that.
count() {
  sed -nE "/<testsuite /{s/.* $2=\"([0-9]+)\".*/\1/p;q}" "$work/$1-results/junit.xml" | grep . || echo 0
}

# verdict WHAT prints what came out, and fails if anything failed.
verdict() {
  local failed unasked passed
  failed=$(($(count "$1" failures) + $(count "$1" errors)))
  unasked=$(($(count "$1" skipped) + $(count "$1" disabled)))
  passed=$(($(count "$1" tests) - failed - unasked))
  echo "$passed passed, $failed failed, $unasked skipped"
  ((failed == 0 && passed > 400))
}

# answered ADDRESS prints how many GETs a node answered. It fails if there were none:
# then the suite has tested another program.
answered() {
  curl -sf -m 5 "http://$1:$node_port/_/stats?scope=node" |
    jq -e --arg registry "127.0.0.1:$registry_port" '.[$registry] | .Hits + .PeerHits + .Misses | select(. > 0)'
}

# outcomes WHAT prints a line for each group of checks: its name and what came out.
outcomes() { sed -nE '/^(apis|data):$/,$s/^  ([^:]+): (.*)$/\1\t\2/p' "$work/$1-results/results.yaml"; }

# report prints the document.
report() {
  cat <<END
# Conformance

The [OCI distribution spec](https://github.com/opencontainers/distribution-spec)'s own suite
($(sed -nE 's/^conformance .* (v[^ ]+)$/\1/p' "$here/tools.txt")), in its full mode: it pushes to a
registry and reads everything back through a node, or through the three nodes of a cluster in turn.
Deletes are off, since a cache may serve what its registry no longer has. \`.ci/conformance.sh\` runs
it in the gate and compares this page with what comes out; \`.ci/conformance.sh OCI-PROXY update\`
writes the page. Ranges through a cluster have a test of their own, \`TestRangesInTheMesh\` in \`node\`.

- One node: $(verdict node).
- Three nodes: $(verdict mesh).

| checks | one node | three nodes |
|---|---|---|
END
  join -t $'\t' <(outcomes node | sort) <(outcomes mesh | sort) | awk -F '\t' '{ print "| " $1 " | " $2 " | " $3 " |" }'
}

if ! start_all; then
  echo "registry, nodes or fronts did not start:"
  tail -n 20 "$work"/log/*
  exit 1
fi
suite mesh &
in_mesh=$!
suite node
status=$?
wait "$in_mesh" || status=1
[[ -z ${KEEP_LOGS:-} ]] || { mkdir -p "$KEEP_LOGS" && cp -r "$work/log" "$work"/*-results "$KEEP_LOGS/"; }
for what in node mesh; do
  echo "conformance, $what: $(verdict "$what")"
  verdict "$what" >/dev/null || status=1
  ((status == 0)) || grep -iE -B 1 -A 3 'fail|error' "$work/log/suite-$what" | head -n 60
done
for address in 127.0.0.1 "${addresses[@]}"; do
  echo "answered by $address: $(answered "$address")"
  answered "$address" >/dev/null || status=1
done
((status == 0)) || tail -n 15 "$work"/log/{node,127.*}
report >"$work/report"
if [[ $update == update ]]; then
  cp "$work/report" "$document"
elif ! diff "$document" "$work/report"; then
  echo "docs/conformance.md says something else; if this is right, run: .ci/conformance.sh OCI-PROXY update"
  status=1
fi
exit "$status"
