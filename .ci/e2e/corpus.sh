# shellcheck shell=bash
# The images to pull, made from noise, because no other registry can be reached.

# layers NAME SIZE… makes a tar file of each size: $work/layers/NAME-1.tar and so on.
layers() {
  local name=$1 n=0 size
  shift
  for size in "$@"; do
    n=$((n + 1))
    mkdir -p "$work/layers/$name-$n"
    head -c "$size" /dev/urandom >"$work/layers/$name-$n/file-$n"
    tar -C "$work/layers/$name-$n" -cf "$work/layers/$name-$n.tar" .
  done
}

# image REGISTRY NAME LAYERS pushes an OCI image for linux/amd64 made of the layers
# of that name.
image() {
  local to=$1/$2 from=() tar
  for tar in "$work/layers/$3"-*.tar; do
    from+=(-f "$tar")
  done
  crane append --insecure --oci-empty-base "${from[@]}" -t "$to" &&
    crane mutate --insecure --set-platform linux/amd64 -t "$to" "$to"
}

# recopy FROM TO OPTION… copies an image with skopeo, changed by the options.
recopy() {
  skopeo copy -q --src-tls-verify=false --dest-tls-verify=false "${@:3}" "docker://$1" "docker://$2"
}

# seed REGISTRY pushes the corpus. $images and $big name its images.
seed() {
  local app=$1/org/app
  layers app 300K 900K 40K
  layers big 20M 60M 70M
  image "$1" org/app:oci app || return 1
  image "$1" org/big:noise big || return 1
  crane mutate --insecure --set-platform linux/arm64 -t "$app:arm64" "$app:oci" || return 1
  crane index append --insecure -m "$app:oci" -m "$app:arm64" -t "$app:index" || return 1
  crane copy --insecure "$app:oci" "$1/a/b/c/d:deep" || return 1
  # skopeo checks an index by writing it again, so skopeo must have written it.
  recopy "$app:index" "$app:multi" --all && recopy "$app:oci" "$app:docker" --format v2s2 || return 1
  rm -rf "$work/layers"
}

# digest_of NAME prints the digest that upstream has for an image of the corpus.
digest_of() {
  crane digest --insecure "127.0.0.1:$registry_port/$1"
}
