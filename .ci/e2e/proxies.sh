#!/usr/bin/env bash
# Pulls through a node that reaches its registry only through a real proxy:
#
#	.ci/e2e/proxies.sh OCI-PROXY
#
# The proxies are tinyproxy, squid as an http and as an https proxy, and microsocks.
# Each asks for a login and leads to a registry over plain http and to one over TLS.
# The registry asks for a token and redirects blobs. The proxy's log must show every
# hop. With a wrong login, or without the proxy, no request may get out.
#
# Needs the programs of install.sh and tools.sh, and the front, in the PATH.
# Everything is on 127.0.0.1 and in one folder, which is removed at the end.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
oci_proxy=$(realpath "$1")

work=$(mktemp -d)
chmod 711 "$work" # the proxies are other users
mkdir -p "$work/log" "$work/proxy" "$work/home"
export HOME=$work/home
requests=$work/requests.jsonl
mapfile -t ports < <(front ports 10)
registry_port=${ports[0]} htpasswd_port=${ports[1]} token_port=${ports[2]} node_port=${ports[3]}
front_port=${ports[4]} cdn_port=${ports[5]}
tinyproxy_port=${ports[6]} squid_port=${ports[7]} squid_tls_port=${ports[8]} socks_port=${ports[9]}
images=(org/app:oci)
proxy_user=out proxy_password=pr0xy-s3cret

