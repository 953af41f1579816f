#!/usr/bin/env bash
# Makes a release and installs it as its users do:
#
#	.ci/release.sh
#
# It is made twice, in two folders without a network: the same bytes must come out. The deb is
# installed into a bare Debian root, where its node runs as its unit says and serves a real
# pull; a purge leaves nothing. docker, podman and containerd take the image's file, and
# compose starts three nodes from nothing but the release. What can't be had on a machine is
# skipped with the reason. Needs root, and the programs of install.sh and tools.sh in
# the PATH. Everything is in one folder and in a network namespace.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.." || exit
version=9.8.7-rc.1

if [[ -z ${IN_NAMESPACE:-} ]]; then
  [[ $(id -u) == 0 ]] || { echo "skipped: only root may make a network namespace" && exit 0; }
  unshare --net --mount true 2>/dev/null || { echo "skipped: no network namespace can be made here" && exit 0; }
  # What a release needs beside the sources. Later there is no network.
  .ci/tools.sh nfpm cyclonedx-gomod crane helm >/dev/null && go mod download || exit
  debian=$(.ci/debian.sh 2>&1) || echo "no bare Debian root: $(tail -n 1 <<<"$debian" | sed 's#https\?://[^ ]*#(its address)#g')"
  IN_NAMESPACE=1 DEBIAN_ROOT=$debian unshare --net --mount "$here/release.sh"
  exit
fi

work=$(mktemp -d)
mkdir -p "$work/log"
export CACHE=${XDG_CACHE_HOME:-$HOME/.cache}
GOMODCACHE=$(go env GOMODCACHE) GOCACHE=${COMPILED:-$(go env GOCACHE)}
export GOMODCACHE GOCACHE XDG_CACHE_HOME=$CACHE
# shellcheck source-path=SCRIPTDIR
{
  source "$here/e2e/processes.sh"
  source "$here/e2e/surroundings.sh"
  source "$here/e2e/checks.sh"
  source "$here/e2e/corpus.sh"
  source "$here/e2e/upstreams.sh"
  source "$here/e2e/clients.sh"
  source "$here/e2e/engine.sh"
}
trap 'stop_engine; clean_up' EXIT
trap 'exit 130' INT TERM
export DOCKER_HOST=unix://$work/docker/socket
registry_port=5000 node_port=8080 front_port=5001 root=$work/root
outside=10.99.0.1 # this machine, as others reach it
dist=$work/one/dist
commit=$(git rev-parse HEAD)
declare -A digest=()

# releases makes the release twice, side by side: in folders of other names and depths.
releases() {
  local folder
  for folder in one two/further/down; do
    mkdir -p "$work/tmp/$folder" && git clone -q --shared . "$work/$folder" && git -C "$work/$folder" checkout -q --detach "$commit" || return 1
    # The scripts under test need not be committed; what they make a release of is.
    cp .ci/release .ci/tools.sh .ci/tools.txt "$work/$folder/.ci/"
    TMPDIR=$work/tmp/$folder HOME=$work/home timeout 900 "$work/$folder/.ci/release" $version || return 1
  done
  diff -r "$dist" "$work/two/further/down/dist" || return 1
  rm -rf "$work/two"
  (cd "$dist" && sha256sum --check --quiet SHA256SUMS) || return 1
  seen="$(wc -l <"$dist/SHA256SUMS") files, $(du -sm "$dist" | cut -f 1) MiB"
}

# says_its_version checks the version in the binaries, and that the parts lists have all modules.
says_its_version() {
  local arch binary
  for arch in amd64 arm64; do
    binary=$dist/oci-proxy-$version-linux-$arch
    ! readelf -l "$binary" | finds INTERP || { echo "$binary is not static" && return 1; }
    diff <(go version -m "$binary" | awk '$1 == "dep" { print $2 "@" $3 }' | sort) \
      <(jq -r '.components[] | select(.purl != null and (.name != "std")) | .name + "@" + .version' "$binary.cdx.json" | sort) || return 1
    grep -qF "$version" "$binary" || return 1
  done
  said=$("$dist/oci-proxy-$version-linux-$(go env GOHOSTARCH)" version)
  [[ $said == "oci-proxy $version commit $commit go"* ]] || { echo "$said" && return 1; }
}

# names_the_image checks that the chart, if there is one, is of this version.
names_the_image() {
  [[ $(helm show chart "$dist/oci-proxy-$version.tgz" | grep -cE "^(version|appVersion): \"?$version\"?$") == 2 ]]
}

# emulated runs the program for arm64: three nodes that pull through each other.
emulated() { timeout 120 qemu-aarch64-static "$dist/oci-proxy-$version-linux-arm64" demo -once | finds 'Every byte was right'; }

