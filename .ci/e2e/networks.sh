#!/usr/bin/env bash
# Breaks the network between nodes and registries, and measures what clients wait:
#
#	.ci/e2e/networks.sh OCI-PROXY
#
# All runs in a network namespace with a DNS of its own. There, a resolver is silent or
# fails, packets are swallowed, and connections are refused: HEAD and GET of a manifest
# together must be answered within 10 s, a cached tag within 5 s and stale, and later
# requests at once. Then every name gets an address of 198.18.0.0/15, as from the fake-IP
# DNS of local proxies: pulls must work with allow_addresses, and from a registry that
# was seen at a public address before. In a cluster one node has no way out.
#
# Needs root, the programs of install.sh and tools.sh, and the front, in the PATH.
# REPORT_ONLY=1 only measures; OUTAGES and SKIP_REST=1 restrict a run, LATER says how
# many later requests are measured.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)

if [[ -z ${IN_NAMESPACE:-} ]]; then
  oci_proxy=$(realpath "$1")
  [[ $(id -u) == 0 ]] || { echo "skipped: only root may make a network namespace" && exit 0; }
  space=oci-proxy-$$
  ip netns add "$space" 2>/dev/null || { echo "skipped: no network namespace can be made here" && exit 0; }
  trap 'ip netns del "$space"; rm -rf "/etc/netns/$space"' EXIT
  mkdir -p "/etc/netns/$space" && echo 'nameserver 127.0.0.53' >"/etc/netns/$space/resolv.conf"
  IN_NAMESPACE=1 ip netns exec "$space" "$here/networks.sh" "$oci_proxy"
  exit
fi

oci_proxy=$1
work=$(mktemp -d)
mkdir -p "$work/log" "$work/home"
export HOME=$work/home SSL_CERT_FILE=$work/ca.pem
unset HTTP_PROXY HTTPS_PROXY http_proxy https_proxy
registry_port=5001 node_port=8080 later=${LATER:-10}
# shellcheck source-path=SCRIPTDIR
{
  source "$here/processes.sh"
  source "$here/corpus.sh"
  source "$here/upstreams.sh"
}
trap clean_up EXIT
trap 'exit 130' INT TERM
failed=0

# links gives this machine addresses of every kind. What goes to the network "hole" is
# swallowed.
links() {
  ip link set lo up && ip link add hole type veth peer name pit && ip link set hole arp off up && ip link set pit arp off up &&
    ip addr add 8.8.4.1/24 dev hole && ip addr add 9.9.9.1/24 dev lo && ip addr add 198.18.0.0/15 dev lo
}

# certificates makes a CA and a certificate for *.example.net.
certificates() {
  (
    cd "$work" || exit
    openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=networks -keyout ca.key -out ca.pem &&
      openssl req -newkey rsa:2048 -nodes -subj /CN=example.net -keyout tls.key -out tls.csr &&
      openssl x509 -req -in tls.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 -out tls.pem \
        -extfile <(echo 'subjectAltName=DNS:*.example.net')
  ) 2>"$work/log/certificates"
}

# serves NAME ADDRESS OPTION… starts a front of the registry with TLS.
serves() {
  start "$1" front -listen "$2:443" -upstream "http://127.0.0.1:$registry_port" -cert "$work/tls.pem" -key "$work/tls.key" "${@:3}"
}

# prepare starts the DNS, the registry with two images and its fronts: at a public
# address, at a fake one, and its storage at a fake one and a public one.
prepare() {
  links && certificates || return 1
  names '* 9.9.9.10'
  start names front names 127.0.0.53:53 "$work/names"
  registry_config "$registry_port" >"$work/registry.yml"
  start registry docker-registry serve "$work/registry.yml"
  within 20 answers "$registry_port" /v2/ || return 1
  layers app 200K 300K && image "127.0.0.1:$registry_port" org/app:one app || return 1
  layers other 200K 300K && image "127.0.0.1:$registry_port" org/app:two other || return 1
  serves public 9.9.9.10 -redirect https://cdn.example.net
  serves public-cdn 9.9.9.20 -signed
  serves fake 198.18.0.10 -redirect https://cdn.example.net
  serves fake-cdn 198.18.0.20 -signed
  sleep 1
}

# names LINE… makes the DNS say that.
names() { printf '%s\n' "$@" >"$work/names.new" && mv "$work/names.new" "$work/names"; }

# The DNS of a sound network, and of a local proxy.
sound() { names 'reg.example.net 9.9.9.10' 'cdn.example.net 9.9.9.20'; }
faked() { names 'reg.example.net 198.18.0.10' 'cdn.example.net 198.18.0.20' '* 198.18.7.7'; }

# start_node TEXT starts a node with an empty cache; TEXT is the rest of its config.
start_node() {
  stop node
  rm -rf "$work/cache"
  printf '%s\n' "port: $node_port" "address: 127.0.0.1" "defaults: {cache_dir: $work/cache}" "$@" >"$work/node.yml"
  start node "$oci_proxy" serve -c "$work/node.yml"
  within 20 curl -sf -m 5 "http://127.0.0.1:$node_port/_/ready"
}

