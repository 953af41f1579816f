#!/usr/bin/env bash
# Makes registries fail while real clients pull through a node:
#
#	.ci/faults.sh OCI-PROXY
#
# Each row of the table below and each client gets a new image of one layer. The
# client pulls it once through a cold node while upstream fails as the row says. The
# pull must succeed at the first try, the image must be right, and upstream's log
# must show the fault. Rows marked with a + run also with podman and crane, which
# behave like skopeo, and with docker and containerd through a node of a cluster that
# does not own the layer.
#
# Needs the programs of install.sh and tools.sh, and the front, in the PATH. A client
# that can't be started here is skipped with a message. Everything is on 127.0.0.1
# and in one folder, which is removed at the end.
# CLIENTS and ROWS restrict a run; SILENCE is how many seconds a silent upstream
# waits; KEEP_LOGS names a folder for the logs.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
oci_proxy=$(realpath "$1")
silence=${SILENCE:-25}

work=$(mktemp -d)
mkdir -p "$work/log" "$work/rows" "$work/faults"
requests=$work/requests.jsonl # what upstream was asked for
mapfile -t ports < <(front ports 13)
registry_port=${ports[0]} htpasswd_port=${ports[1]} token_port=${ports[2]} front_port=${ports[3]} cdn_port=${ports[4]}
token_front_port=${ports[5]} redirect_front_port=${ports[6]}
node_port=${ports[7]} # of the single node; two others are a cluster
mesh_ports=("${ports[@]:8:2}") gossip_port=${ports[10]} peer_ports=("${ports[@]:11:2}")

# shellcheck source-path=SCRIPTDIR
{
  source "$here/e2e/surroundings.sh"
  source "$here/e2e/processes.sh"
  source "$here/e2e/checks.sh"
  source "$here/e2e/corpus.sh"
  source "$here/e2e/upstreams.sh"
  source "$here/e2e/clients.sh"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

mode=direct # clients ask only the node
downloads=12 # docker's at a time, so that its rows don't wait for each other
lanes=4      # how many rows of each client run at a time

# The rows: NAME, UPSTREAM and the faults. A fault is TIMES METHOD WHERE and what
# happens, in the form of the front's -faults; 0 TIMES means every time. WHERE is the
# layer, the config, the manifests, the token, or the layer at the cdn that the
# registry redirects to. HALF, END and LAST are bytes of the layer: one in the middle,
# one in the end that the node holds back until the digest is known, the last one.
# A layer called large is too large for the node to hold back as a whole. Slow rows
# go first.
table=(
  "silent+          plain    1 GET layer 'wait': $silence"
  "stall+           plain    1 GET layer 'end': 'stall', 'at': HALF"
  "large-wrong+     plain    1 GET layer 'flip': HALF"
  "large-wrong-cut  plain    1 GET layer 'flip': HALF, 'end': 'cut', 'at': LAST"
  "large-wrong-end+ plain    1 GET layer 'flip': END"
  "large-end-cut    plain    1 GET layer 'flip': END, 'end': 'cut', 'at': LAST"
  "wrong-byte+      plain    1 GET layer 'flip': HALF"
  "wrong-byte-cut   plain    1 GET layer 'flip': HALF, 'end': 'cut', 'at': LAST"
  "large-no-length  plain    1 GET layer 'flip': END, 'no_length': true"
  "head-silent      plain    1 HEAD manifests 'wait': $silence"
  "late             plain    0 GET layer 'wait': 8"
  "drip             plain    0 GET layer 'slow': 400000"
  "cut-once+        plain    1 GET layer 'end': 'cut', 'at': HALF"
  "cut-3-times+     plain    3 GET layer 'end': 'cut', 'at': HALF"
  "reset+           plain    1 GET layer 'end': 'reset', 'at': HALF"
  "reset-at-once    plain    2 GET layer 'end': 'reset'"
  "429-once         plain    1 GET layer 'status': 429, 'retry': 1"
  "429-twice+       plain    2 GET layer 'status': 429, 'retry': 1"
  "503-once         plain    1 GET layer 'status': 503"
  "503-twice+       plain    2 GET layer 'status': 503"
  "502-once         plain    1 GET layer 'status': 502"
  "500-once         plain    1 GET layer 'status': 500"
  "503-at-resume    plain    1 GET layer 'end': 'cut', 'at': HALF; 2 GET layer 'status': 503"
  "429-at-resume    plain    1 GET layer 'end': 'cut', 'at': HALF; 2 GET layer 'status': 429, 'retry': 1"
  "no-length+       plain    0 GET layer 'no_length': true"
  "no-length-cut    plain    1 GET layer 'no_length': true, 'end': 'cut', 'at': HALF"
  "no-range+        plain    1 GET layer 'end': 'cut', 'at': HALF; 1 GET layer 'without': 'Range'"
  "config-wrong     plain    1 GET config 'flip': 20"
  "no-head+         plain    0 HEAD manifests 'status': 405"
  "head-503         plain    1 HEAD manifests 'status': 503"
  "head-get-503     plain    1 HEAD manifests 'status': 503; 1 GET manifests 'status': 503"
  "head-429         plain    2 HEAD manifests 'status': 429, 'retry': 1"
  "manifest-503     plain    2 GET manifests 'status': 503"
  "manifest-429     plain    2 GET manifests 'status': 429, 'retry': 1"
  "manifest-wrong   plain    1 GET manifests 'flip': 50"
  "manifest-cut     plain    1 GET manifests 'end': 'cut', 'at': 100"
  "manifest-reset   plain    2 GET manifests 'end': 'reset'"
  "token-503        token    2 GET token 'status': 503"
  "token-429        token    1 GET token 'status': 429, 'retry': 1"
  "token-cut        token    1 GET token 'end': 'cut', 'at': 10"
  "token-ends       token    1 GET layer 'without': 'Authorization'"
  "token-ends-half  token    1 GET layer 'end': 'cut', 'at': HALF; 1 GET layer 'without': 'Authorization'"
  "token-ends-early token    1 GET manifests 'without': 'Authorization'"
  "cdn-503          redirect 1 GET cdn 'status': 503"
  "cdn-403          redirect 1 GET cdn 'status': 403"
  "cdn-404          redirect 1 GET cdn 'status': 404"
  "cdn-reset        redirect 2 GET cdn 'end': 'reset'"
  "cdn-cut          redirect 1 GET cdn 'end': 'cut', 'at': HALF; 1 GET cdn 'status': 403"
)

# hopeless CLIENT ROW says why that row can't succeed at the first try, if it can't.
# Wrong bytes of a large layer leave the node before the digest shows that they are
# wrong. The node can only keep back the end.
hopeless() {
  case $2:$1 in
    large-wrong:containerd | large-wrong-cut:containerd) echo "it resumes behind the wrong bytes that it has" ;;
    large-wrong:* | large-wrong-cut:*) [[ $1 != docker ]] && echo "it never resumes" ;;
    *) return 1 ;;
  esac
}

