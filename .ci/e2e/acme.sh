#!/usr/bin/env bash
# Gets certificates from a real ACME server (pebble), as tls.acme does:
#
#	.ci/e2e/acme.sh OCI-PROXY
#
# A node on its own gets one that is valid for half a minute, and renews it while a slow pull is
# under way and short ones come all the time. Meanwhile three nodes of a cluster start, each
# at an address of its own, two of them at once. The server validates at the third, which may not
# ask: so the challenge is always answered by a node that did not ask for it. Only one order for each
# name may reach the server. A fourth joins, the node that asks for a further name is killed while it waits,
# and at the end the server is gone and a node starts with nothing but its disk.
#
# Needs curl, jq, openssl, the programs of tools.sh and the front, in the PATH. Everything is on
# loopback addresses and in one folder, which is removed at the end.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
oci_proxy=$(realpath "$1")

work=$(mktemp -d)
mkdir -p "$work/log"
mapfile -t ports < <(front ports 10)
tls=${ports[0]} dns=${ports[1]} manage=${ports[2]} gossip=${ports[3]} peers=${ports[4]} registry=${ports[5]}
brief=${ports[6]} lasting=${ports[7]} brief_manage=${ports[8]} lasting_manage=${ports[9]}

# shellcheck source-path=SCRIPTDIR
{
  source "$here/processes.sh"
  source "$here/checks.sh"
}
trap tidy EXIT
trap 'exit 130' INT TERM

# tidy ends all. A process that was stopped hears nothing but KILL.
tidy() {
  stop mute KILL
  clean_up
}

# evidence prints what the nodes and the server last said.
evidence() { grep -hE "certificate|level=(WARN|ERROR)" "$work"/log/node-* | tail -n 25; tail -n 5 "$work/log/lasting"; }

# acme_server NAME PORT PORT SECONDS starts an ACME server whose certificates are valid that long.
acme_server() {
  cat >"$work/$1.json" <<END
{"pebble": {"listenAddress": "127.0.0.1:$2", "managementListenAddress": "127.0.0.1:$3",
  "certificate": "$work/server.pem", "privateKey": "$work/server.key", "tlsPort": $tls, "httpPort": 1,
  "retryAfter": {"authz": 1, "order": 1}, "keyAlgorithm": "ecdsa",
  "profiles": {"default": {"description": "of this run", "validityPeriod": $4}}}}
END
  start "$1" env PEBBLE_VA_NOSLEEP=1 pebble -config "$work/$1.json" -dnsserver "127.0.0.1:$dns"
  within 30 curl -sf -m 2 --cacert "$work/server.pem" "https://127.0.0.1:$2/dir" || return
  curl -sf -m 5 --cacert "$work/server.pem" -o "$work/$1.pem" "https://127.0.0.1:$3/roots/0"
}

# names NAME ADDRESS gives a name an address, for the ACME servers.
names() {
  curl -sf -m 5 -o /dev/null -d "{\"host\":\"$1\"}" "http://127.0.0.1:$manage/clear-a"
  curl -sf -m 5 -o /dev/null -d "{\"host\":\"$1\",\"addresses\":[\"$2\"]}" "http://127.0.0.1:$manage/add-a"
}

# prepare starts the name server, the ACME servers and a registry with one large blob.
prepare() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=server \
    -addext 'subjectAltName=IP:127.0.0.1' -keyout "$work/server.key" -out "$work/server.pem" 2>/dev/null || return
  start dns pebble-challtestsrv -defaultIPv4 127.0.0.1 -defaultIPv6 '' -dnsserver "127.0.0.1:$dns" -doh '' \
    -http01 '' -https01 '' -tlsalpn01 '' -management "127.0.0.1:$manage"
  # It accepts connections and says nothing: it is stopped.
  start mute pebble-challtestsrv -defaultIPv6 '' -dnsserver '' -doh '' -http01 '' -https01 '' -tlsalpn01 "127.0.0.20:$tls" -management ''
  within 10 names lone.example.com 127.0.0.10 || return
  within 5 openssl s_client -connect "127.0.0.20:$tls" -alpn acme-tls/1
  kill -STOP "${pids[mute]}"
  acme_server brief "$brief" "$brief_manage" 30 && acme_server lasting "$lasting" "$lasting_manage" 7776000 && fill_registry
}

# fill_registry starts a registry that has a large blob and a small one.
fill_registry() {
  printf 'version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: "127.0.0.1:%s"}\n' "$work/registry" "$registry" >"$work/registry.yml"
  start registry registry serve "$work/registry.yml"
  within 30 curl -sf -m 2 "http://127.0.0.1:$registry/v2/" || return
  head -c 12000000 /dev/urandom >"$work/large"
  head -c 1000 /dev/urandom >"$work/small"
  push "$work/large" && push "$work/small"
}

