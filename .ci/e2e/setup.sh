#!/usr/bin/env bash
# Sets real clients up with `oci-proxy setup` and with the script at /_/setup/, and pulls with them:
#
#	.ci/e2e/setup.sh OCI-PROXY
#
# Everything is in namespaces of its own: a network in which ghcr.io and Docker Hub are a registry
# of this run, and an /etc that is thrown away, where the clients' files are at the very places
# where the clients look. For docker, containerd and podman: what is shown with -n changes
# nothing; what is written makes the client pull by the registry's own name through the node, as
# the node's log says; with the node stopped the client pulls all the same; the node behind TLS of a
# private authority serves it too; and what is undone leaves /etc as it was, byte for byte.
#
# Needs curl, jq, openssl, unshare, ip, the programs of install.sh, and crane in the PATH.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
oci_proxy=$(realpath "$1")

if [[ ${SETUP_RUN:-} != inside ]]; then
  if ! unshare --mount --net true 2>/dev/null; then
    echo "setup: skipped, this machine allows no mount and network namespaces"
    exit 0
  fi
  SETUP_RUN=inside exec unshare --mount --net --propagation private "$0" "$oci_proxy"
fi

work=$(mktemp -d)
mkdir -p "$work/log" "$work/docker" "$work/containerd" "$work/podman"
# shellcheck source-path=SCRIPTDIR
{
  source "$here/processes.sh"
  source "$here/checks.sh"
  source "$here/corpus.sh"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

node_at=10.88.0.1 upstream_at=10.88.0.2
plain=http://proxy.test:5000 secure=https://proxy.test:5443

# evidence prints what may explain a failure.
evidence() { tail -n 8 "$work/log/node" "$work/log/dockerd" "$work/log/containerd" 2>/dev/null; }

# own_etc puts a layer over /etc that is gone with the namespace.
own_etc() {
  mkdir "$work/etc" && mount -t tmpfs tmpfs "$work/etc" && mkdir "$work/etc/upper" "$work/etc/work" || return 1
  mount -t overlay overlay -o "lowerdir=/etc,upperdir=$work/etc/upper,workdir=$work/etc/work" /etc || return 1
  rm -rf /etc/docker /etc/containerd
  mkdir -p /etc/docker /etc/containerd /etc/containers
  echo '{"default": [{"type": "insecureAcceptAnything"}]}' >/etc/containers/policy.json
  rm -f /etc/resolv.conf
  echo "hosts: files" >/etc/nsswitch.conf
  printf '%s\n' '127.0.0.1 localhost' "$node_at proxy.test" \
    "$upstream_at ghcr.io quay.io docker.io registry-1.docker.io auth.docker.io index.docker.io" >/etc/hosts
  printf 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n' >/etc/resolv.conf
}

# own_network brings up the addresses of the run.
own_network() { ip link set lo up && ip addr add "$node_at/32" dev lo && ip addr add "$upstream_at/32" dev lo; }

# certificate NAME AUTHORITY HOST… makes an authority if there is none of that name, and a certificate
# that it signs.
certificate() {
  local name=$1 ca=$2
  shift 2
  (
    cd "$work" || exit
    [[ -f $ca.crt ]] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$ca" -keyout "$ca.key" -out "$ca.crt" || exit
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$name.key" -out "$name.csr" || exit
    openssl x509 -req -in "$name.csr" -CA "$ca.crt" -CAkey "$ca.key" -CAcreateserial -days 2 -out "$name.crt" \
      -extfile <(printf 'subjectAltName=%s' "$(printf 'DNS:%s,' "$@" | sed 's/,$//')")
  ) >>"$work/log/openssl" 2>&1
}

# internet starts the registry that is all registries, trusted by the system.
internet() {
  certificate upstream world ghcr.io quay.io docker.io registry-1.docker.io auth.docker.io index.docker.io || return 1
  mkdir -p /etc/ssl/certs
  cat "$work/world.crt" >>/etc/ssl/certs/ca-certificates.crt
  cat >"$work/registry.yml" <<END
version: 0.1
log: {level: info}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: "$upstream_at:443", secret: only-for-this-run, tls: {certificate: $work/upstream.crt, key: $work/upstream.key}}
END
  start registry docker-registry serve "$work/registry.yml"
  within 20 curl -sf -m 5 https://ghcr.io/v2/
}

# images pushes one image under many names, so that each pull is of one that nobody has pulled.
images() {
  local n
  layers app 200K 50K
  image ghcr.io org/app:1 app || return 1
  for n in {2..9}; do
    head -c 1000 /dev/urandom >"$work/layers/app-1/file-1"
    tar -C "$work/layers/app-1" -cf "$work/layers/app-1.tar" .
    image ghcr.io "org/app:$n" app && crane copy "ghcr.io/org/app:$n" "registry-1.docker.io/library/hub:$n" || return 1
  done
}

