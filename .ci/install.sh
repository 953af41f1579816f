#!/usr/bin/env bash
# Installs the Debian packages that the gate needs and that are missing. It does not
# start their services: the runs start their own.
set -euo pipefail

packages=(
  apache2-utils   # htpasswd, for a registry that asks for a password
  busybox         # its shell, which runs the script of /_/setup/
  ca-certificates # the Go module proxy
  chromium        # the page's test in a browser
  containerd      # client under test: ctr
  curl            # asking nodes for their figures
  debootstrap     # a bare Debian, into which the release is installed
  docker-compose  # the run of docker-compose.yml
  docker-registry # upstream of the end-to-end run
  docker.io       # client under test: dockerd and docker
  etcd-server     # keeps what the API server of the chart's run is given
  gcc             # go test -race
  git             # the checks of the tree
  haproxy         # the balancer of docker-compose.yml and of the failover run
  iproute2        # bridges, and a list of connections
  iptables        # closed ports in network namespaces
  jq              # reading logs and figures
  libc6-dev       # go test -race
  microsocks      # a proxy under test
  nginx           # what the program is measured beside
  nodejs          # the tests of the page's scripts
  openssl         # certificates of the run through proxies
  podman          # client under test
  prometheus      # promtool, which tests the alerts
  rpm             # installs the rpm into a folder
  runc            # containerd does not start without it
  shellcheck      # lint of the scripts
  skopeo          # client under test; copies the corpus
  squid-openssl   # a proxy under test, also over TLS
  tinyproxy-bin   # a proxy under test
)

# missing prints the packages that are not installed.
missing() {
  local package
  for package in "${packages[@]}"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
      command -v "$package" >/dev/null || # nodejs and gcc may come with the machine's image
      echo "$package"
  done
}

mapfile -t wanted < <(missing)
if [[ ${#wanted[@]} -eq 0 ]]; then
  echo "all ${#packages[@]} packages are installed"
  exit 0
fi

policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
echo "installing ${wanted[*]}"
timeout 300 apt-get -o Acquire::Retries=3 -q -y update >/dev/null
timeout 900 apt-get -o Acquire::Retries=3 -q -y install --no-install-recommends "${wanted[@]}" >/dev/null
