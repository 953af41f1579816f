#!/usr/bin/env bash
# Lets one node's way out serve a whole cluster:
#
#	.ci/e2e/egress.sh OCI-PROXY
#
# Four nodes run in network namespaces of their own, with a registry on the same switch. Only
# one of them reaches it: the others' packets to it are refused, or swallowed. One node never
# asks registries (egress: false). While images are pulled through all nodes, the way out
# moves from node to node. All pulls must work, each blob must be begun once at the registry,
# and the registry's bytes must be 1.00 times what was pulled. Then no node has a way out, and
# the error must name the registry and the ways.
#
# Needs root, ip, iptables, curl, jq, the programs of install.sh and tools.sh, and the front,
# in the PATH. It skips with the reason where namespaces are not allowed.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
oci_proxy=$(realpath "$1")
[[ $(id -u) == 0 ]] || { echo "skipped: only root may make a network namespace" && exit 0; }

work=$(mktemp -d)
mkdir -p "$work/log"
switch=oci-egress-$$ # the namespace of the switch; those of nodes begin with it
registry=10.97.0.1   # where the nodes reach the registry
registry_port=5001
requests=$work/requests
nodes=(1 2 3 4)
failed=0

# shellcheck source-path=SCRIPTDIR
{
  source "$here/processes.sh"
  source "$here/spaces.sh"
  source "$here/corpus.sh"
  source "$here/upstreams.sh"
}

trap tidy EXIT
trap 'exit 130' INT TERM

# cut N refused|swallowed cuts the way of node N to the registry.
cut() {
  local how=(DROP)
  [[ $2 == swallowed ]] || how=(REJECT --reject-with tcp-reset)
  on "$1" iptables -A OUTPUT -p tcp -d "$registry" -j "${how[@]}" && on "$1" iptables -A INPUT -p tcp -s "$registry" -j "${how[@]}"
}

# mend N opens the way of node N to the registry.
mend() { on "$1" iptables -F; }

# node N [KEY: VALUE]… starts a node on host N.
node() {
  local n=$1
  shift
  cat >"$work/$n.yml" <<END
port: 8080
log_level: debug
default_registry: "$registry:5000"
defaults: {cache_dir: $work/cache-$n, cache_max_size: 1g}
registries: {"$registry:5000": {insecure: true, alias: [up]}}
cluster: {name: node-$n, secret: only-for-this-run, advertise: 10.98.1.$n, seeds: ['10.98.1.1:7946']$(printf ', %s' "$@")}
END
  start "node-$n" ip netns exec "$switch-$n" "$oci_proxy" serve -c "$work/$n.yml"
}

# ask N PATH gets /_/PATH from node N, on its own host.
ask() { on "$1" curl -sf -m 5 "http://127.0.0.1:8080/_/$2"; }

# together reports whether all nodes know each other.
together() {
  local n
  for n in "${nodes[@]}"; do
    [[ $(ask "$n" cluster | jq '[.members[] | select(.state == "active")] | length') == "${#nodes[@]}" ]] || return 1
  done
}

# in_switch COMMAND… runs a command where the registry is.
in_switch() { ip netns exec "$switch" "$@"; }

# pushed makes an image of three layers of 8 MB.
pushed() {
  layers "$1" 8M 8M 8M && in_switch bash -c "$(declare -f image); work=$work; image 127.0.0.1:$registry_port org/$1:v1 $1" && rm -rf "$work/layers"
}

# prepare makes the network, the registry with images, and the nodes.
prepare() {
  local n
  make_switch "$registry/16" || return 1
  for n in "${nodes[@]}"; do host "$n" "10.98.1.$n/24" "10.97.1.$n/16" || return 1; done
  registry_config "$registry_port" >"$work/registry.yml"
  start registry ip netns exec "$switch" docker-registry serve "$work/registry.yml"
  within 20 in_switch curl -sf -m 5 -o /dev/null "http://127.0.0.1:$registry_port/v2/" || return 1
  for n in one two three last; do pushed "$n" || return 1; done
  : >"$requests"
  start front ip netns exec "$switch" front -listen "$registry:5000" -upstream "http://127.0.0.1:$registry_port" -log "$requests" -slow 2000000
  in_switch iptables -A OUTPUT -p tcp --sport 5000
  for n in 2 3 4; do cut "$n" swallowed || return 1; done
  node 1 && node 2 && node 3 && node 4 'egress: false' && within 40 together
}

# pull N NAME pulls an image through node N.
pull() { on "$1" timeout 100 crane pull --insecure --format=oci "127.0.0.1:8080/up/org/$2:v1" "$work/image-$1-$2"; }

# sent prints how many bytes the registry has sent, TCP's headers included.
sent() { in_switch iptables -nvxL OUTPUT | awk '/spt:5000/ { print $2 }'; }

# from_upstream prints how many bytes of blobs all nodes got from the registry.
from_upstream() { ask 1 'stats' | jq '[.[].FromUpstreamBytes] | add'; }

