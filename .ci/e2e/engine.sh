# shellcheck shell=bash
# A docker engine with networks, and images for it without a registry. Its state is
# in $work/docker, and it has a bridge of its own. It changes no firewall rule and
# no setting of the machine, so containers reach only each other and this machine.

bridge=ocip$$
bridge_address=172.31.250.1

# start_engine starts dockerd; docker() of clients.sh talks to it.
start_engine() {
  [[ -x /usr/bin/docker ]] && command -v dockerd ip >/dev/null || { echo "there is no docker" && return 1; }
  ip link add "$bridge" type bridge && ip addr add "$bridge_address/24" dev "$bridge" && ip link set "$bridge" up || return 1
  mkdir -p "$work/docker"
  cat >"$work/docker.json" <<END
{"data-root": "$work/docker/root", "exec-root": "$work/docker/exec", "pidfile": "$work/docker/pid",
 "hosts": ["unix://$work/docker/socket"], "iptables": false, "ip6tables": false, "ip-forward": false,
 "bridge": "$bridge", "dns": ["127.0.0.1"], "default-address-pools": [{"base": "172.31.0.0/17", "size": 24}]}
END
  start docker dockerd --config-file "$work/docker.json"
  within 60 docker version
}

# stop_engine ends it and removes the containers and networks that are left.
stop_engine() {
  local network networks=()
  if running docker; then
    mapfile -t networks < <(docker network ls -q --no-trunc --filter driver=bridge --filter type=custom | cut -c 1-12)
    # shellcheck disable=SC2046 # one word for each container
    docker rm -f -v $(docker ps -aq) >/dev/null 2>&1
  fi
  stop docker
  for network in "${networks[@]}"; do
    ip link del "br-$network" 2>/dev/null
  done
  ip link del "$bridge" 2>/dev/null
}

# with_programs FOLDER PROGRAM… makes a root file system of this machine's programs
# and the libraries that they are linked to.
with_programs() {
  local root=$1 folder program file
  shift
  for folder in bin sbin lib lib64; do
    mkdir -p "$root/usr/$folder" && ln -sfn "usr/$folder" "$root/$folder"
  done
  mkdir -p "$root/tmp" "$root/etc/ssl/certs"
  for program in "$@"; do
    program=$(command -v "$program") || return 1
    for file in "$program" $(ldd "$program" 2>/dev/null | grep -o '/[^ )]*'); do
      mkdir -p "$root/usr/$(dirname "${file#/usr/}")" && cp -L "$file" "$root/usr/${file#/usr/}" || return 1
    done
  done
}

# import_golang IMAGE makes an image of this machine's Go, the modules of go.mod, and what is
# compiled already. It builds without a network.
import_golang() {
  local root=$work/golang
  with_programs "$root" sh mkdir cp chown chmod || return 1
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
  GOMODCACHE=$root/go/pkg/mod GOFLAGS=-modcacherw GOPROXY=file://$modules/cache/download GONOSUMDB='*' go mod download || return 1
  [[ ! -d ${COMPILED:-} ]] || cp -r "$COMPILED" "$root/go/cache" || return 1
  # Only names without a leading ./ are Go's.
  tar -cf - -C "$root" . --transform='s,^\([^.]\),usr/local/go/\1,rSH' -C "$(go env GOROOT)" bin pkg src lib go.env VERSION |
    docker import -c 'ENV PATH=/usr/local/go/bin:/usr/bin GOPATH=/go GOTOOLCHAIN=local GOPROXY=off GOCACHE=/go/cache' - "$1" || return 1
  rm -rf "$root"
}

# import_haproxy IMAGE makes an image of this machine's HAProxy that starts like the
# official one.
import_haproxy() {
  local root=$work/haproxy
  with_programs "$root" haproxy || return 1
  tar -cf - -C "$root" . | docker import \
    -c 'CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]' -c 'ENV PATH=/usr/sbin:/usr/bin' - "$1" || return 1
  rm -rf "$root"
}