# hardened rates the unit as the package has it: 2.0 of 10 at most.
hardened() {
  mkdir "$work/deb" && dpkg-deb -x "$dist"/oci-proxy_*_amd64.deb "$work/deb" || return 1
  local unit=$work/deb/usr/lib/systemd/system/oci-proxy.service
  systemd-analyze security --offline=true --threshold=20 --no-pager "$unit" >"$work/log/hardened" || { tail -n 3 "$work/log/hardened" && return 1; }
  ! grep -n usr/local "$unit" || return 1
  seen=$(grep -o 'level for .*: [0-9.]*' "$work/log/hardened" | grep -o '[0-9.]*$')
}

# in_root COMMAND… runs it in the bare Debian.
in_root() { chroot "$root" "$@"; }

# all_files lists what lies in the bare Debian, but for the records of dpkg and of the users.
all_files() {
  (cd "$root" && find . -xdev -path ./proc -prune -o -path ./dev -prune -o -print | grep -vE '^\./(var/lib/dpkg|var/log|etc/(passwd|group|shadow|gshadow|subuid|subgid))' | sort)
}

# installed installs the deb as apt does, and looks at what it made.
installed() {
  mkdir "$root" && tar -xf "$DEBIAN_ROOT" -C "$root" && mount -t proc proc "$root/proc" || return 1
  [[ -e $root/dev/null ]] || mknod -m 666 "$root/dev/null" c 1 3 || return 1
  cp "$dist"/oci-proxy_*_amd64.deb "$root/root/oci-proxy.deb"
  all_files >"$work/before"
  local began=$EPOCHREALTIME
  in_root dpkg -i /root/oci-proxy.deb || return 1
  seen="dpkg took $(awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }') s"
  [[ $(in_root stat -c '%U:%G %a' /etc/oci-proxy/config.yaml) == 'root:oci-proxy 640' ]] || return 1
  [[ $(in_root stat -c '%U:%G %a' /var/lib/oci-proxy) == 'oci-proxy:oci-proxy 700' ]] || return 1
  in_root systemctl is-enabled oci-proxy.service || in_root test -h /etc/systemd/system/multi-user.target.wants/oci-proxy.service || return 1
  in_root bash -euc '. /usr/share/bash-completion/completions/oci-proxy; complete -p oci-proxy' || return 1
  zcat "$root/usr/share/man/man1/oci-proxy.1.gz" | finds '^\.TH OCI-PROXY' || return 1
  ! grep -vE '^(#.*|address: 127.0.0.1|port: 8080|)$' "$root/etc/oci-proxy/config.yaml" || return 1
}

# start_installed runs the node as its unit says: that command, that user, that environment.
start_installed() {
  local unit=$root/usr/lib/systemd/system/oci-proxy.service line environ
  of() { sed -n "s/^$1=//p" "$unit"; }
  read -ra line <<<"$(of ExecStart)"
  read -ra environ <<<"$(of Environment)"
  start node env -i "${environ[@]}" PATH=/usr/bin:/bin "$(command -v chroot)" --userspec="$(of User):$(of Group)" "$root" "${line[@]}"
  within 20 curl -sf --noproxy '*' http://127.0.0.1:8080/_/ready
}

# serves runs the node from the config as it comes. It is reached from this machine alone,
# and the commands of root find it.
serves() {
  start_installed || { cat "$work/log/node" && return 1; }
  grep -q "msg=\"oci-proxy starts\" version=$version " "$work/log/node" || { cat "$work/log/node" && return 1; }
  [[ $(in_root oci-proxy health) == '{"status":"healthy"}' ]] || return 1
  in_root oci-proxy status -o json | jq -e --arg v $version 'any(.. | strings; . == $v)' || return 1
  curl -sf --noproxy '*' http://127.0.0.1:8080/_/metrics | finds "^oci_proxy_build_info{.*revision=\"$commit\",version=\"$version\"} 1" || return 1
  [[ $(ps -o uid= -p "${pids[node]}" | tr -d ' ') == "$(in_root id -u oci-proxy)" ]] || return 1
  curl -sf --noproxy '*' -m 5 -o /dev/null "http://$outside:$registry_port/v2/" || return 1
  ! curl -s --noproxy '*' -m 5 "http://$outside:8080/_/health" || { echo "it listens to the network" && return 1; }
}

# pulls_from PORT REGISTRY pulls an image through the node at that port.
pulls_from() {
  [[ $(crane digest --insecure "127.0.0.1:$1/$2/org/app:v1") == "${digest[app]}" ]] || return 1
  rm -rf "$work/pulled"
  crane pull --insecure --format oci "127.0.0.1:$1/$2/org/app:v1" "$work/pulled" && blobs_are_right "$work/pulled"
}

