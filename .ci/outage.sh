#!/usr/bin/env bash
# Pulls by tag what was pulled once, from every node of three, with every client, after
# the registries and the DNS went away and all nodes were killed and started again:
#
#	.ci/outage.sh OCI-PROXY
#
# Images, signatures and charts are pulled through the first node. One registry (olareg)
# offers referrers and is reached by an address, which refuses connections in the outage;
# the other (docker-registry) asks for a login and is reached by a name, for which the DNS
# is silent then. What is served in the outage must be marked as stale. Then one node's disk
# is lost. At the end the registries come back with a tag that has moved: the next pull
# has the new image.
#
# All runs in a network namespace of its own, so it needs root. Needs the programs of
# install.sh and tools.sh, and the front, in the PATH. A client that can't be started here
# is skipped with a message.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)

if [[ -z ${IN_NAMESPACE:-} ]]; then
  oci_proxy=$(realpath "$1")
  unshare --net --mount true 2>/dev/null || { echo "skipped: no network namespace can be made here" && exit 0; }
  resolv=$(mktemp)
  trap 'rm -f "$resolv"' EXIT
  echo 'nameserver 127.0.0.53' >"$resolv"
  # shellcheck disable=SC2016 # the inner shell has its own arguments
  IN_NAMESPACE=1 unshare --net --mount bash -c 'ip link set lo up && mount --bind "$1" /etc/resolv.conf && exec "$2" "$3"' - "$resolv" "$0" "$oci_proxy"
  exit
fi

oci_proxy=$1
work=$(mktemp -d)
mkdir -p "$work/log"
referrers_port=5001 tags_port=5002 node_port=8080 gossip_port=7946 peer_port=7947
tags_host=registry.example.net front_port=$tags_port
members=(127.0.0.2 127.0.0.3 127.0.0.4)

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
unset HTTP_PROXY HTTPS_PROXY http_proxy https_proxy # nothing leaves the namespace
export COSIGN_PASSWORD=x HELM_CACHE_HOME=$work/helm XDG_CONFIG_HOME=$work/home/.config
mode=direct # containerd asks the node by its own address

# --- what the registries hold

# names LINE… makes the DNS say that.
names() { printf '%s\n' "$@" >"$work/names.new" && mv "$work/names.new" "$work/names"; }

# start_registries [LOGIN] starts both, the second with a login if that is given.
start_registries() {
  start referrers olareg serve --addr 127.0.0.1 --port "$referrers_port" --dir "$work/olareg"
  registry_config "$tags_port" "${1:-}" "$work/registry" >"$work/registry.yml"
  start tags docker-registry serve "$work/registry.yml"
  names "$tags_host 127.0.0.1"
  within 20 answers "$referrers_port" /v2/ && within 20 answers "$tags_port" /v2/
}

# stop_registries makes both vanish, and the DNS fall silent.
stop_registries() { stop referrers && stop tags && names '* silent'; }

# make_keys makes the keys by which images are signed, and what they are verified with.
make_keys() {
  (cd "$work" && cosign generate-key-pair) && notation cert generate-test --default only-for-this-run || return 1
  cat >"$work/policy.json" <<'END'
{"version": "1.0", "trustPolicies": [{"name": "all", "registryScopes": ["*"], "signatureVerification": {"level": "strict"},
 "trustStores": ["ca:only-for-this-run"], "trustedIdentities": ["*"]}]}
END
  notation policy import "$work/policy.json"
}

# make_charts makes a chart.
make_charts() { helm create "$work/demo" && helm package "$work/demo" --version 0.1.0 -d "$work"; }

# fill PORT pushes an image of two platforms, its signatures of each kind, and a chart.
fill() {
  local to=127.0.0.1:$1
  image "$to" org/one:amd64 app && crane mutate --insecure --set-platform linux/arm64 -t "$to/org/one:arm64" "$to/org/one:amd64" || return 1
  crane index append --insecure -m "$to/org/one:amd64" -m "$to/org/one:arm64" -t "$to/org/one:both" || return 1
  recopy "$to/org/one:both" "$to/org/app:v1" --all || return 1 # skopeo checks an index by writing it again
  sign "$to/org/app" && sign "$to/org/app" --new-bundle-format=false || return 1
  notation sign --insecure-registry --force-referrers-tag=false "$to/org/app@$(crane digest --insecure "$to/org/app:v1")" || return 1
  helm push --plain-http "$work/demo-0.1.0.tgz" "oci://$to/charts"
}

