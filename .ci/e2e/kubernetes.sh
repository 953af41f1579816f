#!/usr/bin/env bash
# Installs, upgrades and uninstalls the Helm chart with real helm at a real API server:
#
#	.ci/e2e/kubernetes.sh
#
# The API server (kube-apiserver with Debian's etcd) has no controllers and no kubelet: it takes
# objects, refuses bad ones and keeps them, and no pod runs. It validates what every switch of the
# chart makes, and its admission says which pods which kind of namespace takes. Then the chart is
# installed from a package, upgraded, changed from one kind to the other, rolled back and
# uninstalled: the secret of the mesh must stay the same, and nothing be left.
#
# Skipped where kube-apiserver is not built: `.ci/tools.sh kube-apiserver` does that, once, in some
# minutes. Needs etcd, curl, jq, openssl, helm and the front in the PATH. For what every switch makes
# it needs OCI_PROXY and HELM, as .ci/chart.sh sets them. Everything is on 127.0.0.1 and in one
# folder, which is removed at the end.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
chart=$here/../../deploy/chart/oci-proxy

for program in kube-apiserver etcd; do
  if ! command -v "$program" >/dev/null; then
    echo "kubernetes: skipped, $program is not there: .ci/tools.sh kube-apiserver builds the one, Debian's etcd-server has the other"
    exit 0
  fi
done

work=$(mktemp -d)
mkdir -p "$work/log"

# shellcheck source-path=SCRIPTDIR
{
  source "$here/processes.sh"
  source "$here/checks.sh"
  source "$here/apiserver.sh"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# define KIND PLURAL makes the API server take a kind of the Prometheus operator. What is in it is
# checked by the operator's own types (.ci/chart).
define() {
  api POST apis/apiextensions.k8s.io/v1/customresourcedefinitions "$(jq -n --arg kind "$1" --arg plural "$2" '{
    apiVersion: "apiextensions.k8s.io/v1", kind: "CustomResourceDefinition", metadata: {name: ($plural + ".monitoring.coreos.com")},
    spec: {group: "monitoring.coreos.com", scope: "Namespaced", names: {kind: $kind, plural: $plural},
      versions: [{name: "v1", served: true, storage: true, schema: {openAPIV3Schema: {type: "object", "x-kubernetes-preserve-unknown-fields": true}}}]}}')" &&
    within 20 api GET "apis/monitoring.coreos.com/v1/$2"
}

# surroundings makes what a cluster has.
surroundings() {
  define ServiceMonitor servicemonitors && define PrometheusRule prometheusrules &&
    namespace images privileged && namespace restricted restricted && namespace baseline baseline
}

# every_switch makes the API server look at what each switch of the chart makes.
every_switch() {
  (
    cd "$here/../chart" || exit
    KUBE_SERVER=https://127.0.0.1:$api_port KUBE_TOKEN=$token KUBE_CA=$work/certs/apiserver.crt \
      timeout 300 go test -count=1 -v -run TestEveryVariant .
  ) >"$work/log/variants" 2>&1
  local status=$?
  seen=$(grep -o '[0-9]* variants, .*' "$work/log/variants")
  [[ $status == 0 && $seen == *true ]] && return
  grep -v -e '--- PASS' -e '=== RUN' "$work/log/variants"
  return 1
}

# all_on is the chart with everything that it can make.
all_on=(--set 'networkPolicy.enabled=true,serviceMonitor.enabled=true,prometheusRule.enabled=true,dashboard.enabled=true'
  --set 'containerd.setup=true,containerd.proxy=http://proxy.example:5000,service.type=NodePort')

# release ACTION… runs helm on the release.
release() { timeout 120 helm -n images "$@" && echo "done: $1"; }

# secret prints the mesh's secret, as the API server has it.
secret() { api GET api/v1/namespaces/images/secrets/mesh-oci-proxy-cluster | jq -re .data.secret; }