configured=$'registries:\n  reg.example.net: {}'
# ask METHOD TAG [PORT] prints status, seconds and Cache-Status.
ask() {
  local head=()
  [[ $1 == GET ]] || head=(-I)
  curl -s -m 60 -o "$work/body" "${head[@]}" -w '%{http_code} %{time_total} %header{cache-status}\n' \
    "http://127.0.0.1:${3:-$node_port}/v2/reg.example.net/org/app/manifests/$2"
}

# pulls TAG [PORT] pulls through the node.
pulls() {
  rm -rf "$work/image"
  timeout 60 crane pull --insecure --format=oci "127.0.0.1:${2:-$node_port}/reg.example.net/org/app:$1" "$work/image" >"$work/log/pull" 2>&1
}

# must WHAT COMMAND… runs a check and says whether it holds.
must() {
  local what=$1
  shift
  if "$@"; then
    printf '  ok      %s\n' "$what"
  else
    printf '  FAILED  %s\n' "$what"
    [[ -n ${REPORT_ONLY:-} ]] || failed=$((failed + 1))
  fi
}

# less A B reports whether A < B.
less() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a < b) }'; }

# break_network NAME makes the registry unreachable.
break_network() {
  case $1 in
    silent-resolver) names '* silent' ;;
    failing-resolver) names '* fails' ;;
    no-such-host) names 'x.example.net 9.9.9.9' ;;
    blackhole) names '* 8.8.4.10 8.8.4.11 8.8.4.12' ;;
    refused) names '* 9.9.9.99' ;;
    no-route) names '* 203.0.114.1' ;;
  esac
}

# outage NAME measures a node that has seen nothing, and one that has a tag.
outage() {
  local head get code cached again one status sum n total=0 text
  sound
  start_node "$configured" && break_network "$1" || return 1
  read -r _ head _ < <(ask HEAD one)
  read -r code get _ < <(ask GET one)
  text=$(jq -r '.errors[0].message' "$work/body")
  sum=$(awk -v a="$head" -v b="$get" 'BEGIN { print a + b }')
  sound
  if ! start_node "$configured" || ! pulls one; then
    echo "  FAILED  the pull before the outage"
    return 1
  fi
  break_network "$1" && stop public # a connection that is kept would hide the outage
  read -r status cached again < <(ask GET one)
  for ((n = 0; n < later; n++)); do
    read -r _ one _ < <(ask GET one)
    total=$(awk -v a="$total" -v b="$one" 'BEGIN { print a + b }')
  done
  serves public 9.9.9.10 -redirect https://cdn.example.net
  printf '%s: first HEAD %.2f s, GET %.2f s, sum %.2f s (%s); cached tag %.2f s (%s), then %.3f s each\n' \
    "$1" "$head" "$get" "$sum" "$code" "$cached" "$status" "$(awk -v t="$total" -v n="$later" 'BEGIN { print t / n }')"
  echo "  the client reads: $text"
  must "HEAD and GET within 10 s" less "$sum" 10
  must "GET at once" less "$get" 0.5
  must "a cached tag within 5 s" less "$cached" 5
  must "and stale" grep -q 'fwd=stale' <<<"$again"
  must "later ones at once" less "$total" 1
  must "the text names the host" grep -q reg.example.net <<<"$text"
  sound
  must "what is back is pulled at once, or at the next try" within 3 pulls two
}

# kept_connection swallows the packets of a connection that a node keeps.
kept_connection() {
  local status cached how
  sound
  ip addr add 8.8.4.20/32 dev lo
  names 'reg.example.net 8.8.4.20' 'cdn.example.net 9.9.9.20'
  serves kept 8.8.4.20 -redirect https://cdn.example.net
  start_node "$configured" && within 5 pulls one || return 1
  ip addr del 8.8.4.20/32 dev lo # the connection stays, and its packets go to the hole
  read -r status cached how < <(ask GET one)
  printf 'kept connection swallowed: cached tag %.2f s (%s)\n' "$cached" "$status"
  must "a cached tag within 5 s" less "$cached" 5
  must "and stale" grep -q 'fwd=stale' <<<"$how"
  stop kept
}

# nothing_told reports whether clients elsewhere hear nothing of the network inside.
nothing_told() {
  ! curl -s -H 'X-Forwarded-For: 192.0.2.1' "http://127.0.0.1:$node_port/v2/reg.example.net/org/app/manifests/one" | grep -E '198|allow_addresses'
}

# served_stale reports whether the tag is served, marked as stale.
served_stale() { ask GET one | finds '^200.*fwd=stale'; }

# not COMMAND… reports whether a command fails.
not() { ! "$@"; }