# node starts the node: plain, or with TLS of a private authority.
node() {
  local port=5000 tls=''
  if [[ $1 == secure ]]; then
    port=5443 tls="tls: {cert_file: $work/node.pem, key_file: $work/node.key}"
  fi
  cat >"$work/node.yml" <<END
port: $port
address: $node_at
log_level: debug
allowed_hosts: [proxy.test]
$tls
allow_addresses: [10.88.0.0/24]
defaults: {cache_dir: $work/cache, cache_max_size: 1g}
END
  start node "$oci_proxy" serve -c "$work/node.yml"
  within 20 curl -skf -m 5 "$([[ $1 == secure ]] && echo https || echo http)://$node_at:$port/_/ready"
}

# asked IMAGE TAG reports whether the node's log has a pull of that image.
asked() {
  local registry=${1%%/*}
  grep -F "msg=request" "$work/log/node" | grep -F "registry=${registry/#docker.io/registry-1.docker.io} image=${1#*/} tag=$2 status=200" >/dev/null
}

# pulls CLIENT IMAGE TAG pulls, and wants the node's log to say so.
pulls() {
  "pull_$1" "$2:$3" && { asked "$2" "$3" || { echo "the node has not been asked" && return 1; }; }
}

# past_it CLIENT IMAGE TAG pulls, and wants the node not to have been asked.
past_it() {
  "pull_$1" "$2:$3" && { ! asked "$2" "$3" || { echo "the node was asked" && return 1; }; }
}

# falls_back CLIENT IMAGE TAG pulls with the node stopped.
falls_back() {
  stop node
  past_it "$@"
}

# --- the clients, as Debian starts them: with their files in /etc

docker() { timeout -k 5 60 /usr/bin/docker -H "unix://$work/docker/socket" "$@"; }
pull_docker() { docker pull -q "${1#docker.io/library/}"; }

# engine starts dockerd with /etc/docker/daemon.json.
engine() {
  cat >/etc/docker/daemon.json <<END
{
    "data-root": "$work/docker/root", "exec-root": "$work/docker/exec", "pidfile": "$work/docker/pid",
    "hosts": ["unix://$work/docker/socket"],
    "iptables": false, "ip6tables": false, "bridge": "none"
}
END
  start dockerd dockerd
  within 60 docker version
}

# reload makes dockerd read its config again, as systemctl reload docker does.
reload() { kill -HUP "${pids[dockerd]}" && within 10 mirrored "$1"; }
mirrored() { docker info -f '{{.RegistryConfig.Mirrors}}' 2>/dev/null | finds -F "[$1"; }

ctr() { timeout -k 5 60 /usr/bin/ctr -a "$work/containerd/socket" "$@"; }
pull_containerd() { ctr images pull --hosts-dir /etc/containerd/certs.d "$1" >/dev/null; }

containerd_config() {
  cat >/etc/containerd/config.toml <<END
version = 2
root = '$work/containerd/root'
state = '$work/containerd/state'

# this machine's own
[grpc]
  address = '$work/containerd/socket'
[ttrpc]
  address = '$work/containerd/socket.ttrpc'
[plugins."io.containerd.grpc.v1.cri"]
  disable_tcp_service = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
END
}

start_containerd() {
  start containerd containerd
  within 30 ctr version
}

# reads_config wants containerd to take the config that setup wrote, and to see the folder in it.
reads_config() {
  containerd config dump | finds '^ *config_path = "/etc/containerd/certs.d"'
}

pull_podman() {
  timeout -k 5 60 /usr/bin/podman --root "$work/podman/root" --runroot "$work/podman/run" --storage-driver overlay pull -q "$1"
}

# --- what setup does

# taken keeps /etc as it is, and unchanged compares.
taken() { rm -rf "$work/was" && cp -a /etc "$work/was"; }
unchanged() { diff -r --no-dereference /etc "$work/was"; }

# says TEXT COMMAND… runs a command, and wants it to say that.
says() {
  local text=$1
  shift
  if ! "$@" >"$work/said" 2>&1 || ! grep -F "$text" "$work/said" >/dev/null; then
    cat "$work/said" && return 1
  fi
}

# script SHELL CLIENT OPTION… runs the script of the node.
script() {
  local shell=$1 client=$2
  shift 2
  # shellcheck disable=SC2086 # busybox sh is two words
  curl -fsS -m 10 "$plain/_/setup/$client" | $shell -s -- "$@"
}

