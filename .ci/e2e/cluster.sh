#!/usr/bin/env bash
# What clusters live through. Nodes run as processes, each in a network namespace of
# its own, all on one switch:
#
#	.ci/e2e/cluster.sh OCI-PROXY
#
# Cache directories are copied, ports closed, large packets swallowed, secrets and ids
# mixed up, and members killed. Checked is what the nodes say of it, and how soon. All
# cases run at the same time, each as a cluster of its own, since some take minutes.
# Needs root, ip, iptables, curl and jq. It skips with the reason where namespaces are
# not allowed. It touches nothing but its own namespaces and one folder.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
oci_proxy=$(realpath "$1")

work=$(mktemp -d)
mkdir -p "$work/log"
switch=oci-cluster-$$ # the namespace of the switch; those of nodes begin with it

# shellcheck source-path=SCRIPTDIR
{
  source "$here/processes.sh"
  source "$here/spaces.sh"
  source "$here/checks.sh"
}

trap tidy EXIT
trap 'exit 130' INT TERM

# at N prints the address of host N.
at() { echo "10.98.1.$1"; }

# node N [KEY: VALUE]… starts a node on host N. The first key of cluster that is not
# given is a default of this run.
node() {
  local n=$1 line config=$work/$1.yml
  shift
  {
    printf 'port: 8080\nlog_level: info\ndefaults: {cache_dir: %s, cache_max_size: 1g}\ncluster:\n' "$work/cache-$n"
    printf '  name: node-%s\n' "$n"
    [[ "$*" == *advertise:* ]] || printf '  advertise: %s\n' "$(at "$n")"
    [[ "$*" == *secret:* ]] || printf '  secret: only-for-this-run\n'
    for line in "$@"; do
      printf '  %s\n' "$line"
    done
  } >"$config"
  start "node-$n" ip netns exec "$switch-$n" "$oci_proxy" serve -c "$config"
}

# seeds N… prints the key seeds with these hosts.
seeds() {
  local n all=''
  for n in "$@"; do
    all+="\"$(at "$n"):7946\", "
  done
  echo "seeds: [${all%, }]"
}

# ask N PATH gets /_/PATH from node N, on its own host: strangers are not told all.
ask() { on "$1" curl -sf -m 5 "http://127.0.0.1:8080/_/$2"; }

# says N TEXT… reports whether node N is degraded, with all these texts in its reasons.
says() {
  local text reasons
  reasons=$(ask "$1" health | jq -r '.reasons // [] | join("\n")')
  shift
  for text in "$@"; do
    [[ $reasons == *"$text"* ]] || return 1
  done
}

# healthy N… reports whether these nodes are healthy.
healthy() {
  local n
  for n in "$@"; do
    [[ $(ask "$n" health | jq -r .status) == healthy ]] || return 1
  done
}

# states N prints the members' states that node N sees, such as "active active down".
states() { ask "$1" cluster | jq -r '[.members[].state] | sort | join(" ")'; }

# sees STATES N… reports whether these nodes see members in these states.
sees() {
  local want=$1 n
  shift
  for n in "$@"; do
    [[ $(states "$n") == "$want" ]] || return 1
  done
}

# agree N… reports whether these nodes have the same ring.
agree() {
  local n
  [[ $(for n in "$@"; do ask "$n" cluster | jq -r .ring; done | sort -u | wc -l) == 1 ]]
}

# id N prints the id of node N.
id() { ask "$1" cluster | jq -r '.members[] | select(.self) | .id'; }

# apart N… reports whether these nodes have ids of their own, which they have saved.
apart() {
  local n
  [[ $(for n in "$@"; do id "$n"; done | sort -u | wc -l) == "$#" ]] || return 1
  for n in "$@"; do
    [[ $(id "$n") == "$(cat "$work/cache-$n/node-id")" ]] || return 1
  done
}