# shellcheck source-path=SCRIPTDIR
{
  source "$here/processes.sh"
  source "$here/corpus.sh"
  source "$here/upstreams.sh"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# certificates makes a CA for this run and a certificate for 127.0.0.1.
certificates() {
  (
    cd "$work" || exit
    openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=proxies -keyout ca.key -out ca.pem &&
      openssl req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout tls.key -out tls.csr &&
      openssl x509 -req -in tls.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 1 -out tls.pem \
        -extfile <(echo subjectAltName=IP:127.0.0.1) && cat tls.pem tls.key >proxy/both.pem
  ) 2>"$work/log/certificates"
}

# prepare starts the registries with one image.
prepare() {
  certificates && start_registries || return 1
  layers app 300K 900K 40K
  image "127.0.0.1:$registry_port" org/app:oci app && start_token_registry
}

# start_fronts http|https starts the front of the registry, and the one of the host
# that it redirects blobs to.
start_fronts() {
  local tls=()
  [[ $1 == http ]] || tls=(-cert "$work/tls.pem" -key "$work/tls.key")
  start cdn front -listen "127.0.0.1:$cdn_port" -upstream "http://127.0.0.1:$registry_port" -signed -log "$requests" "${tls[@]}"
  start front front -listen "127.0.0.1:$front_port" -upstream "http://127.0.0.1:$token_port" \
    -redirect "$1://127.0.0.1:$cdn_port" -log "$requests" "${tls[@]}"
  within 30 listens "$front_port" && within 30 listens "$cdn_port"
}

# listens PORT reports whether a process listens there.
listens() { (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Each proxy has a start_NAME. proxy_log prints the requests to it.

start_tinyproxy() {
  : >"$work/proxy/log"
  cat >"$work/tinyproxy.conf" <<END
Port $tinyproxy_port
Listen 127.0.0.1
Timeout 60
Allow 127.0.0.1
BasicAuth $proxy_user $proxy_password
LogFile "$work/proxy/log"
LogLevel Info
END
  start proxy tinyproxy -d -c "$work/tinyproxy.conf"
  within 30 listens "$tinyproxy_port"
}

start_squid() {
  : >"$work/proxy/log"
  htpasswd -bc "$work/proxy/users" "$proxy_user" "$proxy_password" 2>/dev/null
  cat >"$work/squid.conf" <<END
http_port 127.0.0.1:$squid_port
https_port 127.0.0.1:$squid_tls_port tls-cert=$work/proxy/both.pem
auth_param basic program /usr/lib/squid/basic_ncsa_auth $work/proxy/users
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all
cache deny all
access_log stdio:$work/proxy/log
cache_log $work/proxy/cache.log
pid_filename none
coredump_dir $work/proxy
visible_hostname proxies
shutdown_lifetime 0 seconds
END
  if [[ $(id -u) == 0 ]]; then
    chown -R proxy "$work/proxy"
  fi
  start proxy squid -N -f "$work/squid.conf"
  within 30 listens "$squid_tls_port"
}

start_microsocks() {
  : >"$work/log/proxy"
  start proxy microsocks -i 127.0.0.1 -p "$socks_port" -u "$proxy_user" -P "$proxy_password"
  within 30 listens "$socks_port"
}

proxy_log() {
  case $1 in
    microsocks) cat "$work/log/proxy" ;;
    *) cat "$work/proxy/log" ;;
  esac
}

# start_node SCHEME PROXY-URL starts a node with an empty cache.
start_node() {
  local reach=insecure:\ true
  [[ $1 == http ]] || reach=ca_file:\ $work/ca.pem
  stop node
  rm -rf "$work/cache"
  : >"$work/log/node"
  cat >"$work/node.yml" <<END
port: $node_port
address: 127.0.0.1
log_level: debug
default_registry: "127.0.0.1:$front_port"
defaults: {cache_dir: $work/cache}
registries:
  "127.0.0.1:$front_port":
    $reach
    upstream_proxy: "$2"
    auth: {username: $upstream_user, password: $upstream_password}
END
  SSL_CERT_FILE=$work/ca.pem start node "$oci_proxy" serve -c "$work/node.yml"
  within 20 curl -sf -m 5 "http://127.0.0.1:$node_port/_/ready"
}

# pull gets the image from the node.
pull() {
  rm -rf "$work/image"
  timeout 60 crane pull --insecure --format=oci "127.0.0.1:$node_port/org/app:oci" "$work/image" >"$work/log/pull" 2>&1
}

# hops NAME checks that every hop was made and is in the proxy's log.
hops() {
  local port
  jq -es 'any(.[]; .status == 401) and any(.[]; .auth == "Bearer" and .status == 307) and any(.[]; .query // "" | test("X-Signature"))' "$requests" >/dev/null ||
    { echo "the pull took no token and no redirect" && return 1; }
  for port in "$front_port" "$cdn_port"; do
    proxy_log "$1" | finds "127.0.0.1:$port" || { echo "$1 was not asked for port $port" && return 1; }
  done
}

# nothing_out checks that no request reached upstream.
nothing_out() { [[ ! -s $requests ]] || { echo "a request reached upstream without the proxy" && return 1; }; }

# secret_kept checks that the node's log holds no password.
secret_kept() {
  ! grep -E "$proxy_password|$upstream_password|X-Signature" "$work/log/node" | head -n 3 | grep . ||
    { echo "a secret is in the log" && return 1; }
}

# run NAME SCHEME URL runs one proxy with one kind of registry.
run() {
  local name=$1 scheme=$2 url=$3
  : >"$requests"
  start_fronts "$scheme" || { echo "the fronts did not start" && return 1; }
  "start_$name" || { echo "the proxy did not start" && tail -n 5 "$work/log/proxy" && return 1; }
  start_node "$scheme" "${url/LOGIN/$proxy_user:$proxy_password}" || return 1
  pull || { cat "$work/log/pull" && return 1; }
  stop node # squid logs a tunnel when it ends
  hops "$name" && secret_kept || return 1
  : >"$requests"
  start_node "$scheme" "${url/LOGIN/$proxy_user:wrong}" && refused || return 1
  stop proxy
  start_node "$scheme" "${url/LOGIN/$proxy_user:$proxy_password}" && refused
}

# refused checks that the node can't get the manifest, not even without the proxy.
refused() {
  ! curl -sf -m 40 "http://127.0.0.1:$node_port/v2/org/app/manifests/oci" || { echo "the node reached the registry" && return 1; }
  nothing_out && secret_kept
}

prepare >"$work/log/prepare" 2>&1 || {
  echo "the registries could not be started or filled:"
  tail -n 20 "$work/log/prepare" "$work/log/certificates"
  exit 1
}
failed=0
while read -r name url; do
  for scheme in http https; do
    began=$SECONDS outcome=ok
    run "$name" "$scheme" "$url" >"$work/log/run" 2>&1 || outcome=FAILED
    printf '%-11s %-28s registry by %-6s %s %d s\n' "$name" "${url/LOGIN/user:password}" "$scheme" "$outcome" $((SECONDS - began))
    if [[ $outcome == FAILED ]]; then
      failed=$((failed + 1))
      tail -n 20 "$work/log/run"
      tail -n 5 "$work/log/node" | cut -c 1-400
      proxy_log "$name" | tail -n 5
    fi
    for process in node proxy front cdn; do
      stop "$process"
    done
  done
done <<END
tinyproxy http://LOGIN@127.0.0.1:$tinyproxy_port
squid http://LOGIN@127.0.0.1:$squid_port
squid https://LOGIN@127.0.0.1:$squid_tls_port
microsocks socks5://LOGIN@127.0.0.1:$socks_port
microsocks socks5h://LOGIN@127.0.0.1:$socks_port
END
((failed == 0))
