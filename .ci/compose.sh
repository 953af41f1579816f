#!/usr/bin/env bash
# Runs docker-compose.yml, three nodes behind a balancer, on a docker engine of its
# own. docker and containerd pull through the published port while nodes are
# stopped and killed:
#
#	.ci/compose.sh
#
# The base images, golang:… and the balancer's, are made from this machine's Go and HAProxy,
# because no registry can be reached; everything else is as users get it. The nodes'
# registry is a front on the engine's bridge. Needs the programs of install.sh and
# tools.sh, and the front, in the PATH. If no docker engine can be started here, the
# run is skipped with the reason. Everything is in one folder and on two bridges,
# which are removed at the end.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.." || exit
modules=$(go env GOMODCACHE)
go mod download || exit # all of them, as the image's build does

work=$(mktemp -d)
mkdir -p "$work/log" "$work/home"
requests=$work/requests.jsonl # what upstream was asked for
mapfile -t ports < <(front ports 3)
registry_port=${ports[0]} front_port=${ports[1]} node_port=${ports[2]} # the balancer's
serving_port=8080

export HOME=$work/home XDG_RUNTIME_DIR=$work/home
export HTTP_PROXY=http://127.0.0.1:9 HTTPS_PROXY=http://127.0.0.1:9 NO_PROXY=127.0.0.1,localhost
export http_proxy=$HTTP_PROXY https_proxy=$HTTPS_PROXY no_proxy=$NO_PROXY
unset DOCKER_CONFIG REGISTRY_AUTH_FILE
export DOCKER_HOST=unix://$work/docker/socket

# shellcheck source-path=SCRIPTDIR
{
  source "$here/e2e/processes.sh"
  source "$here/e2e/checks.sh"
  source "$here/e2e/corpus.sh"
  source "$here/e2e/upstreams.sh"
  source "$here/e2e/clients.sh"
  source "$here/e2e/engine.sh"
  source "$here/e2e/mesh.sh"
}
trap 'stop_engine; clean_up' EXIT
trap 'exit 130' INT TERM
front_host=$bridge_address
golang=golang:$(sed -n 's/^ARG GO_VERSION=//p' deploy/Dockerfile)

# compose COMMAND… runs docker-compose with a time limit and a project name of this
# run. COMPOSE names another program, such as "docker compose".
compose() {
  local program
  read -ra program <<<"${COMPOSE:-docker-compose}"
  PUBLISH=127.0.0.1:$node_port CONFIG=$work/node.yaml timeout -k 5 900 "${program[@]}" -p mesh "$@"
}

# evidence prints the ends of the containers' logs.
evidence() {
  compose ps
  compose logs --no-color --tail 6
}

# container SERVICE prints the id of its container.
container() { compose ps -q "$1"; }

balancer() { nsenter -t "$(docker inspect -f '{{.State.Pid}}' "$(container balancer)")" -n "$@"; }

balancer_log() { docker logs "$(container balancer)" 2>&1; }

# kill_node ADDRESS kills the node's process. The engine sees it die and starts it
# again.
kill_node() {
  local one
  for one in $(docker ps -q); do
    [[ $(docker inspect -f '{{.NetworkSettings.Networks.mesh_mesh.IPAddress}}' "$one") == "$1" ]] || continue
    kill -KILL "$(docker inspect -f '{{.State.Pid}}' "$one")"
    return
  done
  echo "no container at $1" && return 1
}

revive() { :; }

