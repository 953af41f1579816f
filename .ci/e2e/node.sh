# shellcheck shell=bash
# The node under test.

node_user=puller
node_password=node-s3cret

# node_config MODE prints the node's config for one kind of upstream. In mode login
# the node itself asks for a password.
node_config() {
  local upstream_auth='' node_auth=''
  case $1 in
    htpasswd | token) upstream_auth="auth: {username: $upstream_user, password: $upstream_password}" ;;
    login) node_auth="auth: {username: $node_user, password: $node_password}" ;;
  esac
  cat <<END
port: $node_port
address: 127.0.0.1
log_level: debug
default_registry: "127.0.0.1:$front_port"
$node_auth
defaults:
  cache_dir: $work/cache
  cache_max_size: 2g
registries:
  "127.0.0.1:$front_port":
    insecure: true
    alias: [up]
    $upstream_auth
END
}

# start_node starts the node on the cache in $work/cache.
start_node() {
  start node "$oci_proxy" serve -c "$work/node.yml"
  within 20 curl -sf -m 5 "http://127.0.0.1:$node_port/_/ready"
}

# fresh_node MODE starts a node with an empty cache.
fresh_node() {
  stop node
  rm -rf "$work/cache"
  : >"$work/log/node"
  node_config "$1" >"$work/node.yml"
  "$oci_proxy" check -c "$work/node.yml" >/dev/null && start_node
}

# figure NAME prints one of the node's figures for the upstream registry.
figure() {
  curl -sf -m 5 -u "$node_user:$node_password" "http://127.0.0.1:$node_port/_/stats?scope=node" |
    jq -e --arg registry "127.0.0.1:$front_port" ".[\$registry].$1"
}

# at_least FIGURE N reports whether a figure is N or more.
at_least() {
  local value
  value=$(figure "$1") && ((value >= $2))
}

# figures_add_up checks the figures after pulls from upstream and from the cache: the
# node has counted both, and holds what upstream sent.
figures_add_up() {
  local name
  for name in Hits Misses Items CurrentSize; do
    at_least "$name" 1 || { echo "/_/stats shows no $name: $(figure "$name")" && return 1; }
  done
}