setup() { "$oci_proxy" setup "$@"; }

# shown CLIENT wants -n of the script and of the program to change nothing, and to show something.
shown() {
  local shell
  for shell in "${shells[@]}"; do
    says proxy.test script "$shell" "$1" -n || return 1
  done
  says proxy.test setup "$1" -proxy "$plain" -n && unchanged
}

# written CLIENT writes by the script, again, and by the program, which must change nothing.
written() {
  local shell
  script sh "$1" || return 1
  for shell in "${shells[@]}"; do
    says 'nothing to change' script "$shell" "$1" || return 1
  done
  says 'nothing to change' setup "$1" -proxy "$plain" -write
}

# undone CLIENT takes it back by the program; then the script must take back what the program
# wrote.
undone() {
  local shell
  stop node
  setup "$1" -undo && unchanged || return 1
  node plain && setup "$1" -proxy "$plain" -write || return 1
  for shell in "${shells[@]}"; do
    says 'nothing to change' script "$shell" "$1" && says proxy.test script "$shell" "$1" -n -undo || return 1
  done
  script "${shells[-1]}" "$1" -undo && unchanged
}

# by_program CLIENT writes with TLS of a private authority.
by_program() {
  stop node
  node secure && setup "$1" -proxy "$secure" -ca "$work/private.crt" -write
}

run() {
  check "docker: the engine starts with a config of its own" engine && taken
  check "docker: what is only shown changes nothing" shown docker
  check "docker: the script writes, once" written docker
  check "docker: the engine takes it by a reload" reload "$plain/"
  check "docker: a name of Docker Hub comes through the node" pulls docker docker.io/library/hub 2
  check "docker: with the node down it comes from Docker Hub" falls_back docker docker.io/library/hub 3
  check "docker: TLS of a private authority is set up" by_program docker
  check "docker: the engine takes that by a reload" reload "$secure/"
  check "docker: a name of Docker Hub comes through TLS" pulls docker docker.io/library/hub 4
  check "docker: undone, byte for byte" undone docker
  stop dockerd

  rm -f /etc/docker/daemon.json
  containerd_config && taken
  check "containerd: the script says what to add where it can't merge, and changes nothing" refuses containerd
  check "containerd: the program writes" setup containerd -proxy "$plain" -write
  check "containerd: it reads the config" reads_config
  check "containerd: it starts" start_containerd
  check "containerd: a name of ghcr.io comes through the node" pulls containerd ghcr.io/org/app 2
  check "containerd: a name of Docker Hub too" pulls containerd docker.io/library/hub 5
  check "containerd: with the node down it comes from ghcr.io" falls_back containerd ghcr.io/org/app 3
  check "containerd: TLS of a private authority is set up" by_program containerd
  check "containerd: a name of ghcr.io comes through TLS" pulls containerd ghcr.io/org/app 4
  check "containerd: one registry by itself" setup containerd -proxy "$secure" -ca "$work/private.crt" -registries ghcr.io -write
  check "containerd: that registry comes through TLS" pulls containerd ghcr.io/org/app 5
  check "containerd: no other does" past_it containerd docker.io/library/hub 6
  check "containerd: undone, byte for byte" undone containerd
  stop containerd

  rm -f /etc/containerd/config.toml
  taken
  check "podman: what is only shown changes nothing" shown podman
  check "podman: the script writes, once" written podman
  check "podman: a name of ghcr.io comes through the node" pulls podman ghcr.io/org/app 6
  check "podman: a name of Docker Hub too" pulls podman docker.io/library/hub 7
  check "podman: with the node down it comes from ghcr.io" falls_back podman ghcr.io/org/app 7
  check "podman: TLS of a private authority is set up" by_program podman
  check "podman: a name of ghcr.io comes through TLS" pulls podman ghcr.io/org/app 8
  check "podman: undone, byte for byte" undone podman
  for client in k3s buildkitd; do
    command -v "$client" >/dev/null || echo "not tried with $client: it is not on this machine"
  done
}

# refuses CLIENT wants the script to change nothing.
refuses() {
  ! script sh "$1" >"$work/said" || return 1
  grep -qF 'config_path = "/etc/containerd/certs.d"' "$work/said" && unchanged
}

if ! own_network || ! own_etc; then
  skip "an own network and an own /etc could not be made"
fi
certificate node private proxy.test && cat "$work/node.crt" "$work/private.crt" >"$work/node.pem" || exit 1
if ! internet || ! images >"$work/log/images" 2>&1 || ! node plain; then
  tail -n 20 "$work"/log/* && exit 1
fi
shells=(sh)
if command -v busybox >/dev/null; then
  shells+=("busybox sh")
fi
run
finish
