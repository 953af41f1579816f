# shellcheck shell=bash
# The environment of the clients: they see neither this machine's settings nor its
# logins, and requests to other hosts fail on loopback. Needs $work.
mkdir -p "$work/home/.config/containers"
export HOME=$work/home XDG_RUNTIME_DIR=$work/home
export HTTP_PROXY=http://127.0.0.1:9 HTTPS_PROXY=http://127.0.0.1:9 NO_PROXY=127.0.0.1,localhost
export http_proxy=$HTTP_PROXY https_proxy=$HTTPS_PROXY no_proxy=$NO_PROXY
unset DOCKER_HOST DOCKER_CONFIG REGISTRY_AUTH_FILE
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$HOME/.config/containers/policy.json"