# sign REPOSITORY OPTION… signs the repository's image with cosign.
sign() { bounded cosign sign --yes --key "$work/cosign.key" --tlog-upload=false --use-signing-config=false --allow-http-registry "${@:2}" "$1@$(crane digest --insecure "$1:v1")"; }

# move makes the tag mean another image, at both registries.
move() {
  start_registries && image "127.0.0.1:$referrers_port" org/app:v1 other && image "127.0.0.1:$tags_port" org/app:v1 other || return 1
  learn_digests && stop_registries
}

# learn_digests notes what the tag means at each registry.
declare -A digest=()
learn_digests() {
  digest[referrers]=$(crane digest --insecure "127.0.0.1:$referrers_port/org/app:v1") &&
    digest[tags]=$(crane digest --insecure "127.0.0.1:$tags_port/org/app:v1")
}

# --- the nodes

# start_member ADDRESS starts a member of the cluster on the cache in its folder.
start_member() {
  mkdir -p "$work/$1"
  cat >"$work/$1/config.yaml" <<END
port: $node_port
address: $1
defaults: {cache_dir: $work/$1/cache, cache_max_size: 1g}
registries:
  "127.0.0.1:$referrers_port": {insecure: true, alias: [referrers]}
  "$tags_host:$tags_port": {insecure: true, alias: [tags], auth: {username: $upstream_user, password: $upstream_password}}
cluster:
  name: node-${1##*.}
  bind_addr: $1:$gossip_port
  peer_addr: $1:$peer_port
  seeds: ["${members[0]}:$gossip_port", "${members[1]}:$gossip_port"]
  secret: only-for-this-run
END
  start "$1" "$oci_proxy" serve -c "$work/$1/config.yaml"
}

# start_members starts all, and waits until each knows the others.
start_members() {
  local member
  for member in "${members[@]}"; do
    start_member "$member"
  done
  within 20 whole
}

# whole reports whether all members are active in the eyes of each.
whole() {
  local member
  for member in "${members[@]}"; do
    [[ $(curl -sf -m 5 "http://$member:$node_port/_/cluster" | jq '[.members[] | select(.state == "active")] | length') == "${#members[@]}" ]] || return 1
    curl -sf -m 5 -o /dev/null "http://$member:$node_port/_/ready" || return 1
  done
}

# kill_members kills all at once.
kill_members() {
  local member
  for member in "${members[@]}"; do
    kill -KILL "${pids[$member]}"
  done
  for member in "${members[@]}"; do
    stop "$member" KILL
  done
}

# prepare starts all but the clients.
prepare() {
  names '* 127.0.0.1'
  start names front names 127.0.0.53:53 "$work/names"
  make_keys && make_charts && layers app 30K 60K && layers other 20K 40K || return 1
  start_registries && fill "$referrers_port" && fill "$tags_port" && learn_digests || return 1
  stop_registries
  htpasswd -bBnC 4 "$upstream_user" "$upstream_password" >"$work/htpasswd" 2>/dev/null
  start_registries "$work/htpasswd" && start_members
}

# --- the clients: each takes a node's address with the alias of a registry

# start_clients starts those that can be had here.
start_clients() {
  local client member hosts=$work/containerd/hosts
  for client in "${clients[@]}"; do
    if "start_$client" >"$work/log/start-$client" 2>&1; then
      started+=("$client")
    else
      echo "skipped: $client is not on this machine or does not start here" && tail -n 3 "$work/log/start-$client" "$work/log/$client"
    fi
  done
  for member in "${members[@]}"; do
    mkdir -p "$hosts/$member:$node_port"
    echo "server = 'http://$member:$node_port'" >"$hosts/$member:$node_port/hosts.toml"
  done
}

# image_of CLIENT ADDRESS/ALIAS pulls the image by tag. It must be the one that upstream
# has, or had.
image_of() { "pull_$1" "$2/org/app:v1" "${digest[${2##*/}]}" && "forget_$1"; }

cosign_verify() { bounded cosign verify --key "$work/cosign.pub" --insecure-ignore-tlog --allow-http-registry "$1/org/app:v1" | jq -e 'length > 0'; }

notation_verify() { bounded notation verify --insecure-registry "$1/org/app:v1"; }

helm_pull() {
  rm -rf "$work/pulled" && mkdir -p "$work/pulled"
  bounded helm pull --plain-http "oci://$1/charts/demo" --version 0.1.0 -d "$work/pulled" && cmp "$work/demo-0.1.0.tgz" "$work/pulled/demo-0.1.0.tgz"
}

skopeo_list() { bounded skopeo list-tags --tls-verify=false "docker://$1/org/app" | jq -e '.Tags | contains(["v1"])'; }

others=(cosign_verify notation_verify helm_pull skopeo_list)

# all WHEN ADDRESS runs every client against both registries through a node.
all() {
  local client registry
  login=''
  for registry in referrers tags; do
    for client in "${started[@]}"; do
      check "$1: $client pulls from $registry" image_of "$client" "$2:$node_port/$registry"
    done
    for client in "${others[@]}"; do
      check "$1: ${client/_/ } of $registry" "$client" "$2:$node_port/$registry"
    done
  done
}

# asked ADDRESS REGISTRY METHOD prints status and Cache-Status of the tag at a node.
asked() {
  local head=()
  [[ $3 == GET ]] || head=(-I)
  curl -s -m 20 -o /dev/null "${head[@]}" -w '%{http_code} %header{cache-status} %header{warning}\n' \
    -H 'Accept: application/vnd.oci.image.index.v1+json' "http://$1:$node_port/v2/$2/org/app/manifests/v1"
}

# stale ADDRESS checks that the tags are served, and marked as stale.
stale() {
  local registry method line
  for registry in referrers tags; do
    for method in HEAD GET; do
      line=$(asked "$1" "$registry" "$method")
      [[ $line == 200*'fwd=stale'*'stale-if-error'*299* ]] || { echo "$method of $registry: $line" && return 1; }
    done
  done
}

# exported writes the image into a file, through a node.
exported() { bounded "$oci_proxy" export -c "$work/${members[0]}/config.yaml" -o "$work/app.tar" -platform all referrers/org/app:v1; }

# loads CLIENT makes a client take the image from the file.
loads() {
  local name=127.0.0.1:$referrers_port/org/app:v1
  case $1 in
    docker) docker load -i "$work/app.tar" && docker image inspect "$name" >/dev/null && forget_docker ;;
    containerd) ctr images import --all-platforms "$work/app.tar" && names_digest "${digest[referrers]}" "$(ctr images ls "name==$name")" && forget_containerd ;;
    podman) podman load -q -i "$work/app.tar" && forget_podman ;;
    skopeo) rm -rf "$work/skopeo" && skopeo copy -q --all --preserve-digests "oci-archive:$work/app.tar:$name" "dir:$work/skopeo" && blobs_are_right "$work/skopeo" ;;
    crane) tar -C "$work" -xf "$work/app.tar" --one-top-level=layout && crane validate --fast --tarball "$work/app.tar" ;;
  esac
}