# to_push NAME UPSTREAM FAULTS prints the line that makes the front push the image.
to_push() {
  local port=$registry_port size=3000000
  [[ $2 != token ]] || port=$token_port
  [[ $1 != */large-* ]] || size=6000000
  echo "http://127.0.0.1:$port $1 $size"
}

# pushed holds, for each row's image, the digests of image, layer and config, and the
# layer's size.
declare -A pushed=()

# faults_of NAME UPSTREAM FAULTS writes a row's faults to $work/faults as the fronts
# read them. They are named NAME#1, NAME#2 and so on.
faults_of() {
  local digest layer config size times method where what n=0 path file
  read -r digest layer config size <<<"${pushed[$1]}"
  while read -r times method where what; do
    n=$((n + 1)) file=registry
    case $where in
      layer) path=/$1/blobs/$layer ;;
      config) path=/$1/blobs/$config ;;
      manifests) path=/$1/manifests/ ;;
      token) path=:$1:pull ;;
      cdn) path=/$1/blobs/$layer file=cdn ;;
    esac
    what=${what//HALF/$((size / 2))} what=${what//END/$((size - 9999))} what=${what//LAST/$((size - 1))}
    echo "{\"name\": \"$1#$n\", \"times\": $times, \"method\": \"$method\", \"path\": \"$path\", ${what//"'"/'"'}}" >>"$work/faults/$file"
    echo "$1#$n $times" >>"$work/rows/${1//\//-}.faults"
  done <<<"${3//;/$'\n'}"
}

# struck NAME reports whether upstream's log shows each fault of the row as often as
# it had to happen.
struck() {
  local fault times n
  while read -r fault times; do
    n=$(jq -c --arg fault "$fault" 'select(.fault == $fault)' "$requests" | wc -l)
    ((times > 0 ? n == times : n > 0)) || { echo "$fault happened $n times, not $times" && return 1; }
  done <"$work/rows/${1//\//-}.faults"
}

# node_config NAME PORT prints the config of a node.
node_config() {
  cat <<END
port: $2
address: 127.0.0.1
log_level: debug
defaults: {cache_dir: $work/$1, cache_max_size: 4g}
registries:
  "127.0.0.1:$front_port": {insecure: true, alias: [plain]}
  "127.0.0.1:$redirect_front_port": {insecure: true, alias: [redirect]}
  "127.0.0.1:$token_front_port":
    insecure: true
    alias: [token]
    auth: {username: $upstream_user, password: $upstream_password}
END
}

