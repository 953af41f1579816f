# shellcheck shell=bash
# An API server of Kubernetes on 127.0.0.1, which has nothing but etcd behind it: no controllers, no
# scheduler. Whoever has its token may do anything there.

mapfile -t ports < <(front ports 3)
etcd_port=${ports[0]} peer_port=${ports[1]} api_port=${ports[2]}
token=$(openssl rand -hex 16)
export KUBECONFIG=$work/kubeconfig HELM_CACHE_HOME=$work/helm HELM_CONFIG_HOME=$work/helm HELM_DATA_HOME=$work/helm

# api METHOD PATH [JSON] asks the API server, and prints its answer. It fails unless that is a success.
api() {
  curl -sS -m 30 --fail-with-body --cacert "$work/certs/apiserver.crt" -H "Authorization: Bearer $token" \
    -H 'Content-Type: application/json' -X "$1" "https://127.0.0.1:$api_port/$2" ${3:+--data-binary "$3"}
}

# serve starts etcd and the API server.
serve() {
  openssl genrsa -out "$work/account.key" 2048 2>/dev/null
  echo "$token,admin,admin,system:masters" >"$work/tokens"
  start etcd etcd --data-dir "$work/etcd" --unsafe-no-fsync --log-level error \
    --listen-client-urls "http://127.0.0.1:$etcd_port" --advertise-client-urls "http://127.0.0.1:$etcd_port" \
    --listen-peer-urls "http://127.0.0.1:$peer_port" --initial-advertise-peer-urls "http://127.0.0.1:$peer_port" \
    --initial-cluster "default=http://127.0.0.1:$peer_port"
  start apiserver kube-apiserver --etcd-servers "http://127.0.0.1:$etcd_port" --cert-dir "$work/certs" \
    --bind-address 127.0.0.1 --secure-port "$api_port" --endpoint-reconciler-type none \
    --service-cluster-ip-range 10.96.0.0/16 --authorization-mode AlwaysAllow --token-auth-file "$work/tokens" \
    --service-account-issuer https://kubernetes.default.svc --service-account-key-file "$work/account.key" \
    --service-account-signing-key-file "$work/account.key"
  within 120 api GET readyz || return
  cat >"$KUBECONFIG" <<END
apiVersion: v1
kind: Config
clusters: [{name: here, cluster: {server: "https://127.0.0.1:$api_port", certificate-authority: "$work/certs/apiserver.crt"}}]
users: [{name: admin, user: {token: "$token"}}]
contexts: [{name: here, context: {cluster: here, user: admin}}]
current-context: here
END
}

# namespace NAME LEVEL makes a namespace that takes pods of a level of Pod Security.
namespace() {
  api POST api/v1/namespaces "$(jq -n --arg name "$1" --arg level "$2" \
    '{metadata: {name: $name, labels: {"pod-security.kubernetes.io/enforce": $level}}}')"
}