# install installs the chart from its package.
install() {
  helm package "$chart" --version 1.2.3 --app-version 1.2.3 -d "$work/package" &&
    release install mesh "$work/package/oci-proxy-1.2.3.tgz" --set kind=StatefulSet "${all_on[@]}" || return
  first=$(secret) || return
  local image
  image=$(api GET apis/apps/v1/namespaces/images/statefulsets/mesh-oci-proxy | jq -r '.spec.template.spec.containers[0].image')
  ((${#first} > 60)) && [[ $image == oci-proxy:1.2.3 ]] && packaged && seen="$(owned | wc -l) objects"
}

# packaged: the package has the alerts and the dashboard themselves, not links to them.
packaged() {
  api GET apis/monitoring.coreos.com/v1/namespaces/images/prometheusrules/mesh-oci-proxy | jq -e '.spec.groups[0].rules | length > 10' &&
    api GET api/v1/namespaces/images/configmaps/mesh-oci-proxy-dashboard | jq -e '.data[] | fromjson.panels | length > 5'
}

# owned prints all objects of the release.
owned() {
  local path
  for path in api/v1/namespaces/images/{secrets,services,configmaps,serviceaccounts,pods} \
    apis/apps/v1/namespaces/images/{daemonsets,statefulsets} apis/policy/v1/namespaces/images/poddisruptionbudgets \
    apis/networking.k8s.io/v1/namespaces/images/networkpolicies \
    apis/monitoring.coreos.com/v1/namespaces/images/{servicemonitors,prometheusrules}; do
    api GET "$path" | jq -r '.kind as $kind | .items[] | "\($kind) \(.metadata.name)"' || echo "$path cannot be read"
  done
}

# kept WHAT fails unless the secret is the one of the first install.
kept() { [[ $(secret) == "$first" ]] || { echo "the secret changed: $1" && false; }; }

# upgrade changes the config: the pods' template must change with it, the secret not.
upgrade() {
  local before after
  before=$(template_of statefulsets)
  release upgrade mesh "$chart" --reset-then-reuse-values --set config.log_level=debug || return
  after=$(template_of statefulsets)
  kept upgrade && [[ $before != "$after" ]] &&
    api GET api/v1/namespaces/images/secrets/mesh-oci-proxy-config | jq -r '.data["config.yaml"]' | base64 -d | finds 'log_level: debug'
}

# template_of KIND prints what tells the pods' config.
template_of() { api GET "apis/apps/v1/namespaces/images/$1/mesh-oci-proxy" | jq -re '.spec.template.metadata.annotations["checksum/config"]'; }

# change makes a DaemonSet of the StatefulSet.
change() {
  release upgrade mesh "$chart" --reset-then-reuse-values --set kind=DaemonSet --set containerd.proxy= && kept change &&
    template_of daemonsets && ! owned | grep -e StatefulSet -e PodDisruptionBudget
}

# back goes back to the first install.
back() { release rollback mesh 1 && kept rollback && template_of statefulsets && ! owned | grep 'DaemonSetList mesh-oci-proxy$'; }

# uninstall leaves nothing.
uninstall() {
  release uninstall mesh || return
  local left
  left=$(owned)
  [[ -z $left ]] || { echo "left: $left" && false; }
}

# ours: a secret of the operator's is used, and outlives the release.
ours() {
  api POST api/v1/namespaces/images/secrets '{"metadata":{"name":"ours"},"stringData":{"secret":"0123456789abcdef0123456789abcdef"}}' >/dev/null &&
    release install mesh "$chart" --set clusterSecret.existingSecret=ours || return
  [[ $(owned | grep -c SecretList) == 3 ]] || { owned && return 1; } # ours, the config, helm's own
  release uninstall mesh && [[ $(owned) == "SecretList ours" ]] && api DELETE api/v1/namespaces/images/secrets/ours
}

# refused: values that the schema does not know never reach the server.
refused() { ! release install mesh "$chart" --set replicas=3 && [[ -z $(owned) ]]; }

# pod NAMESPACE [VALUES…] asks whether a namespace takes the pods of a node.
pod() {
  local in=$1 made
  shift
  timeout 60 helm install mesh "$chart" -n "$in" "$@" || return
  made=$(for kind in daemonsets statefulsets; do api GET "apis/apps/v1/namespaces/$in/$kind" | jq '.items[]'; done |
    jq -s '.[0].spec | {apiVersion: "v1", kind: "Pod", metadata: (.template.metadata + {name: "node"}),
      spec: (.template.spec + {volumes: (.template.spec.volumes + [.volumeClaimTemplates // [] | .[] | {name: .metadata.name, emptyDir: {}}])})}')
  api POST "api/v1/namespaces/$in/pods?dryRun=All" "$made" >"$work/log/pod-$in"
  local status=$?
  jq -r '.message // empty' "$work/log/pod-$in"
  timeout 60 helm uninstall mesh -n "$in" && return $status
}

# levels: a StatefulSet's pods ask for nothing that the strictest namespaces refuse; those of a
# DaemonSet need the machine's port.
levels() {
  pod restricted --set kind=StatefulSet && pod images && ! pod baseline --set daemonSet.hostPath= && grep -q hostPort "$work/log/pod-baseline"
}

evidence() { tail -n 5 "$work/log/apiserver" "$work/log/etcd"; }

check "an API server runs" serve || { finish && exit; exit 1; }
check "it has what clusters have" surroundings
check "it takes what every switch makes" every_switch
check "a package is installed" install
check "an upgrade changes the config and keeps the secret" upgrade
check "a StatefulSet becomes a DaemonSet" change
check "a rollback" back
check "uninstalled: nothing is left" uninstall
check "a secret of one's own" ours
check "unknown values are refused" refused
check "which namespaces take the pods" levels
finish
