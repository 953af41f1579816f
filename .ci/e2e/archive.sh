#!/usr/bin/env bash
# Puts a real S3 server (versitygw) behind a cluster as its archive:
#
#	.ci/e2e/archive.sh OCI-PROXY
#
# An image is pulled through one of three nodes, and must come to lie in the bucket, each
# object exactly the bytes that its name says. Then the registry ends, all nodes end and lose
# their disks, and each must deliver the image by its digest, and one by its tag. With the
# registry back, the S3 server is stopped (it hangs), then killed, while images are pulled
# that nobody has pulled before: all pulls must work, and the times are printed beside those
# of a node without an archive. What was pulled meanwhile is put when the server is back.
#
# Needs curl, jq, the programs of install.sh and tools.sh, and the front, in the PATH.
# Everything is on 127.0.0.1 and in one folder, which is removed at the end.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
oci_proxy=$(realpath "$1")

work=$(mktemp -d)
mkdir -p "$work/log" "$work/s3/cold" "$work/meta"
requests=$work/requests
mapfile -t ports < <(front ports 13)
registry_port=${ports[0]} front_port=${ports[1]} s3_port=${ports[2]} plain_port=${ports[3]}
nodes=(1 2 3) failed=0 generation=0
access=only-for-this-run secret=s3cret-of-this-run