# start_node NAME PORT [CLUSTER] starts a node. CLUSTER is the value of the key
# cluster.
start_node() {
  node_config "$1" "$2" >"$work/$1.yml"
  [[ -z ${3:-} ]] || echo "cluster: {name: $1, secret: only-for-this-run, $3}" >>"$work/$1.yml"
  start "$1" "$oci_proxy" serve -c "$work/$1.yml"
}

# is_ready PORT
is_ready() { curl -sf -m 5 -o /dev/null "http://127.0.0.1:$1/_/ready"; }

# are_two reports whether both nodes of the cluster know each other.
are_two() {
  local port
  for port in "${mesh_ports[@]}"; do
    [[ $(curl -sf -m 5 "http://127.0.0.1:$port/_/cluster" | jq '[.members[] | select(.state == "active")] | length') == 2 ]] || return 1
  done
}

# start_nodes starts the single node and the cluster of two.
start_nodes() {
  local seed=127.0.0.1:$gossip_port
  start_node node "$node_port"
  start_node node-1 "${mesh_ports[0]}" "bind_addr: '$seed', peer_addr: '127.0.0.1:${peer_ports[0]}'"
  start_node node-2 "${mesh_ports[1]}" "bind_addr: '127.0.0.1:0', peer_addr: '127.0.0.1:${peer_ports[1]}', seeds: ['$seed']"
  within 20 is_ready "$node_port" && within 20 are_two
}

# port_of NAME prints the port of the node that the row is pulled through. In the
# cluster that is the node that does not own the layer.
port_of() {
  local layer
  [[ $1 == mesh-* ]] || { echo "$node_port" && return; }
  read -r _ layer _ <<<"${pushed[$1]}"
  case $(curl -sf -m 5 "http://127.0.0.1:${mesh_ports[0]}/_/owner/$layer" | jq -r .owner) in
    node-1) echo "${mesh_ports[1]}" ;;
    node-2) echo "${mesh_ports[0]}" ;;
    *) return 1 ;;
  esac
}

# pull_row CLIENT NAME UPSTREAM pulls the row's image.
pull_row() {
  local digest port
  read -r digest _ <<<"${pushed[$2]}"
  port=$(port_of "$2") || { echo "nobody owns the layer" && return 1; }
  local node_port=$port
  case $1 in skopeo | crane) local work=$work/rows/$1-$2 && mkdir -p "$work" ;; esac
  "pull_$1" "127.0.0.1:$port/$3/$2:v1" "$digest"
}

