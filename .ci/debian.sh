#!/usr/bin/env bash
# Prints the file of a bare Debian root (debootstrap's minbase) of this machine's release:
#
#	.ci/debian.sh
#
# It is made once and kept beside the tools. Needs root, debootstrap and a mirror of Debian:
# the one that apt uses here.
set -euo pipefail

codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
kept=${XDG_CACHE_HOME:-$HOME/.cache}/oci-proxy-ci/debian-$codename.tar
if [[ ! -s $kept ]]; then
  # shellcheck disable=SC2016 # apt fills them in
  mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE)' 'Created-By: Packages' | awk -v of="$codename" '$2 == of { print $1; exit }')
  [[ -n $mirror ]] || { echo "apt knows no mirror of $codename" >&2 && exit 1; }
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  timeout 300 debootstrap --variant=minbase "$codename" "$work/root" "$mirror" >"$work/log" 2>&1 || { tail -n 5 "$work/log" >&2 && exit 1; }
  rm -rf "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/*
  mkdir -p "$(dirname "$kept")"
  tar -C "$work/root" --exclude='./dev/*' --exclude='./proc/*' -cf "$work/new" . && mv "$work/new" "$kept"
fi
echo "$kept"
