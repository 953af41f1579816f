#!/usr/bin/env bash
# Verifies signatures, pulls charts and lists tags with real clients while the registry is
# stopped, after one run of each with it alive:
#
#	.ci/artifacts.sh OCI-PROXY
#
# One upstream offers referrers (olareg), one does not (docker-registry), so clients look
# for signatures by tags there. The clients ask a node by itself, which is started again
# in the outage, and a cluster of three: with the registry alive through the first node,
# then through the second, and after all were killed through the third.
#
# Needs the programs of install.sh and tools.sh, and the front, in the PATH. Everything is
# on loopback and in one folder, which is removed at the end. Docker is skipped with a
# message if it can't be started here.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
oci_proxy=$(realpath "$1")

work=$(mktemp -d)
mkdir -p "$work/log"
mapfile -t ports < <(front ports 5)
referrers_port=${ports[0]} tags_port=${ports[1]} # the registries'
node_port=${ports[2]} gossip_port=${ports[3]} peer_port=${ports[4]}
alone=127.0.0.1 members=(127.0.0.2 127.0.0.3 127.0.0.4)

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
export NO_PROXY=127.0.0.1,127.0.0.2,127.0.0.3,127.0.0.4,localhost COSIGN_PASSWORD=x HELM_CACHE_HOME=$work/helm
export no_proxy=$NO_PROXY XDG_CONFIG_HOME=$work/home/.config

# --- what the registries hold

# start_registries starts both.
start_registries() {
  start referrers olareg serve --addr 127.0.0.1 --port "$referrers_port" --dir "$work/olareg"
  registry_config "$tags_port" '' "$work/registry" >"$work/registry.yml"
  start tags docker-registry serve "$work/registry.yml"
  within 20 answers "$referrers_port" /v2/ && within 20 answers "$tags_port" /v2/
}

stop_registries() { stop referrers && stop tags; }

# make_keys makes the keys by which images are signed, and what they are verified with.
make_keys() {
  (cd "$work" && cosign generate-key-pair) && notation cert generate-test --default only-for-this-run || return 1
  cat >"$work/policy.json" <<'END'
{"version": "1.0", "trustPolicies": [{"name": "all", "registryScopes": ["*"], "signatureVerification": {"level": "strict"},
 "trustStores": ["ca:only-for-this-run"], "trustedIdentities": ["*"]}]}
END
  notation policy import "$work/policy.json"
}

# fill PORT pushes an image with two tags, its signatures of each kind, something attached
# to it, and a chart in two versions.
fill() {
  local to=127.0.0.1:$1 image tag
  image "$to" org/app:v1 app || return 1
  for tag in app:v2 plain:v1 plain:v2 bundled:v1 tagged:v1; do
    crane copy --insecure "$to/org/app:v1" "$to/org/$tag" || return 1
  done
  sign "$to/org/bundled" && sign "$to/org/tagged" --new-bundle-format=false || return 1
  image=$to/org/app@$(crane digest --insecure "$to/org/app:v1")
  notation sign --insecure-registry --force-referrers-tag=false "$image" || return 1
  echo '{}' >"$work/attached.json"
  (cd "$work" && oras attach --plain-http "$image" --artifact-type application/vnd.example.report attached.json:application/json) || return 1
  helm push --plain-http "$work/demo-0.1.0.tgz" "oci://$to/charts" && helm push --plain-http "$work/demo-0.2.0.tgz" "oci://$to/charts"
}

# sign REPOSITORY OPTION… signs the repository's image with cosign.
sign() { bounded cosign sign --yes --key "$work/cosign.key" --tlog-upload=false --use-signing-config=false --allow-http-registry "${@:2}" "$1@$(crane digest --insecure "$1:v1")"; }

# make_charts makes the chart's versions.
make_charts() {
  helm create "$work/demo" && helm package "$work/demo" --version 0.1.0 -d "$work" && helm package "$work/demo" --version 0.2.0 -d "$work"
}

# --- the nodes

# start_node ADDRESS [CLUSTER] starts a node there on the cache in its folder.
start_node() {
  mkdir -p "$work/$1"
  cat >"$work/$1/config.yaml" <<END
port: $node_port
address: $1
defaults: {cache_dir: $work/$1/cache, cache_max_size: 1g}
registries:
  "127.0.0.1:$referrers_port": {insecure: true, alias: [referrers]}
  "127.0.0.1:$tags_port": {insecure: true, alias: [tags]}
${2:-}
END
  start "$1" "$oci_proxy" serve -c "$work/$1/config.yaml"
  within 20 curl -sf -m 5 "http://$1:$node_port/_/ready"
}