# must WHAT COMMAND… runs a check and says whether it holds.
must() {
  local what=$1
  shift
  if "$@"; then
    printf '  ok      %s\n' "$what"
  else
    printf '  FAILED  %s\n' "$what"
    failed=$((failed + 1))
  fi
}

# within_percent N A B reports whether A is B, or up to N percent more.
within_percent() { awk -v p="$1" -v a="$2" -v b="$3" 'BEGIN { exit !(a >= b && a <= b * (1 + p / 100)) }'; }

# counted SIZE reports whether the nodes have counted about that much.
counted() { within_percent 1 "$(from_upstream)" "$1"; }

# begun_once reports whether no blob was asked for from its beginning twice.
begun_once() {
  jq -r 'select(.method == "GET" and .status >= 200 and .status < 300 and (.range // "") == "")
    | .path | capture("/blobs/(?<digest>sha256:.*)$").digest' "$requests" | sort | uniq -d | awk '{ print "begun twice: " $0; bad = 1 } END { exit bad }'
}

# asked N reports whether the registry has begun to send N blobs.
asked() { [[ $(jq -r 'select(.method == "GET") | .path | select(contains("/blobs/"))' "$requests" | sort -u | wc -l) -ge $1 ]]; }

# moves lets the way out move while pulls run: to node 2, at which moment connections of node
# 1 are reset, and then to node 3, while node 2's packets are swallowed.
moves() {
  local n name size=0 before pulled=0 began=$SECONDS
  before=$(sent)
  for name in one two three; do
    size=$((size + $(in_switch crane manifest --insecure "127.0.0.1:$registry_port/org/$name:v1" | jq '[.config.size, .layers[].size] | add')))
    for n in "${nodes[@]}"; do start "pull-$n-$name" pull "$n" "$name"; done
  done
  sleep 2
  within 20 asked 12 && sleep 1 # a first answer that the cut swallows would have to be asked for again
  mend 2 && cut 1 refused
  sleep 3
  mend 3 && cut 2 swallowed
  for name in one two three; do
    for n in "${nodes[@]}"; do
      if wait "${pids[pull-$n-$name]}"; then
        pulled=$((pulled + 1))
      else
        tail -n 3 "$work/log/pull-$n-$name"
      fi
      unset "pids[pull-$n-$name]"
    done
  done
  printf 'the way out moved twice while %d images were pulled in %d s\n' 12 $((SECONDS - began))
  must "all pulls work" test "$pulled" == 12
  local came counted
  within 20 counted "$size" # what nodes tell each other of their figures may be some seconds old
  came=$(($(sent) - before)) counted=$(from_upstream)
  printf '  upstream bytes: %s times the images as nodes count them, %s times on the wire\n' \
    "$(awk -v a="$counted" -v b="$size" 'BEGIN { printf "%.2f", a / b }')" "$(awk -v a="$came" -v b="$size" 'BEGIN { printf "%.2f", a / b }')"
  must "each byte came once" within_percent 1 "$counted" "$size"
  must "and crossed the wire once" within_percent 4 "$came" "$size"
  must "no blob was begun twice" begun_once
  must "the node with egress: false got nothing from the registry itself" test "$(ask 4 'stats?scope=node' | jq '[.[].FromUpstreamBytes] | add')" == 0
}

# refusal N prints what a client of node N is told about an image nobody has.
refusal() { on "$1" curl -s -m 20 "http://127.0.0.1:8080/v2/up/org/last/manifests/v1" | jq -r '.errors[0].message'; }

# nowhere cuts all ways.
nowhere() {
  local n text began
  cut 3 swallowed
  for n in 1 4; do
    began=$(date +%s%N)
    text=$(refusal "$n")
    printf 'no way out, asked at node-%d: %d ms: %s\n' "$n" $((($(date +%s%N) - began) / 1000000)) "$text"
    must "it is told within 10 s" test $((($(date +%s%N) - began) / 1000000000)) -lt 10
    must "the registry is named" grep -q "$registry" <<<"$text"
    must "and the ways" grep -q 'by way of .*node-' <<<"$text"
  done
  mend 2
  must "a way that is back serves all" within 5 pull 4 last
}

prepare >"$work/log/prepare" 2>&1 || {
  grep -q 'Operation not permitted' "$work/log/prepare" && echo "skipped: no network namespace can be made here" && exit 0
  echo "the network, the registry or the nodes could not be made:"
  tail -n 20 "$work/log/prepare" "$work/log/registry" "$work"/log/node-*
  exit 1
}
moves
nowhere
if ((failed > 0)); then
  jq -r 'select(.path | contains("/blobs/"))' -c "$requests" | command cut -c 1-300
  grep -hE 'level=(INFO|WARN|ERROR)' "$work"/log/node-* | sort | tail -n 150 | command cut -c 1-400
fi
echo "$failed failed"
((failed == 0))
