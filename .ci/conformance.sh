#!/usr/bin/env bash
# Runs the OCI distribution spec's own conformance suite through a node:
#
#	.ci/conformance.sh OCI-PROXY
#
# The suite reads what it has pushed. A node does not take pushes, so a front sends
# them straight to the registry behind the node. Deletes are off, because a cache
# may serve what upstream no longer has. Needs conformance, olareg and front in the
# PATH. KEEP_LOGS names a folder for the suite's own report.
set -uo pipefail
oci_proxy=$(realpath "$1")
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/e2e/processes.sh"

work=$(mktemp -d)
mkdir "$work/log" "$work/out"
trap clean_up EXIT
trap 'exit 130' INT TERM
mapfile -t ports < <(front ports 3)
registry_port=${ports[0]} node_port=${ports[1]} front_port=${ports[2]}

# start_all starts registry, node and front.
start_all() {
  start registry olareg serve --addr 127.0.0.1 --port "$registry_port" --dir "$work/registry" \
    --api-sparse-image --api-sparse-index
  cat >"$work/node.yml" <<END
port: $node_port
address: 127.0.0.1
default_registry: "127.0.0.1:$registry_port"
defaults: {cache_dir: $work/cache}
registries:
  "127.0.0.1:$registry_port": {insecure: true, alias: [up]}
END
  start node "$oci_proxy" serve -c "$work/node.yml"
  start front front -listen "127.0.0.1:$front_port" -upstream "http://127.0.0.1:$node_port" \
    -writes "http://127.0.0.1:$registry_port" -prefix up -log "$work/log/requests"
  within 20 answers "$registry_port" /v2/ && within 20 answers "$front_port" /v2/ &&
    within 20 answers "$node_port" /_/ready
}

# suite runs the checks, including two headers that the spec makes optional and that
# nodes send.
suite() {
  OCI_REGISTRY=127.0.0.1:$front_port OCI_TLS=disabled OCI_LOG=error OCI_RESULTS_DIR=$work/out \
    OCI_REPO1=up/conformance/first OCI_REPO2=up/conformance/second \
    OCI_API_BLOBS_DELETE=false OCI_API_MANIFESTS_DELETE=false OCI_API_TAGS_DELETE=false \
    OCI_API_BLOBS_DIGEST_HEADER=true OCI_API_MANIFESTS_DIGEST_HEADER=true OCI_DATA_SPARSE=true \
    timeout -k 5 600 conformance >"$work/log/suite" 2>&1 </dev/null
}

# count NAME prints one of the figures of the suite's report.
count() {
  sed -nE "s/.* $1=\"([0-9]+)\".*/\1/p" <<<"$counts" | grep . || echo 0
}

# through_the_node prints how many GETs the node answered. It fails if there were
# none: then the suite has tested another program.
through_the_node() {
  curl -sf -m 5 "http://127.0.0.1:$node_port/_/stats?scope=node" |
    jq -e --arg registry "127.0.0.1:$registry_port" '.[$registry] | .Hits + .Misses | select(. > 0)'
}

if ! start_all; then
  echo "registry, node or front did not start:"
  tail -n 20 "$work"/log/*
  exit 1
fi
suite
status=$?
[[ -z ${KEEP_LOGS:-} ]] || { mkdir -p "$KEEP_LOGS" && cp -r "$work/log" "$work/out" "$KEEP_LOGS/"; }
counts=$(grep -m 1 '<testsuite ' "$work/out/junit.xml" 2>/dev/null)
failed=$(($(count failures) + $(count errors)))
unasked=$(($(count skipped) + $(count disabled)))
passed=$(($(count tests) - failed - unasked))
if ((status != 0 || failed > 0)); then
  grep -iE -B 1 -A 3 'fail|error' "$work/log/suite" | head -n 60
  tail -n 15 "$work/log/node"
fi
echo "through the node: $(through_the_node)"
echo "conformance: $passed passed, $failed failed, $unasked skipped"
((status == 0 && failed == 0 && passed > 400)) && through_the_node >/dev/null
