# shellcheck shell=bash
# The clients under test. Each has pull_NAME REFERENCE DIGEST, which fails unless
# the pulled content has that digest, and forget_NAME, which deletes what was
# pulled. docker and containerd have a start_NAME.
# $mode is the kind of upstream; $login is the user:password to use, or empty.
# $downloads is how many layers docker downloads at a time; empty: 3.

clients=(docker containerd podman skopeo crane)
mode='' login=''

# bounded COMMAND… runs a pull with a time limit.
bounded() { timeout -k 5 120 "$@"; }

# names_digest DIGEST LIST reports whether a client's list has the digest.
names_digest() {
  grep -qF "$1" <<<"$2" || { echo "expected $1, seen: $2" && return 1; }
}

# blobs_are_right FOLDER checks every file that is named by its sha256.
blobs_are_right() {
  local sums
  sums=$(find "$1" -type f -regextype posix-extended -regex '.*/[0-9a-f]{64}(\.manifest\.json)?' |
    sed -E 's#^(.*/)([0-9a-f]{64})(\.manifest\.json)?$#\2  &#')
  [[ -n $sums ]] || { echo "no blobs in $1" && return 1; }
  sha256sum --check --quiet <<<"$sums"
}

# --- docker: a separate engine, without bridge and firewall rules

docker() { bounded /usr/bin/docker --config "$work/docker-login" -H "unix://$work/docker/socket" "$@"; }

start_docker() {
  [[ -x /usr/bin/docker ]] && command -v dockerd >/dev/null || return 1
  mkdir -p "$work/docker"
  cat >"$work/docker.json" <<END
{"data-root": "$work/docker/root", "exec-root": "$work/docker/exec", "pidfile": "$work/docker/pid",
 "hosts": ["unix://$work/docker/socket"], "iptables": false, "ip6tables": false, "bridge": "none", "max-concurrent-downloads": ${downloads:-3}}
END
  start docker dockerd --config-file "$work/docker.json"
  within 60 docker version
}

pull_docker() {
  if [[ -n $login ]]; then
    docker login -u "${login%%:*}" --password-stdin "127.0.0.1:$node_port" <<<"${login#*:}" || return 1
  else
    docker logout "127.0.0.1:$node_port" >/dev/null || return 1
  fi
  docker pull -q "$1" || return 1
  names_digest "$2" "$(docker image inspect -f '{{.RepoDigests}}' "$1")"
}

forget_docker() {
  docker image prune -af >/dev/null
  [[ -z $(docker image ls -qa) ]]
}

# --- containerd: ctr, with the node both as a mirror for the registry's name
# (?ns=) and under its own address

ctr() { bounded /usr/bin/ctr -a "$work/containerd/socket" "$@"; }

start_containerd() {
  [[ -x /usr/bin/ctr ]] || return 1
  local hosts=$work/containerd/hosts
  mkdir -p "$hosts/127.0.0.1:$node_port" "$hosts/127.0.0.1:$front_port"
  cat >"$hosts/127.0.0.1:$node_port/hosts.toml" <<END
server = 'http://127.0.0.1:$node_port'
[host.'http://127.0.0.1:$node_port']
END
  cat >"$hosts/127.0.0.1:$front_port/hosts.toml" <<END
server = 'http://127.0.0.1:$front_port'
[host.'http://127.0.0.1:$node_port']
  capabilities = ['pull', 'resolve']
END
  cat >"$work/containerd.toml" <<END
version = 2
root = '$work/containerd/root'
state = '$work/containerd/state'
disabled_plugins = ['io.containerd.grpc.v1.cri']
[grpc]
  address = '$work/containerd/socket'
[ttrpc]
  address = '$work/containerd/socket.ttrpc'
END
  start containerd containerd -c "$work/containerd.toml"
  within 30 ctr version
}

# containerd goes past a mirror that refuses it. So a pull with a login uses the
# node's address; one with the right login tries the mirror too, whose login is in
# hosts.toml. In mode direct, too, containerd can't go past the node.
pull_containerd() {
  local reference=$1 own=${1/"127.0.0.1:$node_port/up/"/"127.0.0.1:$front_port/"}
  [[ $mode == login || $mode == direct ]] || reference=$own
  ctr images pull --hosts-dir "$work/containerd/hosts" ${login:+--user "$login"} "$reference" >/dev/null || return 1
  names_digest "$2" "$(ctr images ls "name==$reference")" || return 1
  [[ $own != "$reference" && $login == "$node_user:$node_password" ]] || return 0
  containerd_login
  ctr images pull --hosts-dir "$work/containerd/hosts-login" "$own" >/dev/null || return 1
  names_digest "$2" "$(ctr images ls "name==$own")"
}

# containerd_login writes the mirror's hosts.toml with the login, as docs/clients.md
# describes it, and without a fallback to the registry.
containerd_login() {
  local hosts=$work/containerd/hosts-login/127.0.0.1:$front_port
  mkdir -p "$hosts"
  cat >"$hosts/hosts.toml" <<END
server = "http://127.0.0.1:9"
[host."http://127.0.0.1:$node_port"]
  capabilities = ["pull", "resolve"]
  [host."http://127.0.0.1:$node_port".header]
    Authorization = "Basic $(printf %s "$login" | base64 -w 0)"
END
}

forget_containerd() {
  local held
  mapfile -t held < <(ctr images ls -q)
  [[ ${#held[@]} -eq 0 ]] || ctr images rm --sync "${held[@]}" >/dev/null || return 1
  [[ -z $(ctr content ls -q) ]] || { echo "content is left in containerd" && return 1; }
}

# --- podman

podman() {
  bounded /usr/bin/podman --root "$work/podman/root" --runroot "$work/podman/run" --storage-driver overlay "$@"
}

start_podman() { podman version; }

pull_podman() {
  podman pull -q --tls-verify=false ${login:+--creds "$login"} "$1" || return 1
  names_digest "$2" "$(podman image inspect -f '{{.RepoDigests}}' "$1")"
}

forget_podman() { podman rmi -af >/dev/null; }

# --- skopeo: into a folder, where every blob can be looked at

start_skopeo() { skopeo --version; }

pull_skopeo() {
  forget_skopeo
  bounded skopeo copy -q --all --preserve-digests --src-tls-verify=false ${login:+--src-creds "$login"} \
    "docker://$1" "dir:$work/skopeo" || return 1
  names_digest "$2" "sha256:$(sha256sum <"$work/skopeo/manifest.json")" && blobs_are_right "$work/skopeo"
}

forget_skopeo() { rm -rf "$work/skopeo"; }

# --- crane: into an OCI layout

start_crane() { crane version; }

# crane_login writes the file that crane takes its password from.
crane_login() {
  local auths='{}' basic
  if [[ -n $login ]]; then
    basic=$(printf %s "$login" | base64 -w 0)
    auths="{\"127.0.0.1:$node_port\": {\"auth\": \"$basic\"}}"
  fi
  mkdir -p "$work/crane-login"
  echo "{\"auths\": $auths}" >"$work/crane-login/config.json"
}

pull_crane() {
  forget_crane
  crane_login
  DOCKER_CONFIG=$work/crane-login bounded crane pull --insecure --format=oci "$1" "$work/crane" || return 1
  names_digest "$2" "$(DOCKER_CONFIG=$work/crane-login bounded crane digest --insecure "$1")" &&
    names_digest "$2" "$(jq -r '.manifests[].digest' "$work/crane/index.json")" &&
    blobs_are_right "$work/crane"
}

forget_crane() { rm -rf "$work/crane"; }