# pulls adds a registry to the config, has it read, and pulls.
pulls() {
  printf 'registries:\n  "127.0.0.1:5000": {insecure: true, alias: [here]}\n' >>"$root/etc/oci-proxy/config.yaml"
  in_root oci-proxy check -c /etc/oci-proxy/config.yaml && kill -HUP "${pids[node]}" || return 1
  within 10 pulls_from 8080 here || { pulls_from 8080 here; return 1; }
  seen="$(find "$root/var/lib/oci-proxy/blobs" -name '*.meta' | wc -l) blobs cached"
}

# upgraded installs it once more over itself while the node runs and its config is changed.
upgraded() {
  in_root dpkg -i /root/oci-proxy.deb && grep -q 'alias: \[here\]' "$root/etc/oci-proxy/config.yaml" || return 1
  [[ $(in_root stat -c '%U:%G %a' /etc/oci-proxy/config.yaml) == 'root:oci-proxy 640' ]] || return 1
  in_root oci-proxy status >/dev/null || { echo "status does not find the node whose program was replaced" && return 1; }
  stop node && stop registry && start_installed && pulls_from 8080 here || return 1 # from what it kept
  stop node && start_registry
}

# purged removes the package: first all but config and cache, then everything.
purged() {
  in_root dpkg -r oci-proxy && [[ -f $root/etc/oci-proxy/config.yaml && -d $root/var/lib/oci-proxy/blobs ]] || return 1
  in_root dpkg -P oci-proxy || return 1
  all_files | diff "$work/before" - && ! in_root getent passwd oci-proxy && ! in_root getent group oci-proxy
}

# rpm_is_whole installs the rpm by rpm into an empty root, where the user exists, and
# removes it again: of what it brought only the changed config stays.
rpm_is_whole() {
  local to=$work/rpm config=$work/rpm/etc/oci-proxy/config.yaml
  in_rpm() { rpm --root "$to" --nodeps --noscripts "$@" 2>/dev/null; }
  [[ $(rpm -qp --configfiles "$dist"/oci-proxy-*.aarch64.rpm 2>/dev/null) == /etc/oci-proxy/config.yaml ]] || return 1
  mkdir -p "$to/etc" && echo 'oci-proxy:x:700:700::/:/' >"$to/etc/passwd" && echo 'oci-proxy:x:700:' >"$to/etc/group" || return 1
  in_rpm -i "$dist"/oci-proxy-*.x86_64.rpm && in_rpm -V oci-proxy || return 1
  [[ $(stat -c '%u %g %a' "$config" "$to/var/lib/oci-proxy" "$to/usr/bin/oci-proxy" | paste -sd,) == '0 700 640,700 700 700,0 0 755' ]] || return 1
  cmp "$to/usr/bin/oci-proxy" "$dist/oci-proxy-$version-linux-amd64" || return 1
  echo '# mine' >>"$config" && in_rpm -e oci-proxy && grep -q '^# mine' "$config.rpmsave" || return 1
  [[ $(find "$to" -path '*oci-proxy*' -type f) == "$config.rpmsave" ]] || return 1
}

# image_file is the image for this machine.
image_file() { echo "$dist/oci-proxy-$version-image-$(go env GOHOSTARCH).tar"; }

# takes_podman loads the image with podman, which takes the OCI layout.
takes_podman() {
  local podman=(podman --root "$work/podman/root" --runroot "$work/podman/run" --storage-driver vfs)
  "${podman[@]}" load -q -i "$(image_file)" || return 1
  [[ $("${podman[@]}" image inspect -f '{{.Architecture}} {{.Config.User}} {{index .Labels "org.opencontainers.image.version"}}' "oci-proxy:$version") == "$(go env GOHOSTARCH) 65532:65532 $version" ]]
}

# takes_crane reads the layout with crane, which checks each digest, for both architectures.
takes_crane() {
  local arch
  for arch in amd64 arm64; do
    mkdir -p "$work/layout-$arch" && tar -xf "$dist/oci-proxy-$version-image-$arch.tar" -C "$work/layout-$arch" || return 1
    blobs_are_right "$work/layout-$arch" && [[ $(jq -r .architecture "$work/layout-$arch/$(jq -r '.[0].Config' "$work/layout-$arch/manifest.json")") == "$arch" ]] || return 1
    crane push --insecure "$work/layout-$arch" "127.0.0.1:$registry_port/oci-proxy:$arch" || return 1
    crane validate --remote "127.0.0.1:$registry_port/oci-proxy:$arch" --insecure || return 1
  done
  [[ $(crane manifest --insecure "127.0.0.1:$registry_port/oci-proxy:amd64" | jq -r '[.manifests[].platform.architecture] | join(" ")') == 'amd64 arm64' ]]
}