# soon SECONDS COMMAND… waits as within does, and sets $seen to how long it took.
soon() {
  local began=$EPOCHREALTIME
  within "$@" || { echo "not within $1 s: ${*:2}" && return 1; }
  took=$(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f s", b - a }')
  seen+=${seen:+, }$took
}

# evidence prints what the nodes of the case say and logged.
evidence() {
  local n
  for n in ${case_nodes:-}; do
    echo "--- node-$n: $(ask "$n" health) $(states "$n")"
    tail -n 6 "$work/log/node-$n"
  done
}

# M1: a copied cache directory.
twin() {
  local before
  cp -r "$work/cache-11" "$work/cache-13" && rm -f "$work/cache-13/lock" || return 1
  before=$(id 11)
  node 13 "$(seeds 11 12)" 'id: twin'
  soon 15 apart 11 12 13 && soon 15 sees 'active active active' 11 12 13 && soon 15 agree 11 12 13 || return 1
  [[ $(id 11) == "$before" ]] || { echo "the original has another id" && return 1; }
  grep -q 'this node takes a new id' "$work/log/node-13" || { echo "the copy does not say so" && return 1; }
  soon 20 healthy 11 12 13
}

# M1: four nodes start at once from one image.
golden() {
  local n
  stop node-14 && rm -f "$work/cache-14/lock" "$work/cache-14/members.json"
  for n in 15 16 17; do
    cp -r "$work/cache-14" "$work/cache-$n"
  done
  for n in 14 15 16 17; do
    node "$n" "$(seeds 14 15)" 'id: golden'
  done
  soon 40 apart 14 15 16 17 && soon 20 sees 'active active active active' 14 15 16 17 && soon 10 agree 14 15 16 17 && soon 20 healthy 14 15 16 17
}

# M2: restart (or kill -9), then leave, within the grace.
leaves() {
  local signal
  for signal in TERM KILL; do
    stop node-23 "$signal"
    node 23 "$(seeds 21 22)" 'id: leaves'
    within 30 sees 'active active active' 21 22 23 || { echo "not back after SIG$signal" && return 1; }
    on 23 "$oci_proxy" leave -addr 127.0.0.1:8080 >/dev/null || return 1
    soon 5 sees 'active active' 21 22 && soon 5 agree 21 22 || return 1
    sleep 20 # until the earlier start is found dead
    if ! sees 'active active' 21 22 || ! agree 21 22; then echo "it came back" && return 1; fi
    stop node-23
    node 23 "$(seeds 21 22)" 'id: leaves'
    soon 15 sees 'active active active' 21 22 23 || return 1
  done
}

# M3: the peers' port is closed, or swallows large packets, from the start.
closed() { soon 110 says 31 "no other member answers on the peers' port" && soon 30 says 32 "no other member answers on the peers' port"; }
narrow() { soon 110 says 33 "no other member answers on the peers' port" 'MTU' && soon 15 sees 'active active' 33 34; }

# opened opens both again.
opened() {
  local n
  for n in 31 32 33 34; do
    on "$n" iptables -F
  done
  soon 60 healthy 31 32 33 34
}

# M4: two pairs with two secrets, and a pair with seeds that are no names.
strangers() {
  soon 45 says 41 "the seed $(at 43):7946 was never met: it has a different secret" &&
    soon 45 says 43 "the seed $(at 41):7946 was never met: it has a different secret"
}
nameless() { soon 45 says 45 'the seed none.invalid:7946 was never met: ' && ! says 45 "the seed $(at 46):7946"; }

# M5: a wrong advertise.
wrong() {
  soon 90 says 53 "other members can't reach this node at 10.98.9.9:7946" 'set cluster.advertise' && soon 15 healthy 51 52 &&
    grep -q "level=WARN msg=\"this node's address does not answer" "$work/log/node-53"
}

# M6: two clusters with one secret know each other's addresses.
other() {
  soon 45 says 61 "the seed $(at 63):7946 was never met: it belongs to another cluster" && soon 15 sees 'active active' 61 62 63 64
}

# U7: 500 half streams from one address at each member.
crowded() {
  # shellcheck disable=SC2016
  start halves ip netns exec "$switch-74" bash -c '
    while :; do
      for to in "$@"; do
        for i in {1..250}; do exec {fd}<>"/dev/tcp/$to/7946" && printf "\xf4" >&"$fd"; done
      done 2>/dev/null
      sleep 1
      for ((i = 10; i <= fd; i++)); do eval "exec $i>&-"; done
    done' halves "$(at 71)" "$(at 72)"
  sleep 3
  node 73 "$(seeds 71 72)" 'id: crowded'
  soon 20 sees 'active active active' 71 72 73 # it would not be let in at all
  local outcome=$?
  stop halves
  return $outcome
}

# counts N METRIC reports whether node N's metrics have it.
counts() { [[ $(ask "$1" metrics) == *"$2"* ]]; }

# M7: a member that died is listed until it is forgotten.
gone() {
  soon 160 sees 'active active gone' 81 82 || return 1
  soon 5 counts 81 'oci_proxy_members{state="gone"} 1' || return 1
  stop node-82 && node 82 "$(seeds 81 82)" 'id: gone' # a restart does not lose it
  soon 20 sees 'active active gone' 81 82 || return 1
  on 82 "$oci_proxy" forget -addr 127.0.0.1:8080 node-83 || return 1
  soon 5 sees 'active active' 81 82 && soon 5 counts 81 'oci_proxy_members{state="gone"} 0'
}

# begin starts all clusters.
begin() {
  local n
  for n in 11 12 13 14 15 16 17 21 22 23 31 32 33 34 41 42 43 44 45 46 51 52 53 61 62 63 64 71 72 73 74 81 82 83; do
    host "$n" "$(at "$n")/16" || return 1
  done
  for n in 31 32; do
    on "$n" iptables -A INPUT -p tcp --dport 7947 -j DROP || return 1
  done
  for n in 33 34; do # in both directions; the packets of gossip are small
    on "$n" iptables -A INPUT -p tcp --dport 7947 -m length --length 1300: -j DROP &&
      on "$n" iptables -A INPUT -p tcp --sport 7947 -m length --length 1300: -j DROP || return 1
    on "$n" ip link set eth0 gro off 2>/dev/null
  done
  for n in 81 82 83; do node "$n" "$(seeds 81 82)" 'id: gone'; done
  for n in 31 32; do node "$n" "$(seeds 31 32)" 'id: closed'; done
  for n in 33 34; do node "$n" "$(seeds 33 34)" 'id: narrow'; done
  for n in 51 52; do node "$n" "$(seeds 51 52)" 'id: wrong'; done
  for n in 41 42; do node "$n" "$(seeds 41 42 43 44)"; done
  for n in 43 44; do node "$n" "$(seeds 41 42 43 44)" 'secret: another-secret-of-this-run'; done
  for n in 45 46; do node "$n" "seeds: [\"$(at 45):7946\", \"$(at 46):7946\", \"none.invalid:7946\"]" 'id: nameless'; done
  for n in 61 62; do node "$n" "$(seeds 61 62 63 64)" 'id: one'; done
  for n in 63 64; do node "$n" "$(seeds 61 62 63 64)" 'id: two'; done
  for n in 11 12; do node "$n" "$(seeds 11 12)" 'id: twin'; done
  node 14 "$(seeds 14)" 'id: golden'
  for n in 21 22 23; do node "$n" "$(seeds 21 22)" 'id: leaves'; done
  for n in 71 72; do node "$n" "$(seeds 71 72)" 'id: crowded'; done
  within 60 sees 'active active active' 81 82 83 && stop node-83 KILL && node 53 "$(seeds 51 52)" 'id: wrong' 'advertise: 10.98.9.9' &&
    within 60 sees 'active active active' 21 22 23 && within 60 sees 'active active' 11 12 71 72 && within 30 id 14
}

if [[ $EUID != 0 ]]; then skip "network namespaces need root"; fi
for tool in ip iptables curl jq; do
  command -v "$tool" >/dev/null || skip "there is no $tool"
done
make_switch 10.98.0.1/16 >"$work/log/prepare" 2>&1 || skip "network namespaces are not allowed here"
if ! begin >"$work/log/begin" 2>&1; then
  echo "the clusters could not be started"
  tail -n 3 "$work"/log/*
  exit 1
fi
case_nodes='71 72 73' check 'a member joins beside 500 half streams' crowded
case_nodes='11 12 13' check 'a copied cache directory' twin
case_nodes='14 15 16 17' check 'four nodes from one image' golden
case_nodes='41 43' check 'two pairs with two secrets' strangers
case_nodes='45 46' check 'a seed that is no name' nameless
case_nodes='61 63' check 'two clusters with one secret' other
case_nodes='53 51' check 'a wrong advertise' wrong
case_nodes='31 32' check "the peers' port is closed" closed
case_nodes='33 34' check "the peers' port swallows large packets" narrow
case_nodes='31 33' check "the peers' port is open again" opened
case_nodes='21 22 23' check 'restart, then leave' leaves
case_nodes='81 82' check 'a member that died' gone
finish
