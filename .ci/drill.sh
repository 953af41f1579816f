#!/usr/bin/env bash
# The operator's drill. Five things go wrong in a cluster of three, one after the other:
#
#	.ci/drill.sh OCI-PROXY
#
# The registry fails; it limits the cluster; a disk fills; a node dies; a node starts with
# another secret. For each, an alert of deploy/alerts.yaml must fire in a real Prometheus,
# the log must have the cause at its level, `status` and `doctor` must name it, and
# docs/operations.md must say what to do about the alert. Before, nothing may fire, and
# nothing may be found.
#
# Prometheus asks every second, and the times of the alerts are shortened to fit; what they
# ask is not changed. All runs in a network namespace of its own, so it needs root. Needs
# the programs of install.sh and tools.sh, and the front, in the PATH.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)

if [[ -z ${IN_NAMESPACE:-} ]]; then
  oci_proxy=$(realpath "$1")
  command -v prometheus >/dev/null || { echo "skipped: prometheus is not there: it is in Debian's package prometheus" && exit 0; }
  unshare --net --mount true 2>/dev/null || { echo "skipped: no network namespace can be made here" && exit 0; }
  # shellcheck disable=SC2016 # the inner shell has its own arguments
  IN_NAMESPACE=1 unshare --net --mount bash -c 'ip link set lo up && exec "$1" "$2"' - "$0" "$oci_proxy"
  exit
fi

oci_proxy=$1
work=$(mktemp -d)
mkdir -p "$work/log"
registry_port=5001 front_port=5002 node_port=8080 gossip_port=7946 peer_port=7947 prometheus_port=9090
members=(127.0.0.2 127.0.0.3 127.0.0.4) stranger=127.0.0.5

# shellcheck source-path=SCRIPTDIR
{
  source "$here/e2e/surroundings.sh"
  source "$here/e2e/processes.sh"
  source "$here/e2e/checks.sh"
  source "$here/e2e/corpus.sh"
  source "$here/e2e/upstreams.sh"
}
trap clean_up EXIT
trap 'exit 130' INT TERM
unset HTTP_PROXY HTTPS_PROXY http_proxy https_proxy # nothing leaves the namespace

# --- what runs

# start_front [FAULT] starts what the nodes take for their registry.
start_front() {
  printf '%s\n' "$@" >"$work/faults"
  stop front
  start front front -listen "127.0.0.1:$front_port" -upstream "http://127.0.0.1:$registry_port" -faults "$work/faults"
  within 30 curl -sf -m 5 -o /dev/null "http://127.0.0.1:$registry_port/v2/"
}

