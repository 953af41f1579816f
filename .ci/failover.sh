#!/usr/bin/env bash
# Kills nodes behind a balancer in the middle of pulls. Three nodes run as processes
# at addresses of their own, behind HAProxy with the config of deploy/. docker and
# containerd pull images of one large layer:
#
#	.ci/failover.sh OCI-PROXY
#
# The dead node stays away until the client has its image. Needs the programs of
# install.sh and tools.sh, and the front, in the PATH. A client that can't be started
# here is skipped with a message. Everything is on loopback and in one folder, which
# is removed at the end.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
oci_proxy=$(realpath "$1")

work=$(mktemp -d)
mkdir -p "$work/log"
requests=$work/requests.jsonl # what upstream was asked for
mapfile -t ports < <(front ports 6)
registry_port=${ports[0]} front_port=${ports[1]} node_port=${ports[2]} # the balancer's
serving_port=${ports[3]} gossip_port=${ports[4]} peer_port=${ports[5]}
front_host=127.0.0.1
addresses=(127.0.0.2 127.0.0.3 127.0.0.4)

# shellcheck source-path=SCRIPTDIR
{
  source "$here/e2e/surroundings.sh"
  source "$here/e2e/processes.sh"
  source "$here/e2e/checks.sh"
  source "$here/e2e/corpus.sh"
  source "$here/e2e/upstreams.sh"
  source "$here/e2e/clients.sh"
  source "$here/e2e/mesh.sh"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# start_node ADDRESS starts the node there on the cache in its folder.
start_node() {
  mkdir -p "$work/$1"
  cat >"$work/$1/config.yaml" <<END
port: $serving_port
address: $1
trusted_proxies: [127.0.0.1/32]
defaults: {cache_dir: $work/$1/cache, cache_max_size: 1g}
registries:
  "$front_host:$front_port": {insecure: true, alias: [up]}
cluster:
  name: node-${1##*.}
  bind_addr: $1:$gossip_port
  peer_addr: $1:$peer_port
  seeds: ["${addresses[0]}:$gossip_port", "${addresses[1]}:$gossip_port"]
  secret: only-for-this-run
END
  start "$1" "$oci_proxy" serve -c "$work/$1/config.yaml"
}

# start_balancer starts HAProxy with the config that we ship, changed only in its
# addresses.
start_balancer() {
  local address config=$work/haproxy.cfg
  sed -e "s/bind :8080/bind 127.0.0.1:$node_port/" -e '/server-template/d' "$here/../deploy/haproxy.cfg" >"$config"
  for address in "${addresses[@]}"; do
    echo "    server node-${address##*.} $address:$serving_port" >>"$config"
  done
  start balancer haproxy -db -f "$config"
}

balancer() { "$@"; }

balancer_log() { cat "$work/log/balancer"; }

kill_node() { dead=$1 && stop "$1" KILL; }

revive() { start_node "$dead"; }

# evidence prints the ends of the logs.
evidence() { tail -n 6 "$work"/log/{pull,balancer,127.*}; }

# prepare starts all but the clients.
prepare() {
  local address
  start_mesh_registry large-{1..6} && start_front -slow "$upstream_speed" || return 1
  for address in "${addresses[@]}"; do
    start_node "$address"
  done
  start_balancer && within 60 active 3
}

# survives is outlives, and also checks that containerd, which knows upstream too,
# got everything from the nodes.
survives() { outlives "$@" && only_the_node_asked; }

if ! prepare >"$work/log/prepare" 2>&1; then
  echo "registry, nodes and balancer could not be started:"
  tail -n 10 "$work"/log/*
  exit 1
fi
n=0
for client in docker containerd; do
  if ! "start_$client" >"$work/log/start-$client" 2>&1; then
    echo "skipped: $client is not on this machine or does not start here" && tail -n 3 "$work/log/start-$client" "$work/log/$client"
    continue
  fi
  started=yes
  for victim in server owner server; do
    n=$((n + 1))
    check "$client pulls, its $victim is killed" survives "$client" "large-$n" "$victim"
  done
done
[[ -n ${started:-} ]] || skip "no client could be started"
finish
