# shellcheck shell=bash
# What three nodes behind a balancer at 127.0.0.1:$node_port must survive, however
# they were started. Upstream is a docker-registry behind a front at $front_host.
# Each node has an address of its own; the client port is $serving_port at all of
# them. Scripts define these functions:
#
#	balancer COMMAND…  runs it where the balancer's connections are visible
#	balancer_log       prints the balancer's log
#	kill_node ADDRESS  ends a node by SIGKILL
#	revive             starts it again, if nothing else does

upstream_speed=8000000 # bytes a second, where a pull has to last
declare -A digest=()

# start_mesh_registry NAME… starts the registry and fills it: images of one large
# layer, during whose pull nodes are killed, and two images of several layers.
start_mesh_registry() {
  local name
  registry_config "$registry_port" >"$work/registry.yml"
  start registry docker-registry serve "$work/registry.yml"
  within 20 answers "$registry_port" /v2/ || return 1
  layers several 5M 9M 200K 17M
  layers other 3M 700K 4M
  for name in several other; do
    image "127.0.0.1:$registry_port" "org/$name:v1" "$name" || return 1
    digest[$name]=$(digest_of "org/$name:v1") || return 1
  done
  for name in "$@"; do
    layers "$name" 40M
    image "127.0.0.1:$registry_port" "org/$name:v1" "$name" || return 1
    digest[$name]=$(digest_of "org/$name:v1") || return 1
  done
  rm -rf "$work/layers"
}

# start_front OPTION… starts the front that the nodes use as their registry.
start_front() {
  stop front
  start front front -listen "$front_host:$front_port" -upstream "http://127.0.0.1:$registry_port" -log "$requests" "$@"
  within 30 curl -sf -m 5 --noproxy '*' -o /dev/null "http://$front_host:$front_port/v2/"
}

# ask PATH gets /_/PATH from the node that the balancer chooses.
ask() { curl -sf -m 5 "http://127.0.0.1:$node_port/_/$1"; }

# active N reports whether there are just N members and all answer. It asks N times,
# so that every node answers in turn. A node's view of the others may be a second
# old.
active() {
  local n
  for ((n = 0; n < $1; n++)); do
    [[ $(ask cluster | jq '[.members[] | select(.state == "active")] | length') == "$1" ]] || return 1
  done
  curl -sf -m 5 -o /dev/null -D - "http://127.0.0.1:$node_port/_/stats" | finds -i "^x-cluster-nodes: $1/"
}

# blobs_of NAME prints the digests of an image's layers and config.
blobs_of() {
  crane manifest --insecure "127.0.0.1:$registry_port/org/$1:v1" | jq -r '.config.digest, .layers[].digest'
}

# from_upstream prints how many bytes of blobs all nodes got from upstream.
from_upstream() { ask stats | jq "[.[].FromUpstreamBytes] | add"; }

# settled_upstream prints the same once it has not changed for two seconds. A node's
# view of the others may be a second old.
settled_upstream() {
  local last='' now same=0
  while ((same < 8)); do
    now=$(from_upstream)
    if [[ $now == "$last" ]]; then same=$((same + 1)); else same=0; fi
    last=$now
    sleep 0.25
  done
  echo "$last"
}

# pull CLIENT NAME pulls by tag through the balancer.
pull() { "pull_$1" "127.0.0.1:$node_port/up/org/$2:v1" "${digest[$2]}"; }

# cold_pull CLIENT NAME pulls an image. Each blob must come from upstream once,
# whichever nodes the client reached, and the nodes must have counted just that.
cold_pull() {
  local before size
  : >"$requests"
  size=$(crane manifest --insecure "127.0.0.1:$registry_port/org/$2:v1" | jq '[.config.size, .layers[].size] | add')
  before=$(settled_upstream) && pull "$@" && each_blob_once || return 1
  within 5 came "$before" "$size" || { echo "the blobs are $size bytes, $(($(from_upstream) - before)) came" && return 1; }
  seen="$(blobs_asked | wc -l) blobs, $(blobs_asked | awk '{ n += $1 } END { print n }') GETs, $size bytes"
}

# came BEFORE SIZE reports whether SIZE bytes have come from upstream since.
came() { (($(from_upstream) - $1 == $2)); }

# held_by_none_but NODE NAME prints the image's blobs that only this node has.
held_by_none_but() {
  local one
  for one in $(blobs_of "$2"); do
    [[ $(ask "owner/$one" | jq -r '.holders | sort | join(" ")') != "$1" ]] || echo "$one"
  done
}

# received prints "LOCAL PEER BYTES" for each connection of the balancer to a node.
received() {
  balancer ss -HtinO state established "dport = :$serving_port" |
    sed -nE 's/^ *[0-9]+ +[0-9]+ +([^ ]+) +([^ ]+) .*bytes_received:([0-9]+).*/\1 \2 \3/p'
}

# serving prints the address of the node that has just sent the most, if that was
# much.
serving() {
  local before
  before=$(received)
  sleep 0.4
  { echo "$before" && echo && received; } | awk '
    /^$/ { second = 1; next }
    !second { had[$1 $2] = $3; next }
    $3 - had[$1 $2] > most { most = $3 - had[$1 $2]; peer = $2 }
    END { sub(/:[0-9]+$/, "", peer); if (most < 1000000) exit 1; print peer }'
}

# seen_serving sets $at to what serving prints.
seen_serving() { at=$(serving); }

# name_at ADDRESS prints the name of the node there.
name_at() { ask cluster | jq -r --arg at "$1:" '.members[] | select(.peer | startswith($at)) | .name'; }

# ended NAME waits for the process of that name and returns its status.
ended() {
  local pid=${pids[$1]}
  wait "$pid"
  local status=$?
  unset "pids[$1]"
  return "$status"
}

# address_of NAME prints the node's address.
address_of() { ask cluster | jq -r --arg name "$1" '.members[] | select(.name == $name) | .peer | sub(":[0-9]+$"; "")'; }

# outlives CLIENT NAME server|owner kills a node while the client pulls an image of
# one large layer: the node that serves it, or the one that gets it from upstream.
# The client must finish, and the cluster must be whole again.
outlives() {
  local client=$1 name=$2 layer at server owner killed logged asked ranges
  layer=$(blobs_of "$name" | tail -n 1)
  : >"$requests"
  within 5 active 3 && logged=$(balancer_log | wc -l) && owner=$(ask "owner/$layer" | jq -r .owner) || return 1
  start pull pull "$client" "$name"
  within 20 seen_serving && server=$(name_at "$at") || { echo "nobody serves $name" && return 1; }
  killed=$server
  [[ $3 == server ]] || { killed=$owner && at=$(address_of "$owner") || return 1; }
  running pull || { echo "the pull was over too soon" && return 1; }
  kill_node "$at" || return 1
  ended pull || { tail -n 5 "$work/log/pull" && echo "$client did not finish: $server served, $owner owned, $killed was killed" && return 1; }
  revive && within 60 active 3 || { echo "the cluster did not become whole again" && return 1; }
  asked=$(jq -r --arg layer "$layer" 'select(.method == "GET" and (.path | endswith($layer))) | .range // "the whole"' "$requests" | paste -sd ,)
  ranges=$(balancer_log | tail -n "+$((logged + 1))" | grep -F "$layer" | grep -o 'bytes=[0-9-]*' | paste -sd ,)
  seen="$server served, $owner owned, $killed died; $client asked again for ${ranges:-nothing}; upstream was asked for $asked"
  "forget_$client"
}
