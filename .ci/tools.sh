#!/usr/bin/env bash
# Builds tools of tools.txt, each once per version: `tools.sh NAME…` builds those
# and prints their folder for the caller's PATH.
set -euo pipefail
cd "$(dirname "$0")"

# build NAME MODULE PACKAGE VERSION FOLDER builds one tool as FOLDER/NAME. It uses a
# go.mod of its own, because `go install` asks for a module's list of versions, which
# not every proxy has.
build() {
  local name=$1 module=$2 package=$3 version=$4 folder=$5 work
  work=$(mktemp -d)
  (
    cd "$work"
    trap 'rm -rf "$work"' EXIT
    printf 'module tool\n\ngo 1.26.0\n\nrequire %s %s\n' "$module" "$version" >go.mod
    flags='-s -w'
    [[ $module != k8s.io/kubernetes ]] || flags+=$(staged "$version")
    CGO_ENABLED=0 GOFLAGS='-mod=mod -buildvcs=false' timeout 3600 \
      go build -trimpath -ldflags="$flags" -o built "$module/$package"
    mkdir -p "$folder"
    mv built "$folder/$name"
  )
}

# staged VERSION takes Kubernetes' own modules, which its go.mod wants at v0.0.0, at the version
# that is published with it: v0.37.2 belongs to v1.37.2. It prints the linker's flags that tell the
# program its version, which helm asks for.
staged() {
  local version=$1 mod major minor
  mod=$(go mod download -json "k8s.io/kubernetes@$version" | sed -n 's/^\t"GoMod": "\(.*\)",$/\1/p')
  sed -n "s#^\t\(k8s.io/[^ ]*\) v0.0.0\$#replace \1 => \1 v0${version#v1}#p" "$mod" >>go.mod
  IFS=. read -r major minor _ <<<"${version#v}"
  printf ' -X k8s.io/component-base/version.%s' "gitVersion=$version" "gitMajor=$major" "gitMinor=$minor"
}

# ensure NAME builds the tool unless its version is in the cache, and links it under
# its plain name in the folder that is printed.
ensure() {
  local name=$1 module package version kept
  read -r _ module package version < <(grep "^$name " tools.txt)
  kept=$cache/$name@$version-$(go env GOVERSION)
  if [[ ! -x $kept/$name ]]; then
    echo "building $name $version" >&2
    build "$name" "$module" "$package" "$version" "$kept" >&2
  fi
  ln -sf "$kept/$name" "$cache/bin/$name"
}

cache=${XDG_CACHE_HOME:-$HOME/.cache}/oci-proxy-ci
mkdir -p "$cache/bin"
for tool in "$@"; do
  ensure "$tool"
done
echo "$cache/bin"
