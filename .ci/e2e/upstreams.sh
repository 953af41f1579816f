# shellcheck shell=bash
# The upstream registries. Each is behind a front that logs all requests; the node
# knows only the front's address.

upstream_user=reader
upstream_password=upstream-s3cret

# registry_config PORT [HTPASSWD [FOLDER]] prints the config of a docker-registry, with
# the corpus unless a folder is given.
registry_config() {
  cat <<END
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: ${3:-$work/registry}}}
http: {addr: 127.0.0.1:$1, secret: only-for-this-run}
${2:+auth: {htpasswd: {realm: corpus, path: $2\}\}}
END
}

# start_registries starts the three registries that all runs share: an open one, to
# which the corpus is pushed; one that asks for a password; and one with tokens and a
# copy of the corpus.
start_registries() {
  registry_config "$registry_port" >"$work/registry.yml"
  start registry docker-registry serve "$work/registry.yml"
  within 20 answers "$registry_port" /v2/ || return 1

  htpasswd -bBnC 4 "$upstream_user" "$upstream_password" >"$work/htpasswd" 2>/dev/null
  registry_config "$htpasswd_port" "$work/htpasswd" >"$work/htpasswd.yml"
  start htpasswd docker-registry serve "$work/htpasswd.yml"
  within 20 answers "$htpasswd_port" /v2/
}

# start_token_registry copies the corpus to a registry with its own token service,
# which is first open, then closed.
start_token_registry() {
  local image
  open_token_registry || return 1
  for image in "${images[@]}"; do
    crane copy --insecure "127.0.0.1:$registry_port/$image" "127.0.0.1:$token_port/$image" || return 1
  done
  close_token_registry
}

# open_token_registry starts it for pushes, without tokens.
open_token_registry() {
  start seeding olareg serve --addr 127.0.0.1 --port "$token_port" --dir "$work/olareg"
  within 20 answers "$token_port" /v2/
}

# close_token_registry makes it ask for tokens from now on.
close_token_registry() {
  stop seeding
  cat >"$work/tokens.yml" <<END
users: {$upstream_user: {cred: "$(cut -d: -f2 "$work/htpasswd" | tr -d '\n')"}}
groups: {readers: {members: [$upstream_user]}}
acls: [{repo: "*", members: [readers], access: [read]}, {repo: "", members: [readers], access: [read]}]
END
  start token olareg serve --addr 127.0.0.1 --port "$token_port" --dir "$work/olareg" --auth-token-opaque "$work/tokens.yml"
  within 20 answers "$token_port" /v2/
}

# start_upstream MODE starts the front that the node uses as its registry.
start_upstream() {
  local to=$registry_port options=()
  case $1 in
    htpasswd) to=$htpasswd_port ;;
    token) to=$token_port ;;
    redirect)
      options=(-redirect "http://127.0.0.1:$cdn_port")
      start cdn front -listen "127.0.0.1:$cdn_port" -upstream "http://127.0.0.1:$registry_port" \
        -signed -log "$requests"
      ;;
    slow) options=(-slow 10000000) ;;
  esac
  start front front -listen "127.0.0.1:$front_port" -upstream "http://127.0.0.1:$to" \
    -log "$requests" "${options[@]}"
  within 30 answers "$front_port" /v2/
}

# stop_upstream makes the registry vanish: its port refuses connections.
stop_upstream() {
  stop front
  stop cdn
}

# blobs_asked prints "COUNT DIGEST" for each blob that upstream sent.
blobs_asked() {
  jq -r 'select(.method == "GET" and .status >= 200 and .status < 300)
    | .path | capture("/blobs/(?<digest>sha256:.*)$").digest' "$requests" | sort | uniq -c
}

# each_blob_once checks that upstream sent blobs, and none of them twice.
each_blob_once() {
  local asked
  asked=$(blobs_asked)
  [[ -n $asked ]] || { echo "no blob was requested from upstream" && return 1; }
  awk '$1 > 1 { print "upstream sent " $2 " " $1 " times"; bad = 1 } END { exit bad }' <<<"$asked"
}

# no_blob_asked checks that upstream sent no blob.
no_blob_asked() {
  local asked
  asked=$(blobs_asked)
  [[ -z $asked ]] || { printf 'upstream sent blobs that were cached:\n%s\n' "$asked" && return 1; }
}

# only_the_node_asked checks that no client went straight to upstream, as containerd
# does when its mirror fails.
only_the_node_asked() {
  local past
  past=$(jq -r 'select((.agent // "") | test("^(containerd|docker|skopeo|crane|containers)/")) | .agent + " " + .path' "$requests")
  [[ -z $past ]] || { printf 'asked past the node:\n%s\n' "$past" && return 1; }
}
