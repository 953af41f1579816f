# shellcheck shell=bash
# A stranger who may push to a repository of its own on the same registry, and
# wants a private layer of another repository: it writes the layer's digest into
# manifests of its own, at places where the registry does not look.

image_type=application/vnd.oci.image.manifest.v1+json
index_type=application/vnd.oci.image.index.v1+json

# ask OPTION…: curl with the registry's login, which prints the status.
ask() {
  curl -s -m 20 -o /dev/null -w '%{http_code}' -u "$upstream_user:$upstream_password" "$@"
}

# push_blob REPOSITORY FILE: prints a descriptor of the blob that it pushes.
push_blob() {
  local to size digest
  digest=sha256:$(sha256sum "$2" | cut -d ' ' -f 1) size=$(stat -c %s "$2")
  to=$(curl -s -m 20 -o /dev/null -w '%header{location}' -u "$upstream_user:$upstream_password" \
    -X POST "http://127.0.0.1:$attacked_port/v2/$1/blobs/uploads/")
  [[ $to == http* ]] || to=http://127.0.0.1:$attacked_port$to
  [[ $(ask -X PUT -H 'Content-Type: application/octet-stream' --data-binary "@$2" "$to&digest=$digest") == 201 ]] || return 1
  printf '{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"%s","size":%d}' "$digest" "$size"
}

# push_manifest REPOSITORY TAG TYPE JSON: prints the status.
push_manifest() {
  ask -X PUT -H "Content-Type: $3" --data-binary "$4" "http://127.0.0.1:$attacked_port/v2/$1/manifests/$2"
}

# through METHOD PATH: the status of a client's request to the node.
through() {
  local head=()
  [[ $1 == GET ]] || head=(-I)
  curl -s -m 30 -o /dev/null -w '%{http_code}' "${head[@]}" -H "Accept: $image_type, $index_type" "http://127.0.0.1:$node_port/v2/up/$2"
}

# expect STATUS METHOD PATH: 'none' stands for any that is no success.
expect() {
  local got
  got=$(through "$2" "$3")
  [[ $got == "$1" || $1 == none && $got != 000 && $got -ge 400 ]] || { echo "$2 $3: $got, want $1" && return 1; }
}

# nothing_opens: no path of the stranger's gives the layer, its config or manifest.
nothing_opens() {
  local method
  for method in GET HEAD; do
    expect "$1" "$method" "stranger/app/blobs/$secret_layer" && expect "$1" "$method" "stranger/app/blobs/$secret_manifest" &&
      expect "$1" "$method" "stranger/app/manifests/$secret_manifest" && expect "$1" "$method" "stranger/app/manifests/$secret_layer" || return 1
  done
}

# start_attacked COMMAND: a registry of that program, with a login, and the node.
start_attacked() {
  rm -rf "$work/attacked" "$work/cache"
  htpasswd -bBnC 4 "$upstream_user" "$upstream_password" >"$work/htpasswd" 2>/dev/null
  registry_config "$attacked_port" "$work/htpasswd" "$work/attacked" >"$work/attacked.yml"
  start attacked "$1" serve "$work/attacked.yml"
  within 20 answers "$attacked_port" /v2/ || return 1
  cat >"$work/node.yml" <<END
port: $node_port
address: 127.0.0.1
log_level: debug
whitelist_mode: true
default_registry: "127.0.0.1:$attacked_port"
defaults: {cache_dir: $work/cache, cache_max_size: 1g}
registries:
  "127.0.0.1:$attacked_port": {insecure: true, alias: [up], auth: {username: $upstream_user, password: $upstream_password}}
END
  : >"$work/log/node"
  stop node
  start_node
}