# takes_containerd imports the image, as for Kubernetes.
takes_containerd() {
  start_containerd || return 1
  ctr images import --local "$(image_file)" 2>/dev/null || ctr images import "$(image_file)" || return 1
  ctr images ls -q | finds -x "docker.io/library/oci-proxy:$version"
}

# takes_docker loads the image with docker, and runs a node of it.
takes_docker() {
  docker load -q -i "$(image_file)" || return 1
  docker run -d --name alone --read-only --cap-drop ALL "oci-proxy:$version" &&
    within 30 docker exec alone oci-proxy health &&
    docker exec alone oci-proxy status -o json | jq -e --arg v $version 'any(.. | strings; . == $v)' || return 1
  docker rm -f -v alone
}

# compose COMMAND… runs docker-compose in the release's folder, without a balancer.
compose() {
  (cd "$dist" && CONFIG=$work/node.yaml timeout -k 5 120 docker-compose -p release -f docker-compose.yml -f deploy/compose-direct.yml "$@")
}

# composed starts three nodes from the release alone, and pulls from each.
composed() {
  local port
  { sed '/^registries:/,$d' deploy/node.yaml && printf 'registries:\n  "%s:5000": {insecure: true, alias: [here]}\n' "$bridge_address"; } >"$work/node.yaml"
  compose up -d && within 60 three_members || return 1
  for port in 8080 8081 8082; do
    pulls_from $port here || return 1
  done
  [[ -z $(docker ps -q -f name=balancer) ]] || return 1
  docker exec "$(compose ps -q node-2)" oci-proxy status | finds -F "$version" || return 1
  compose down && ! docker volume ls -q | grep -v '^release_' || return 1
  compose down -v && [[ -z $(docker ps -aq)$(docker volume ls -q) ]]
}

three_members() { [[ $(curl -sf --noproxy '*' http://127.0.0.1:8082/_/cluster | jq '[.members[] | select(.state == "active")] | length') == 3 ]]; }

# evidence prints the ends of the logs.
evidence() {
  tail -n 5 "$work"/log/{node,registry} 2>/dev/null
  ! running docker || docker ps -a
}

# start_registry starts the registry that images are pulled from.
start_registry() {
  registry_config $registry_port | sed 's/127.0.0.1/0.0.0.0/' >"$work/registry.yml"
  start registry docker-registry serve "$work/registry.yml"
  within 20 answers $registry_port /v2/
}

ip link set lo up && ip addr add $outside/32 dev lo
if ! check 'two releases, without a network: the same bytes' releases; then
  finish
  exit 1
fi
{ start_registry && layers app 300K 2M && image "127.0.0.1:$registry_port" org/app:v1 app && digest[app]=$(digest_of org/app:v1); } >"$work/log/prepare" 2>&1 ||
  { cat "$work/log/prepare" && exit 1; }
check 'the version in the binaries, all modules in the parts lists' says_its_version
if [[ -e $dist/oci-proxy-$version.tgz ]]; then
  check 'the chart is of this version' names_the_image
fi
if command -v qemu-aarch64-static >/dev/null; then
  check 'the program for arm64, emulated' emulated
else
  echo "skipped: the program for arm64: Debian's package qemu-user-static is not there"
fi
if command -v systemd-analyze >/dev/null; then
  check 'the unit is hardened: systemd-analyze says 2.0 at most' hardened
fi
if [[ -s ${DEBIAN_ROOT:-} ]]; then
  check 'the deb, in a bare Debian' installed &&
    check 'its node, as its unit runs it' serves &&
    check 'a pull through it' pulls &&
    check 'an upgrade keeps config and cache' upgraded &&
    check 'a purge leaves nothing' purged
  stop node # after a failure it still runs
else
  echo "skipped: the deb in a bare Debian"
fi
if command -v rpm >/dev/null; then
  check 'the rpm, in an empty root' rpm_is_whole
else
  echo "skipped: the rpms: Debian's package rpm is not there"
fi
check 'the image, as crane reads it' takes_crane
check 'podman load' takes_podman
check 'ctr images import' takes_containerd
if start_engine >"$work/log/start" 2>&1; then
  check 'docker load, and a node of it' takes_docker
  check 'docker-compose up without a registry and without a balancer' composed
else
  echo "skipped: docker load and compose: no docker engine can be started here"
fi
finish