# start_member ADDRESS SECRET starts a member.
start_member() {
  mkdir -p "$work/$1/cache"
  cat >"$work/$1/config.yaml" <<END
port: $node_port
address: $1
default_registry: "127.0.0.1:$front_port"
defaults: {cache_dir: $work/$1/cache, cache_max_size: 1g}
registries: {"127.0.0.1:$front_port": {insecure: true, alias: [up]}}
cluster:
  name: node-${1##*.}
  bind_addr: $1:$gossip_port
  peer_addr: $1:$peer_port
  seeds: ["${members[0]}:$gossip_port", "${members[1]}:$gossip_port"]
  secret: $2
END
  start "$1" "$oci_proxy" serve -c "$work/$1/config.yaml"
}

# start_prometheus starts Prometheus with our alerts. Their times become short.
start_prometheus() {
  local one targets=''
  for one in "${members[@]}" "$stranger"; do
    targets+="\"$one:$node_port\", "
  done
  sed -E 's/for: [0-9]+[mh]/for: 2s/; s/\[[0-9]+[mh]\]/[20s]/g' "$here/../deploy/alerts.yaml" >"$work/alerts.yaml"
  cat >"$work/prometheus.yaml" <<END
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [$work/alerts.yaml]
scrape_configs: [{job_name: oci-proxy, metrics_path: /_/metrics, static_configs: [{targets: [${targets%, }]}]}]
END
  start prometheus prometheus --config.file "$work/prometheus.yaml" --storage.tsdb.path "$work/prometheus" \
    --web.listen-address "127.0.0.1:$prometheus_port" --log.level warn
  within 20 curl -sf -m 5 -o /dev/null "http://127.0.0.1:$prometheus_port/-/ready"
}

# whole reports whether all members are active in the eyes of the first.
whole() { [[ $(curl -sf -m 5 "http://${members[0]}:$node_port/_/cluster" | jq '[.members[] | select(.state == "active")] | length') == "${#members[@]}" ]]; }

# prepare starts all. The last member's disk is small. The stranger runs alone until it
# gets another secret.
prepare() {
  local name
  registry_config "$registry_port" >"$work/registry.yml"
  start registry docker-registry serve "$work/registry.yml"
  within 20 answers "$registry_port" /v2/ || return 1
  for name in known new-1 new-2 limited; do
    layers "$name" 40K && image "127.0.0.1:$registry_port" "org/$name:v1" "$name" || return 1
  done
  layers large 9M 9M 9M 9M && image "127.0.0.1:$registry_port" org/large:v1 large || return 1
  mkdir -p "$work/${members[2]}/cache" && mount -t tmpfs -o size=24m drill "$work/${members[2]}/cache" || return 1
  start_front
  for name in "${members[@]}"; do
    start_member "$name" only-for-this-run
  done
  within 30 whole && start_prometheus && pulls "${members[0]}" known && within 20 scraped
}

# pulls ADDRESS NAME pulls an image through a node, and answered prints with which status
# its tag is answered.
answered() { curl -s -m 45 -o /dev/null -w '%{http_code}' -H 'Accept: application/vnd.oci.image.manifest.v1+json, */*' "http://$1:$node_port/v2/up/org/$2/manifests/v1"; }
pulls() { rm -rf "$work/pulled" && crane pull --insecure --format oci "$1:$node_port/up/org/$2:v1" "$work/pulled"; }

# --- what an operator looks at

# firing ALERT [TEXT] reports whether the alert fires, with the text in its labels or summary.
firing() {
  curl -sf -m 5 "http://127.0.0.1:$prometheus_port/api/v1/alerts" |
    jq -e --arg name "$1" --arg text "${2:-}" 'any(.data.alerts[]; .state == "firing" and .labels.alertname == $name and (tostring | contains($text)))' >/dev/null
}

# quiet reports that no alert fires but those for the stranger, which does not run yet, and
# for the small disk.
quiet() {
  curl -sf -m 5 "http://127.0.0.1:$prometheus_port/api/v1/alerts" |
    jq -e --arg stranger "$stranger:$node_port" '[.data.alerts[] | select(.state == "firing" and .labels.instance != $stranger and .labels.alertname != "OciProxyDiskLow")] | length == 0'
}

# scraped reports whether Prometheus has seen all members twice: before, nothing increases.
scraped() {
  curl -sf -m 5 "http://127.0.0.1:$prometheus_port/api/v1/query" --data-urlencode 'query=sum(count_over_time(oci_proxy_ready[1m])) >= 6' | jq -e '.data.result | length > 0'
}

# fires ALERT [TEXT] waits for it, and looks whether the document says what to do.
fires() {
  within 40 firing "$@" || { curl -s "http://127.0.0.1:$prometheus_port/api/v1/alerts" | jq -c '.data.alerts[] | [.labels.alertname, .state, .annotations.summary]' && return 1; }
  grep -q "^| $1 |" "$here/../docs/operations.md" || { echo "docs/operations.md does not say what to do about $1" && return 1; }
}

# logs LEVEL TEXT ADDRESS… waits for a line in the log of one of the nodes.
logs() {
  local level=$1 text=$2
  shift 2
  within 20 grep -E "level=$level .*$text" "${@/#/$work/log/}"
}

# bounded COMMAND… runs a command that ends.
bounded() { timeout -k 5 60 "$@"; }

# of ADDRESS COMMAND ARG… runs a command that asks a node.
of() { bounded "$oci_proxy" "$2" -addr "http://$1:$node_port" "${@:3}"; }

# says TEXT ADDRESS COMMAND ARG… waits until what the command prints has the text, whatever
# its exit status.
said() { grep -E "$1" < <(of "${@:2}" 2>&1); }
says() { within 30 said "$@" || { of "${@:2}" && return 1; }; }

# --- the drill

# registry_fails: what is known is served stale, what is new fails.
registry_fails() {
  stop front
  local i said
  for i in 1 2 3; do
    pulls "${members[0]}" known || return 1
    said=$(answered "${members[0]}" "new-$((i % 2 + 1))")
    [[ $said == 502 ]] || { echo "a new image is answered $said" && return 1; }
  done
}

# limited: the registry answers 429. It may count as down for a moment yet.
limited() {
  start_front '{"name": "limit", "path": "/org/limited/", "status": 429, "retry": 6}'
  within 20 refused
}
refused() { [[ $(answered "${members[1]}" limited) == 429 ]]; }

# disk_fills pulls more than the last member's disk holds.
disk_fills() {
  start_front
  within 20 pulls "${members[2]}" large # once the registry may be asked again
}

# node_dies ends a member by SIGKILL.
node_dies() { stop "${members[1]}" KILL; }

# All is seen at the first member, but the stranger's trouble at the stranger.
drill() {
  local ok=${members[0]} small=${members[2]} registry="127.0.0.1:$front_port"
  check "all is well: no alert fires" within 20 quiet
  check "all is well: status" says "3 of 3 members up" "$ok" status
  check "all is well: doctor" of "$ok" doctor

  check "the registry fails: what is known is served" registry_fails
  check "the registry fails: an alert that it is down" fires OciProxyRegistryDown "$registry"
  check "the registry fails: an alert of stale answers" fires OciProxyStale
  check "the registry fails: the log" logs WARN "registry fails.*registry=$registry state=down .*connection refused" "$ok"
  check "the registry fails: the log, of what was served all the same" logs WARN 'stale manifest served.*connection refused' "${members[@]}"
  check "the registry fails: the log, of what was not" logs WARN "request .*status=502 .*upstream_host=$registry .*connection refused" "$ok"
  check "the registry fails: status" says "$registry: down for .*connection refused" "$ok" status
  check "the registry fails: doctor" says 'error +registry +.*connection refused' "$ok" doctor
  check "the registry fails: doctor, of the step" says 'error +tcp .*connection refused' "$ok" doctor "$registry"

  start_member "$stranger" not-that-of-the-others # it takes a while to know that it is alone
  check "the limit is hit" limited
  check "the limit is hit: an alert" fires OciProxyRateLimited
  check "the limit is hit: the log" logs WARN "registry fails.*registry=$registry state=limited .*too many requests" "${members[@]}"
  check "the limit is hit: status" says "$registry: limited for .*too many requests" "$ok" status
  check "the limit is hit: doctor" says 'error +registry +.*left alone' "$ok" doctor

  check "a disk fills: the pull works" disk_fills
  check "a disk fills: an alert" fires OciProxyDiskFull "$small"
  check "a disk fills: the log" logs WARN 'disk.*full' "$small"
  check "a disk fills: status" says 'node-4: disk_full' "$ok" status
  check "a disk fills: doctor" says 'error +health +disk_full' "$ok" doctor

  check "a node dies" node_dies
  check "a node dies: an alert that it does not answer" fires OciProxyDown "${members[1]}"
  check "a node dies: an alert of the others" fires OciProxyMemberDown
  check "a node dies: the log" logs WARN 'member is down' "$ok"
  check "a node dies: status" says 'node-3: down for' "$ok" status
  check "a node dies: doctor" says 'error +members +node-3 is down' "$ok" doctor

  check "another secret: an alert" fires OciProxyDegraded '"reason":"secret"'
  check "another secret: the log" logs WARN 'degraded.*code=secret' "$stranger"
  check "another secret: status" says 'different secret' "$stranger" status
  check "another secret: doctor" says 'error +health +secret' "$stranger" doctor
}

# evidence prints the ends of the nodes' logs.
evidence() { tail -qn 3 "$work"/log/127.*; }

prepare >"$work/log/prepare" 2>&1 || { cat "$work/log/prepare" && evidence && echo "FAILED to start" && exit 1; }
drill
finish