# forget_docker removes the pulled images, not those that the engine runs.
forget_docker() {
  local pulled
  mapfile -t pulled < <(docker image ls --format '{{.Repository}}:{{.Tag}}' | grep -F "127.0.0.1:$node_port/")
  [[ ${#pulled[@]} -eq 0 ]] || docker image rm "${pulled[@]}" >/dev/null
}

# pull_containerd needs hosts.toml: this machine can't reach the nodes' registry by
# its name.
pull_containerd() {
  ctr images pull --hosts-dir "$work/containerd/hosts" "$1" >/dev/null && names_digest "$2" "$(ctr images ls "name==$1")"
}

# nodes_config is deploy/node.yaml with the front as a registry.
nodes_config() {
  sed '/^registries:/,$d' deploy/node.yaml
  cat <<END
registries:
  "$bridge_address:$front_port": {insecure: true, alias: [up]}
END
}

# bases makes the base images of ours. The balancer's has a name of its own.
export BALANCER_IMAGE=balancer.test/haproxy:own
bases() { import_golang "$golang" && import_haproxy "$BALANCER_IMAGE"; }

# builds builds the image, under the name that compose gives it, with both of docker's builders. The second one's Go image
# holds what the first compiled, so it need not compile again.
builds() {
  export DOCKER_BUILDKIT=0 COMPOSE_DOCKER_CLI_BUILD=0
  docker build -q -f deploy/Dockerfile -t oci-proxy . && docker build -q --target build -f deploy/Dockerfile -t "$golang" . || return 1
  DOCKER_BUILDKIT=1 docker build -q --network none -f deploy/Dockerfile -t buildkit . || return 1
  as_released oci-proxy && as_released buildkit || return 1
  seen="$(($(docker image inspect -f '{{.Size}}' oci-proxy) >> 20)) MiB"
}

# as_released IMAGE compares its settings with those of a release's image.
as_released() {
  local settings='to_entries | map(select(.key | IN("User", "Env", "Entrypoint", "Cmd", "Volumes", "ExposedPorts", "Healthcheck"))) | from_entries | .Env |= (map(select(startswith("PATH=") | not)) | sort)'
  diff <(docker image inspect -f '{{json .Config}}' "$1" | jq -S "$settings") <(jq -S "$settings" deploy/image.json)
}

# alone runs a single node of each build. It needs no further setting.
alone() {
  local image
  for image in oci-proxy buildkit; do
    docker run -d --name alone --read-only --cap-drop ALL "$image" &&
      within 30 docker exec alone /usr/bin/oci-proxy health -addr 127.0.0.1:8080 &&
      docker exec alone /usr/bin/oci-proxy health | finds -F '{"status":"healthy"}' &&
      docker stop alone && [[ $(docker inspect -f '{{.State.ExitCode}}' alone) == 0 ]] && docker rm -v alone || return 1
  done
}

# status_finds runs a node with another config, port and login than the image's. Commands in
# the container find them by themselves.
status_finds() {
  printf 'port: 8099\nauth: {username: u, password: only-for-this-run}\n' >"$work/other.yaml"
  docker run -d --name other --read-only --cap-drop ALL -v "$work/other.yaml:/srv/other.yaml:ro" oci-proxy serve -c /srv/other.yaml -port 8098 &&
    within 30 docker exec other oci-proxy health &&
    docker exec other oci-proxy status | finds 8098 || return 1
  docker rm -f -v other
}

# bound_elsewhere runs a node whose cache is a folder of root's. The health, the log and
# check say what to do on the host; done that, the node is well.
bound_elsewhere() {
  local folder=$work/bound top told
  mkdir "$folder" && top=$(stat -c %m "$folder")
  # Containers see the path on the disk, which is the host's if the disk is its root.
  told="chown -R 65532:65532 ${folder#"${top%/}"} on the host"
  docker run -d --name bound --read-only --cap-drop ALL -v "$folder:/var/lib/oci-proxy" oci-proxy &&
    within 30 docker exec bound oci-proxy health || return 1
  docker exec bound oci-proxy health | finds -F "$told" &&
    docker logs bound 2>&1 | finds -F "$told" || return 1
  { docker exec bound oci-proxy check -live 2>&1 || true; } | finds -F "$told" || return 1 # it fails, and says why
  chown -R 65532:65532 "$folder" && within 30 is_well bound && docker rm -f -v bound
}

# is_well CONTAINER reports whether its node is healthy.
is_well() { docker exec "$1" oci-proxy health | finds -F '{"status":"healthy"}'; }

# up starts three nodes. They must find each other, be healthy, and share a secret
# that only they can read.
up() {
  local secret
  compose up -d && within 60 active 3 && within 60 all_healthy || return 1
  secret=$(stat -c '%u %a %s' "$(docker volume inspect -f '{{.Mountpoint}}' mesh_secret)/secret")
  [[ $secret == '65532 600 64' ]] || { echo "owner, mode and size of the secret: $secret" && return 1; }
}

# all_healthy reports whether the image's own health check passes on all nodes.
all_healthy() {
  local one
  for one in node-1 node-2 node-3; do
    [[ $(docker inspect -f '{{.State.Health.Status}}' "$(container "$one")") == healthy ]] || return 1
  done
}

# without_one stops a node. Nothing may be downloaded again: what it alone held it has handed over.
without_one() {
  local lost asked
  lost=$(held_by_none_but node-2 several | sort)
  forget_docker && compose stop node-2 && within 20 active 2 || return 1
  : >"$requests"
  pull docker several || return 1
  asked=$(blobs_asked | awk '{ print $2 }')
  [[ -z $asked ]] || { printf 'only node-2 held\n%s\ndownloaded again\n%s\n' "$lost" "$asked" && return 1; }
  compose start node-2 && within 60 active 3 && seen="$(wc -w <<<"$lost") of $(blobs_of several | wc -l) blobs were on it alone"
}

# fourth adds a node as the compose file describes. It becomes a member and gets
# requests, while no other container is restarted.
fourth() {
  local before
  before=$(docker ps -q | sort)
  awk '/^  node-3:/ { copying = 1 }
    copying { block = block $0 "\n" }
    copying && /^$/ { copying = 0; gsub(/node-3/, "node-4", block); gsub(/cache-3/, "cache-4", block); printf "%s", block }
    { print }
    /^  cache-3:/ { print "  cache-4:" }' docker-compose.yml >"$work/four.yml"
  compose --project-directory . -f "$work/four.yml" up -d && within 60 active 4 || return 1
  within 10 served_by node-4 || { echo "the balancer sends nothing to node-4" && return 1; }
  [[ -z $(comm -23 <(echo "$before") <(docker ps -q | sort)) ]] || { echo "other containers were restarted" && return 1; }
}

# served_by NODE reports whether the balancer sends it requests by now.
served_by() { ask cluster | jq -e --arg name "$1" 'any(.members[]; .self and .name == $name)'; }

# again takes all down and up. Caches and members must be as before.
again() {
  local ring
  ring=$(ask cluster | jq -r .ring)
  forget_docker && compose --project-directory . -f "$work/four.yml" down && : >"$requests" || return 1
  compose --project-directory . -f "$work/four.yml" up -d && within 60 active 4 || return 1
  pull docker several && no_blob_asked && pull docker large-1 && no_blob_asked || return 1
  [[ $(ask cluster | jq -r .ring) == "$ring" ]] || { echo "the ring has changed" && return 1; }
}

# leaves removes a node for good as the compose file describes. The others must hold
# what it held, and its container must have ended.
leaves() {
  local node
  node=$(container node-1)
  forget_docker && docker update --restart no "$node" &&
    compose exec -T node-1 /usr/bin/oci-proxy leave || return 1
  within 20 ended_well "$node" && within 20 active 3 && : >"$requests" || return 1
  pull docker several && pull docker large-2 && no_blob_asked
}

# ended_well CONTAINER reports whether it has ended with status 0.
ended_well() { [[ $(docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' "$1") == 'exited 0' ]]; }

# down takes all down with its volumes. No container and no volume may be left.
down() {
  forget_docker
  compose --project-directory . -f "$work/four.yml" down -v && [[ -z $(docker ps -aq)$(docker volume ls -q) ]]
}

if ! start_engine >"$work/log/start" 2>&1; then
  skip "no docker engine can be started here"
fi
if ! { start_mesh_registry large-{1..4} && start_front && start_containerd; } >"$work/log/prepare" 2>&1; then
  echo "the registry or containerd could not be started:" && tail -n 20 "$work"/log/{prepare,registry,containerd}
  exit 1
fi
nodes_config >"$work/node.yaml"
if ! { check 'base images, made from this machine' bases &&
  check 'the image, by both builders' builds &&
  check 'a node alone, as docker run gives it' alone &&
  check 'docker exec status finds another config' status_finds &&
  check "a bind mount of root's says what to do" bound_elsewhere &&
  check "${COMPOSE:-docker-compose} up: three members" up; }; then
  finish
  exit 1
fi
check 'docker pulls, each blob comes once' cold_pull docker several
check 'containerd pulls, each blob comes once' cold_pull containerd other
check 'docker pulls while a node is stopped' without_one
start_front -slow "$upstream_speed"
check 'docker pulls, the node that serves dies' outlives docker large-1 server
check 'docker pulls, the node that fetches dies' outlives docker large-2 owner
check 'containerd pulls, the node that serves dies' outlives containerd large-3 server
check 'containerd pulls, the node that fetches dies' outlives containerd large-4 owner
check 'a fourth node' fourth
check 'down and up again: nothing is forgotten' again
check 'a node leaves' leaves
check 'down -v: nothing is left' down
finish