# shellcheck source-path=SCRIPTDIR
{
  source "$here/processes.sh"
  source "$here/corpus.sh"
  source "$here/upstreams.sh"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# s3 starts the S3 server.
s3() {
  start s3 versitygw --port "127.0.0.1:$s3_port" --access "$access" --secret "$secret" posix --sidecar "$work/meta" "$work/s3"
  within 30 s3_answers
}

# s3_answers reports whether the S3 server answers at all.
s3_answers() { curl -s -m 2 -o /dev/null "http://127.0.0.1:$s3_port/"; }

# port N prints the clients' port of node N; gossip N, and peers N, those of the cluster.
port() { echo "${ports[$((3 + $1))]}"; }
gossip() { echo "${ports[$((6 + $1))]}"; }
peers() { echo "${ports[$((9 + $1))]}"; }

# node N starts node N with the disk of this generation.
node() {
  local disk=$work/cache-$1-$generation
  cat >"$work/$1.yml" <<END
port: $(port "$1")
address: 127.0.0.1
log_level: debug
default_registry: "127.0.0.1:$front_port"
defaults: {cache_dir: $disk, cache_max_size: 2g}
registries: {"127.0.0.1:$front_port": {insecure: true}}
cluster: {name: node-$1, bind_addr: "127.0.0.1:$(gossip "$1")", peer_addr: "127.0.0.1:$(peers "$1")", advertise: 127.0.0.1, seeds: ["127.0.0.1:$(gossip 1)"]}
archive: {endpoint: "http://127.0.0.1:$s3_port", bucket: cold, prefix: tier, access_key: $access, secret_key: $secret}
END
  start "node-$1" "$oci_proxy" serve -c "$work/$1.yml"
}

# plain starts a node without an archive, to compare with.
plain() {
  cat >"$work/plain.yml" <<END
port: $plain_port
address: 127.0.0.1
default_registry: "127.0.0.1:$front_port"
defaults: {cache_dir: $work/cache-plain, cache_max_size: 2g}
registries: {"127.0.0.1:$front_port": {insecure: true}}
END
  start plain "$oci_proxy" serve -c "$work/plain.yml"
}

# ask N PATH gets /_/PATH from node N.
ask() { curl -sf -m 5 "http://127.0.0.1:$(port "$1")/_/$2"; }

# together reports whether all nodes know each other.
together() {
  local n
  for n in "${nodes[@]}"; do
    [[ $(ask "$n" cluster | jq '[.members[] | select(.state == "active")] | length') == "${#nodes[@]}" ]] || return 1
  done
}

# begin starts all nodes; finish ends them.
begin() {
  local n
  for n in "${nodes[@]}"; do node "$n"; done
  within 20 together
}
finish() {
  local n
  for n in "${nodes[@]}"; do stop "node-$n"; done
}

# upstream starts the front that the nodes use as their registry.
upstream() {
  start front front -listen "127.0.0.1:$front_port" -upstream "http://127.0.0.1:$registry_port" -log "$requests" -slow 30000000
  within 30 answers "$front_port" /v2/
}

# pull PORT IMAGE… pulls images.
pull() {
  local at=$1 name
  shift
  for name in "$@"; do
    timeout 60 crane pull --insecure --format=oci "127.0.0.1:$at/$name" "$work/pulled-$RANDOM$RANDOM" || return 1
  done
}

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

# objects lists the objects in the bucket.
objects() { find "$work/s3/cold/tier/blobs" -type f 2>/dev/null; }

# holds N reports whether the bucket has N objects.
holds() { [[ $(objects | wc -l) == "$1" ]]; }

# exact reports whether each object is what its name says.
exact() { objects | awk -F/ '{ print $NF "  " $0 }' | sha256sum --quiet -c -; }

# figure N WHAT prints what node N counts of the archive's objects.
figure() { ask "$1" metrics | awk -v what="what=\"$2\"" 'index($0, "oci_proxy_archive_objects_total{" what) == 1 { print $2 }'; }

# all WHAT adds that up.
all() { for n in "${nodes[@]}"; do figure "$n" "$1"; done | awk '{ n += $1 } END { print n + 0 }'; }

# put_so_far N reports whether the nodes have put N objects.
put_so_far() { [[ $(all put) == "$1" ]]; }

# timed NAME PORT IMAGE… pulls and notes how long that took, in ms.
declare -A took=()
timed() {
  local name=$1 began
  began=$(date +%s%N)
  shift
  must "$name: all pulls work" pull "$@"
  took[$name]=$((($(date +%s%N) - began) / 1000000))
}

# prepare starts the registry, fills it, and starts the rest.
prepare() {
  local n
  registry_config "$registry_port" >"$work/registry.yml"
  start registry docker-registry serve "$work/registry.yml"
  within 20 answers "$registry_port" /v2/ || return 1
  layers first 300K 8M 70M && image "127.0.0.1:$registry_port" org/first:v1 first || return 1
  for n in 1 2 3 4 5 6 7 8 9 10 11 12; do
    layers "i$n" 1M 2M 3M && image "127.0.0.1:$registry_port" "org/i$n:v1" "i$n" || return 1
  done
  rm -rf "$work/layers"
  upstream && s3 && plain && begin
}

# restart_without_disks loses the registry and all disks.
restart_without_disks() {
  local digest n
  digest=$(crane digest --insecure "127.0.0.1:$registry_port/org/first:v1")
  must "a pull through node 1" pull "$(port 1)" org/first:v1
  must "the image comes to lie in the bucket" within 20 holds 5
  must "each object is what its name says" exact
  must "each object, and what the tag means, was put once" within 5 put_so_far 6
  finish
  stop front
  generation=1
  must "the nodes begin anew, without disks and without the registry" begin
  for n in "${nodes[@]}"; do
    must "node $n delivers it by its digest" pull "$(port "$n")" "org/first@$digest"
  done
  must "node 2 delivers it by its tag" pull "$(port 2)" org/first:v1
  must "the bytes came from the bucket once" test "$(ask 1 stats | jq '[.[].FromArchiveBytes] | add')" -lt 90000000
  must "nothing was put again" put_so_far 0
  upstream
}

# trouble stops the S3 server, then kills it, with the registry up.
trouble() {
  local now
  timed "no archive" "$plain_port" org/i1:v1 org/i2:v1 org/i3:v1
  timed "the bucket is well" "$(port 1)" org/i4:v1 org/i5:v1 org/i6:v1
  within 10 holds 20 # three images more
  kill -STOP "${pids[s3]}"
  timed "the server hangs" "$(port 2)" org/i7:v1 org/i8:v1 org/i9:v1
  kill -CONT "${pids[s3]}"
  stop s3 KILL
  timed "the server is dead" "$(port 3)" org/i10:v1 org/i11:v1 org/i12:v1
  for now in "the bucket is well" "the server hangs" "the server is dead"; do
    printf '  %s: %d ms, %s times as long as without an archive (%d ms)\n' "$now" "${took[$now]}" \
      "$(awk -v a="${took[$now]}" -v b="${took["no archive"]}" 'BEGIN { printf "%.2f", a / b }')" "${took["no archive"]}"
  done
  must "health names the archive" within 5 ill
  s3
  must "what was pulled meanwhile is put when the server is back" within 40 holds 50
  must "and is what its name says" exact
}

# ill reports whether a node is degraded because of the archive.
ill() { for n in "${nodes[@]}"; do ask "$n" health; done | finds '"archive'; }

prepare >"$work/log/prepare" 2>&1 || {
  echo "the registry, the S3 server or the nodes could not be started:"
  tail -n 20 "$work/log"/{prepare,registry,s3,node-1}
  exit 1
}
restart_without_disks
trouble
must "no log has the secret" bash -c "! grep -rq '$secret' '$work'/log/node-*"
if ((failed > 0)); then
  objects | wc -l
  tail -n 15 "$work"/log/node-* | cut -c 1-400
fi
echo "$failed failed"
((failed == 0))
