#!/usr/bin/env bash
# Installs what the gate needs from Debian, but only what is missing. Services
# that packages bring are not started: the runs start their own.
set -euo pipefail

packages=(
  apache2-utils   # htpasswd, for a registry that asks for a password
  ca-certificates # the Go module proxy
  chromium        # the page's test in a browser
  containerd      # client under test: ctr
  curl            # asking nodes for their figures
  docker-compose  # the run of docker-compose.yml
  docker-registry # upstream of the end-to-end run
  docker.io       # client under test: dockerd and docker
  gcc             # go test -race
  git             # the checks of the tree
  haproxy         # the balancer of docker-compose.yml and of the failover run
  iproute2        # bridges, and who is connected to whom
  jq              # reading logs and figures
  libc6-dev       # go test -race
  microsocks      # a proxy to get out by
  nodejs          # the tests of the page's scripts
  openssl         # certificates of the run through proxies
  podman          # client under test
  runc            # containerd needs one to start
  shellcheck      # lint of the scripts
  skopeo          # client under test, and the copying of the corpus
  squid-openssl   # a proxy to get out by, over TLS too
  tinyproxy-bin   # a proxy to get out by
)

# missing prints those packages that are not installed.
missing() {
  local package
  for package in "${packages[@]}"; do
    dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
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