# run_row CLIENT NAME UPSTREAM runs a row and adds the outcome to $work/results.
run_row() {
  local client=$1 name=$2 row=${2#*/} log=$work/log/row-${2//\//-} began=$SECONDS outcome reason note=''
  if reason=$(hopeless "$client" "$row"); then
    if pull_row "$@" >"$log" 2>&1; then
      outcome=better
    elif within 30 pull_row "$@" && struck "$name" >>"$log" 2>&1; then
      outcome=expected note=$reason
    else
      outcome=FAILED note="not even the next pull succeeds"
    fi
  elif pull_row "$@" >"$log" 2>&1 && struck "$name" >>"$log" 2>&1; then
    outcome=ok
  else
    outcome=FAILED note=$(tail -n 1 "$log")
  fi
  printf '%s\t%s\t%s\t%d\t%s\n' "${name%/*}" "$row" "$outcome" $((SECONDS - began)) "$note" >>"$work/results"
}

# beside LIMIT COMMAND… runs a command in the background once fewer than LIMIT of
# those in $under_way run.
beside() {
  local limit=$1 i
  shift
  while ((${#under_way[@]} >= limit)); do
    wait -n "${under_way[@]}"
    for i in "${!under_way[@]}"; do
      kill -0 "${under_way[i]}" 2>/dev/null || unset "under_way[i]"
    done
  done
  "$@" &
  under_way+=($!)
}

# each_row PREFIX COMMAND… runs the command for each row of that prefix, with the
# row's name, upstream and faults.
each_row() {
  local prefix=$1 entry row upstream faults
  shift
  for entry in "${table[@]}"; do
    read -r row upstream faults <<<"$entry"
    if [[ $prefix != docker && $prefix != containerd && $prefix != skopeo && $row != *+ || -n ${ROWS:-} && " $ROWS " != *" ${row%+} "* ]]; then continue; fi
    "$@" "$prefix/${row%+}" "$upstream" "$faults" || return 1
  done
}

# run_client CLIENT runs all its rows in the table's order, some at a time.
run_client() {
  local under_way=() prefix
  for prefix in "$1" "mesh-$1"; do
    ! [[ " ${prefixes[*]} " == *" $prefix "* ]] || each_row "$prefix" beside "$lanes" run_row "$1"
  done
  wait "${under_way[@]}"
}

# start_fronts starts what the nodes know as their registries.
start_fronts() {
  start front front -listen "127.0.0.1:$front_port" -upstream "http://127.0.0.1:$registry_port" -log "$requests" -faults "$work/faults/registry"
  start token-front front -listen "127.0.0.1:$token_front_port" -upstream "http://127.0.0.1:$token_port" -log "$requests" -faults "$work/faults/registry"
  start redirect-front front -listen "127.0.0.1:$redirect_front_port" -upstream "http://127.0.0.1:$registry_port" -log "$requests" \
    -redirect "http://127.0.0.1:$cdn_port"
  start cdn front -listen "127.0.0.1:$cdn_port" -upstream "http://127.0.0.1:$registry_port" -log "$requests" -faults "$work/faults/cdn" -signed
  within 30 answers "$front_port" /v2/ && within 30 answers "$token_front_port" /v2/ && within 30 answers "$redirect_front_port" /v2/
}

# prepare starts the registries, fills them, and starts fronts and nodes.
prepare() {
  local prefix name digests
  start_registries && open_token_registry || return 1
  touch "$work"/faults/{registry,cdn} "$requests" "$work/results"
  for prefix in "${prefixes[@]}"; do
    each_row "$prefix" to_push
  done | front push >"$work/images" || return 1
  while read -r name digests; do
    pushed[$name]=$digests
  done <"$work/images"
  for prefix in "${prefixes[@]}"; do
    each_row "$prefix" faults_of || return 1
  done
  close_token_registry && start_fronts && start_nodes
}

# hosts_of_containerd tells containerd the cluster's nodes, too.
hosts_of_containerd() {
  local port
  for port in "${mesh_ports[@]}"; do
    mkdir -p "$work/containerd/hosts/127.0.0.1:$port"
    echo "server = 'http://127.0.0.1:$port'" >"$work/containerd/hosts/127.0.0.1:$port/hosts.toml"
  done
}

# report prints the table: a line for each row, a column for each client.
report() {
  awk -F '\t' -v columns="${prefixes[*]}" '
    { cell[$2, $1] = $3 " " $4 " s"; if (!($2 in seen)) { seen[$2] = 1; rows[++n] = $2 } }
    $3 == "expected" || $3 == "FAILED" { notes[++m] = sprintf("%-8s %s, %s: %s", $3, $1, $2, $5) }
    END {
      k = split(columns, column, " ")
      printf "%-17s", ""; for (i = 1; i <= k; i++) printf "%-16s", column[i]; print ""
      for (r = 1; r <= n; r++) {
        printf "%-17s", rows[r]
        for (i = 1; i <= k; i++) printf "%-16s", ((rows[r], column[i]) in cell) ? cell[rows[r], column[i]] : "-"
        print ""
      }
      for (i = 1; i <= m; i++) print notes[i]
    }' <(each_row docker in_order) # which has all the rows
}

# in_order NAME: the results of the row of that name, of all clients.
in_order() { awk -F '\t' -v row="${1#*/}" '$2 == row' "$work/results"; }

prefixes=() running=()
for client in ${CLIENTS:-docker containerd skopeo podman crane}; do
  if ! "start_$client" >"$work/log/start-$client" 2>&1; then
    echo "skipped: $client is not on this machine or does not start here" && tail -n 3 "$work/log/start-$client" "$work/log/$client" 2>/dev/null
    continue
  fi
  running+=("$client") prefixes+=("$client")
  case $client in docker | containerd) prefixes+=("mesh-$client") ;; esac
done
[[ ${#running[@]} -gt 0 ]] || skip "no client could be started"
hosts_of_containerd
if ! prepare >"$work/log/prepare" 2>&1; then
  echo "registries, fronts and nodes could not be started:"
  tail -n 10 "$work"/log/*
  exit 1
fi
echo "filled and started after $SECONDS s"
clients_pids=()
for client in "${running[@]}"; do
  run_client "$client" &
  clients_pids+=($!)
done
wait "${clients_pids[@]}"
report
[[ -z ${KEEP_LOGS:-} ]] || { mkdir -p "$KEEP_LOGS" && cp -r "$work/log" "$work/results" "$requests" "$work/faults" "$KEEP_LOGS/"; }
ok=$(grep -cP '\t(ok|better)\t' "$work/results") expected=$(grep -cP '\texpected\t' "$work/results") failed=$(grep -cP '\tFAILED\t' "$work/results")
echo "$ok ended well at the first try, $expected did not, as expected, $failed failed"
((failed == 0 && ok > 0))