# sum FILE prints a file's digest.
sum() { echo "sha256:$(sha256sum <"$1" | cut -c 1-64)"; }

# push FILE puts a blob into the registry.
push() {
  local place
  place=$(curl -sf -m 5 -X POST -D - -o /dev/null "http://127.0.0.1:$registry/v2/app/blobs/uploads/" | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
  curl -sf -m 20 -o /dev/null -X PUT -H 'Content-Type: application/octet-stream' --data-binary "@$1" "$place&digest=$(sum "$1")"
}

# config N DOMAINS PORT prints the config of node N, which asks the ACME server at PORT.
config() {
  cat <<END
port: $tls
address: 127.0.0.1$1
log_level: debug
default_registry: "127.0.0.1:$registry"
defaults: {cache_dir: $work/cache-$1, cache_max_size: 1g}
registries: {"127.0.0.1:$registry": {insecure: true}}
tls: {acme: {domains: [$2], directory: "https://127.0.0.1:$3/dir", ca_file: $work/server.pem, email: ops@example.com}}
END
}

# member N DOMAINS writes the config of node N of the cluster. Only the third may not ask.
member() {
  local asks=true
  [[ $1 == 3 ]] && asks=false
  {
    config "$1" "$2" "$lasting"
    printf 'cluster:\n  name: node-%s\n  bind_addr: 127.0.0.1%s:%s\n  peer_addr: 127.0.0.1%s:%s\n' "$1" "$1" "$gossip" "$1" "$peers"
    printf '  seeds: ["127.0.0.11:%s", "127.0.0.12:%s", "127.0.0.13:%s"]\n  secret: only-for-this-run-0123\n  egress: %s\n' "$gossip" "$gossip" "$gossip" "$asks"
  } >"$work/$1.yml"
}

# node N starts node N.
node() { start "node-$1" "$oci_proxy" serve -c "$work/$1.yml"; }

# shown N [NAME] prints the certificate that node N shows to who asks for that name, or for none.
shown() {
  local asked=(-noservername)
  [[ -n ${2:-} ]] && asked=(-servername "$2")
  timeout 5 openssl s_client -connect "127.0.0.1$1:$tls" "${asked[@]}" </dev/null 2>/dev/null | openssl x509 -noout -serial -ext subjectAltName 2>/dev/null
}

# shows N NAME reports whether node N shows a certificate of its ACME server for that name.
shows() { [[ $(shown "$1" "$2") == *"DNS:$2"* ]]; }

# all_show NAME N… reports whether all these nodes show the same certificate for that name.
all_show() {
  local name=$1 n
  shift
  for n in "$@"; do
    shows "$n" "$name" && [[ $(shown "$n" "$name") == "$(shown "$1" "$name")" ]] || return 1
  done
}

# orders prints how many orders the cluster's ACME server has got.
orders() { grep -c 'Added order' "$work/log/lasting"; }

# ordered N reports whether there were just so many orders.
ordered() { [[ $(orders) == "$1" ]] || { echo "$(orders) orders" && return 1; }; }

# lone_get FILE [OPTION]… pulls a blob through the lone node, as a client that trusts its authority.
lone_get() {
  local file=$1
  shift
  curl -sSf --cacert "$work/brief.pem" --connect-to "lone.example.com:$tls:127.0.0.10:$tls" "$@" \
    "https://lone.example.com:$tls/v2/app/blobs/$(sum "$file")"
}

# lone begins the slow pull through the lone node, and the short ones.
lone() {
  config 0 lone.example.com "$brief" >"$work/0.yml"
  node 0
  within 20 lone_get "$work/small" -m 5 -o /dev/null || return
  shown 0 lone.example.com >"$work/first"
  start slow lone_get "$work/large" -m 60 --limit-rate 450k -o "$work/pulled"
  start short short_pulls
}

# short_pulls pulls the small blob over and over, each time over a connection of its own, until
# the slow pull is over. It counts those that failed.
short_pulls() {
  while running slow; do
    if lone_get "$work/small" -m 5 -o /dev/null; then echo ok; else echo failed; fi >>"$work/short"
    sleep 0.2
  done
}

# renewed reports whether the lone node renewed its certificate and no pull felt it.
renewed() {
  within 50 over slow || return
  within 10 over short || return
  [[ $(shown 0 lone.example.com) != $(cat "$work/first") ]] || { echo "the certificate is still the first" && return 1; }
  cmp "$work/large" "$work/pulled" || return
  ! grep -q failed "$work/short" || { echo "$(grep -c failed "$work/short") short pulls failed" && return 1; }
  (($(wc -l <"$work/short") > 20)) && seen="$(wc -l <"$work/short") short pulls, $(grep -c 'Added order' "$work/log/brief") orders"
}

# over NAME reports whether a process has ended.
over() { ! running "$1"; }

# first_three starts the node that is validated at, then two at once that may ask, and waits until
# all have both certificates.
first_three() {
  local n
  names c.example.com 127.0.0.13 && names d.example.com 127.0.0.13 || return
  for n in 3 1 2; do
    member "$n" 'c.example.com, d.example.com'
    node "$n"
    [[ $n != 3 ]] || within 20 shown 3 || return
  done
  within 40 all_show c.example.com 1 2 3 && within 20 all_show d.example.com 1 2 3
}

# others_answer reports whether the node that was validated at asked for nothing itself.
others_answer() { ! grep -q 'asking for a certificate' "$work/log/node-3" && grep -q 'asking for a certificate' "$work"/log/node-[12]; }

# any_name reports whether who asks for no name, or for one that is not listed, gets the first.
any_name() {
  local first
  first=$(shown 1 c.example.com)
  [[ $(shown 1) == "$first" && $(shown 2 stranger.example.org) == "$first" ]] && ordered 2
}

# fourth lets a node join.
fourth() {
  member 4 'c.example.com, d.example.com'
  node 4
  within 25 all_show c.example.com 1 4 && within 10 all_show d.example.com 1 4 && ordered 2
}

# private reports whether keys are nowhere but in files that their owner alone may read.
private() {
  local file key n
  [[ -z $(find "$work"/cache-*/acme -type f ! -perm 600) && -z $(find "$work"/cache-*/acme -type d ! -perm 700) ]] || return
  [[ $(grep -l '\.key"' "$work"/cache-*/acme/*.json | wc -l) -ge 10 ]] || { echo "keys are missing" && return 1; }
  ! grep -l 'PRIVATE KEY' "$work"/log/* || return
  while read -r file; do
    key=$(jq -r .value "$file" | base64 -d | sed -n 2p)
    [[ ${#key} -gt 30 ]] || return
    ! grep -lF "$key" "$work"/log/* || return
  done < <(grep -l '\.key"' "$work"/cache-*/acme/*.json)
  for n in 1 3; do # neither the clients' port nor, for strangers, the peers' has them
    for file in "$tls/peer/v1/certificates" "$peers/peer/v1/certificates" "$tls/acme/../acme/"; do
      curl -sk -m 5 --path-as-is -d '{"do":"changes"}' -H 'Content-Type: application/json' "https://127.0.0.1$n:$file"
    done
  done >"$work/answers"
  ! grep -qE '"records"|PRIVATE' "$work/answers"
}

# asker NAME prints the node that asks for a certificate for that name by now.
asker() { grep -l "asking for a certificate.*domain=$1" "$work"/log/node-[1-4] | grep -om 1 '[1-4]$'; }

# killed adds a name at whose address nobody answers, kills the node that asks for it, and lets
# another succeed.
killed() {
  local n who=''
  names k.example.com 127.0.0.20
  for n in 1 2 3 4; do
    member "$n" 'c.example.com, d.example.com, k.example.com'
    kill -HUP "${pids[node-$n]}"
  done
  within 20 asker_known || { echo "nobody asks" && return 1; }
  who=$(asker k.example.com)
  within 10 grep -q 'k.example.com' "$work/log/lasting"
  stop "node-$who" KILL
  names k.example.com 127.0.0.13
  mapfile -t rest < <(printf '%s\n' 1 2 3 4 | grep -v "$who")
  within 45 all_show k.example.com "${rest[@]}" || return
  seen="node $who was killed, $(orders) orders in all"
  node "$who"
  within 25 all_show k.example.com "${rest[@]}" "$who" && within 5 all_show c.example.com "${rest[@]}" "$who"
}

asker_known() { [[ -n $(asker k.example.com) ]]; }

# from_disk ends all, the ACME server too, and starts one node that never asked.
from_disk() {
  local n before
  before=$(shown 3 k.example.com)
  stop lasting
  for n in 1 2 4 3; do
    stop "node-$n"
  done
  node 3
  within 15 shows 3 k.example.com && [[ $(shown 3 k.example.com) == "$before" ]] && shows 3 d.example.com
}

check "the servers run" prepare || finish || exit
check "a node on its own gets a certificate that clients trust" lone
check "three nodes start, two may ask, and all show the same certificates" first_three
check "one order for each name" ordered 2
check "the challenge was answered by a node that did not ask" others_answer
check "other names, and none, get the first certificate, and no order" any_name
check "a fourth node has them, without an order" fourth
check "keys are with the nodes' owner alone" private
check "the node that asks is killed, and another succeeds" killed
check "a certificate is renewed during pulls, and none fails" renewed
check "a node has them from its disk, the server gone" from_disk
finish