# fake_ip pulls where all names have fake addresses.
fake_ip() {
  echo "fake-IP DNS (198.18.0.0/15)"
  faked
  start_node ''
  must "a stranger's registry is not contacted" not pulls one
  must "the log names host, address and remedy" grep -q 'reg.example.net.*198.18.0.10.*allow_addresses: \[198.18.0.0/15\]' "$work/log/node"
  must "a client elsewhere hears of none of it" nothing_told
  start_node 'allow_addresses: [198.18.0.0/15]'
  must "with allow_addresses it is pulled, redirects too" pulls one
  start_node "$configured"
  must "a configured registry there is pulled, redirects too" pulls one
  sound
  start_node "$configured"
  must "seen at a public address" pulls one
  faked && stop public && stop public-cdn
  must "and pulled at a fake one, without a restart" within 3 pulls two
  serves public 9.9.9.10 -redirect https://cdn.example.net
  serves public-cdn 9.9.9.20 -signed
  sound
  start_node $'registries:\n  reg.example.net: {allow_addresses: [198.18.0.0/15]}'
  names 'reg.example.net 9.9.9.10' 'cdn.example.net 198.18.0.20'
  must "a public registry's storage there, with allow_addresses" pulls one
  start_node "$configured"
  must "and not without" not pulls one
  sound
  start_node ''
  must "a stranger's registry is cached" pulls one
  faked && stop public
  must "and its tag is served stale then" served_stale
  serves public 9.9.9.10 -redirect https://cdn.example.net
  stop node
}

# mesh measures three nodes of which none, or only one, has a way out.
mesh() {
  local n head get sum status how
  for n in 1 2 3; do
    rm -rf "$work/mesh-$n"
    printf '%s\n' "port: $((8080 + n))" "address: 127.0.0.1" "defaults: {cache_dir: $work/mesh-$n}" 'registries:' "  reg.example.net: {$( ((n == 2)) || echo 'upstream_proxy: "http://8.8.4.77:3128"')}" \
      "cluster: {name: node-$n, secret: only-for-this-run, bind_addr: '127.0.0.1:$((7900 + n))', peer_addr: '127.0.0.1:$((7910 + n))', seeds: ['127.0.0.1:7901']}" >"$work/mesh-$n.yml"
    start "mesh-$n" "$oci_proxy" serve -c "$work/mesh-$n.yml"
  done
  for n in 1 2 3; do within 30 are_three $((8080 + n)) || return 1; done
  sound
  for n in 1 2 3; do
    read -r status head _ < <(ask HEAD one $((8080 + n)))
    read -r _ get _ < <(ask GET two $((8080 + n)))
    printf 'mesh, only node-2 has a way out, asked at node-%d: HEAD of one tag %.2f s (%s), GET of another %.2f s\n' "$n" "$head" "$status" "$get"
    must "node-$n answers" test "$status" == 200
    layers "mesh-$n" 200K 200K 200K 200K && image "127.0.0.1:$registry_port" "org/app:mesh-$n" "mesh-$n" >/dev/null 2>&1
    must "and an image of five blobs is pulled through it" pulls "mesh-$n" $((8080 + n))
  done
  names '* 8.8.4.10' && stop public
  for n in 1 2 3; do
    read -r _ head _ < <(ask HEAD three $((8080 + n)))
    read -r status get _ < <(ask GET three $((8080 + n)))
    sum=$(awk -v a="$head" -v b="$get" 'BEGIN { print a + b }')
    printf 'mesh without a way out, asked at node-%d: HEAD %.2f s, GET %.2f s, sum %.2f s (%s)\n' "$n" "$head" "$get" "$sum" "$status"
    must "HEAD and GET within 10 s" less "$sum" 10
    read -r status get how < <(ask GET two $((8080 + n)))
    printf '  cached tag at node-%d: %.2f s (%s) %s\n' "$n" "$get" "$status" "$how"
    must "a cached tag within 5 s" less "$get" 5
    must "and stale" grep -q 'fwd=stale' <<<"$how"
  done
  for n in 1 2 3; do stop "mesh-$n"; done
  serves public 9.9.9.10 -redirect https://cdn.example.net
}

# are_three PORT reports whether a node knows the other two.
are_three() { [[ $(curl -sf -m 5 "http://127.0.0.1:$1/_/cluster" | jq '[.members[] | select(.state == "active")] | length') == 3 ]]; }

prepare >"$work/log/prepare" 2>&1 || {
  echo "the network, the DNS or the registry could not be made:"
  tail -n 20 "$work/log/prepare" "$work/log/certificates" "$work/log/registry"
  exit 1
}
for name in ${OUTAGES:-silent-resolver failing-resolver no-such-host blackhole refused no-route}; do
  outage "$name" || failed=$((failed + 1))
done
[[ -n ${SKIP_REST:-} ]] || { kept_connection && fake_ip && mesh; } || failed=$((failed + 1))
stop node
if ((failed > 0)); then
  tail -n 15 "$work/log/node" | cut -c 1-400
fi
echo "$failed failed"
((failed == 0))