# evidence prints the ends of the nodes' logs.
evidence() { grep -h 'status=[45]' "$work"/log/127.* | tail -n 8; }

# moved ADDRESS REGISTRY checks that the next pull has the new image, fresh.
moved() {
  rm -rf "$work/crane"
  bounded crane pull --insecure --format=oci "$1:$node_port/$2/org/app:v1" "$work/crane" || return 1
  names_digest "${digest[$2]}" "$(jq -r '.manifests[].digest' "$work/crane/index.json")" || return 1
  [[ $(asked "$1" "$2" GET) != *stale-if-error* ]] || { echo "still marked as stale" && return 1; }
}

if ! prepare >"$work/log/prepare" 2>&1; then
  echo "registries and nodes could not be started, or filled:"
  tail -n 20 "$work"/log/*
  exit 1
fi
started=()
start_clients
all "alive, through ${members[0]}" "${members[0]}"
check 'an image is exported' exported
for client in "${started[@]}"; do
  check "$client loads the file" loads "$client"
done
stop_registries
kill_members 2>/dev/null # the shell tells of each
check 'all nodes start without registries and DNS' start_members
for member in "${members[@]}"; do
  all "stopped, all nodes killed, through $member" "$member"
  check "stopped, all nodes killed, through $member: marked as stale" stale "$member"
done
kill_members 2>/dev/null
rm -rf "$work/${members[1]}/cache"
check 'one node starts with an empty disk' start_members
started=(crane) # the others have shown what they can
all "one disk lost, through ${members[1]}" "${members[1]}"
check 'the tags move' move
for member in "${members[@]}"; do
  check "moved, but stopped again, through $member: marked as stale" stale "$member"
done
start_registries "$work/htpasswd" >/dev/null
for member in "${members[@]}"; do
  check "back, through $member: the next pull of referrers has the new image" moved "$member" referrers
  # A lookup that hangs since before holds the next ones back until it ends.
  check "back, through $member: the first pull of tags after a lookup's time has the new image" within 12 moved "$member" tags
done
finish