# start_member ADDRESS starts a member of the cluster.
start_member() {
  start_node "$1" "cluster: {name: node-${1##*.}, bind_addr: '$1:$gossip_port', peer_addr: '$1:$peer_port', seeds: ['${members[0]}:$gossip_port'], secret: only-for-this-run}"
}

# whole reports whether the cluster has all its members.
whole() {
  local n
  n=$(curl -sf -m 5 "http://${members[0]}:$node_port/_/cluster" | jq '[.members[] | select(.state == "active")] | length')
  ((n == ${#members[@]}))
}

# prepare starts all but the clients.
prepare() {
  local address
  make_keys && make_charts && layers app 30K 60K && start_registries && fill "$referrers_port" && fill "$tags_port" || return 1
  start_node "$alone" || return 1
  for address in "${members[@]}"; do
    start_member "$address" || return 1
  done
  within 60 whole
}

# --- the clients: each takes a node's address with the alias of a registry

# The two ways in which cosign keeps signatures: as referrers and as tags named .sig.
cosign_bundle() { verify "$1/org/bundled:v1"; }
cosign_tag() { verify "$1/org/tagged:v1"; }
verify() { bounded cosign verify --key "$work/cosign.pub" --insecure-ignore-tlog --allow-http-registry "$1" | jq -e 'length > 0'; }

notation_verify() { bounded notation verify --insecure-registry "$1/org/app:v1"; }

oras_discover() {
  bounded oras discover --plain-http --format json "$1/org/app:v1" >"$work/discovered" &&
    grep -F application/vnd.example.report "$work/discovered" && grep -F application/vnd.cncf.notary.signature "$work/discovered"
}

oras_tags() { bounded oras repo tags --plain-http "$1/org/app" | grep -Fx v2; }

helm_pull() {
  mkdir -p "$work/pulled" && rm -f "$work/pulled"/demo-*.tgz
  bounded helm pull --plain-http "oci://$1/charts/demo" -d "$work/pulled" && cmp "$work/demo-0.2.0.tgz" "$work/pulled/demo-0.2.0.tgz"
}

skopeo_inspect() { bounded skopeo inspect --tls-verify=false "docker://$1/org/app:v1" | jq -e '.RepoTags | contains(["v1", "v2"])'; }

skopeo_list() { bounded skopeo list-tags --tls-verify=false "docker://$1/org/app" | jq -e '.Tags | contains(["v1", "v2"])'; }

skopeo_sync() {
  rm -rf "$work/synced"
  bounded skopeo sync --src docker --dest dir --src-tls-verify=false "$1/charts/demo" "$work/synced" && [[ -d $work/synced/demo:0.1.0 && -d $work/synced/demo:0.2.0 ]]
}

crane_ls() { [[ $(bounded crane ls --insecure "$1/org/app" | grep -cxE 'v1|v2') == 2 ]]; }

docker_all() { forget_docker && docker pull -q -a "$1/org/plain" && [[ $(docker image ls "$1/org/plain" | grep -cE ' v[12] ') == 2 ]]; }

clients=(cosign_bundle cosign_tag notation_verify oras_discover oras_tags helm_pull skopeo_inspect skopeo_list skopeo_sync crane_ls)

# all WHEN ADDRESS runs every client against both registries through a node.
all() {
  local client registry
  for registry in referrers tags; do
    for client in "${clients[@]}"; do
      check "$1: ${client/_/ } of $registry" "$client" "$2:$node_port/$registry"
    done
  done
}

# evidence prints the ends of the nodes' logs.
evidence() { grep -h 'status=[45]' "$work"/log/127.* | tail -n 8; }

if ! prepare >"$work/log/prepare" 2>&1; then
  echo "registries and nodes could not be started, or filled:"
  tail -n 20 "$work"/log/*
  exit 1
fi
if start_docker >"$work/log/start-docker" 2>&1; then
  clients+=(docker_all)
else
  echo "skipped: docker is not on this machine or does not start here" && tail -n 3 "$work/log/start-docker" "$work/log/docker"
fi
all 'alive, by itself' "$alone"
all "alive, through ${members[0]}" "${members[0]}"
stop_registries
all 'stopped, by itself' "$alone"
stop "$alone" && start_node "$alone"
all 'stopped, started again' "$alone"
all "stopped, through ${members[1]}" "${members[1]}"
for member in "${members[@]}"; do
  stop "$member" KILL
done
for member in "${members[@]}"; do
  start_member "$member"
done
all "stopped, all nodes killed, through ${members[2]}" "${members[2]}"
finish