# stranger_gets_nothing COMMAND: the attack on a registry of that program.
stranger_gets_nothing() {
  local layer config own variant n=0 status accepted=0 victims image
  start_attacked "$1" || return 1
  head -c 300000 /dev/urandom >"$work/secret"
  echo '{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}' >"$work/config"
  echo stranger >"$work/own"
  layer=$(push_blob victim/app "$work/secret") && config=$(push_blob victim/app "$work/config") || return 1
  victims='{"schemaVersion":2,"mediaType":"'$image_type'","config":'$config',"layers":['$layer']}'
  [[ $(push_manifest victim/app v1 "$image_type" "$victims") == 201 ]] || return 1
  secret_layer=$(jq -r .digest <<<"$layer") secret_manifest=sha256:$(printf %s "$victims" | sha256sum | cut -d ' ' -f 1)
  config=$(push_blob stranger/app "$work/config") && own=$(push_blob stranger/app "$work/own") || return 1

  expect 200 GET victim/app/manifests/v1 && expect 200 GET "victim/app/blobs/$secret_layer" && nothing_opens 404 || return 1

  image='{"schemaVersion":2,"mediaType":"'$image_type'","config":'$config',"layers":['$own']'
  [[ $(push_manifest stranger/app v0 "$image_type" "${image%]},$layer]}") == 40? ]] ||
    { echo "the registry takes a manifest whose layer it does not have" && return 1; }
  # Each but the first names the layer where the registry does not look, or only some do.
  while read -r variant; do
    n=$((n + 1))
    status=$(push_manifest stranger/app "v$n" "$image_type" "$variant")
    echo "variant $n: $status"
    [[ $status == 201 ]] || continue
    accepted=$((accepted + 1))
    expect 200 GET "stranger/app/manifests/v$n" && expect 200 GET "stranger/app/manifests/sha256:$(printf %s "$variant" | sha256sum | cut -d ' ' -f 1)" &&
      nothing_opens 404 || { echo "after variant $n: $variant" && return 1; }
  done < <(variants "$image" "$layer" "$config" "$own")
  ((accepted > 2)) || { echo "the registry took $accepted of $n manifests" && return 1; }
  status=$(push_manifest stranger/app index "$index_type" '{"schemaVersion":2,"mediaType":"'$index_type'","manifests":[{"mediaType":"'$image_type'","digest":"'"$secret_manifest"'","size":'${#victims}'}]}')
  echo "a sparse index: $status"
  [[ $status != 201 ]] || { expect 200 GET stranger/app/manifests/index && nothing_opens 404; } || return 1

  stop attacked
  nothing_opens none && expect 200 GET victim/app/manifests/v1 && expect 200 GET "victim/app/blobs/$secret_layer" || return 1
  echo "$accepted of $n manifests were taken, and opened nothing"
}

# variants IMAGE LAYER CONFIG OWN: the stranger's manifests, one on each line.
variants() {
  local foreign=${2/application\/vnd.oci.image.layer.v1.tar/application/vnd.oci.image.layer.nondistributable.v1.tar} urls
  urls=${2%\}},'"urls":["http://127.0.0.1:9/x"]}'
  cat <<END
$1,"blobs":[$2]}
$1,"manifests":[$2]}
$1,"subject":{"mediaType":"$image_type","digest":"$secret_manifest","size":${#victims}}}
$1,"annotations":{"blobs":"$secret_layer"}}
$1,"Layers":[$2]}
$1,"layers":[$2]}
$1,"layers":[$4]}
{"schemaVersion":2,"mediaType":"$image_type","layers":[$2],"config":$3,"layers":[$4]}
{"schemaVersion":2,"mediaType":"$image_type","layers":[$2],"config":$3,"LAYERS":[$4]}
{"schemaVersion":2,"mediaType":"$image_type","config":$3,"layers":[$4,$foreign]}
{"schemaVersion":2,"mediaType":"$image_type","config":$3,"layers":[$4,${foreign%\}},"urls":["http://127.0.0.1:9/x"]}]}
{"schemaVersion":2,"mediaType":"$image_type","config":$3,"layers":[$4,$urls]}
END
}
