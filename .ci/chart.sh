#!/usr/bin/env bash
# Checks the Helm chart in deploy/chart:
#
#	.ci/chart.sh OCI-PROXY
#
# helm lints it; each switch is rendered both ways, decoded strictly into the types of Kubernetes and
# of the Prometheus operator, and looked at (.ci/chart, a module of its own). Where they are built, it
# is then installed at a real API server (.ci/e2e/kubernetes.sh), and its pods run under a real kubelet
# (.ci/e2e/kubelet.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
OCI_PROXY=$(realpath "$1") HELM=$(command -v helm)
export OCI_PROXY HELM

# With an API server, every switch is tried by that, and once is enough.
skipped='^$'
if command -v kube-apiserver >/dev/null && command -v etcd >/dev/null; then skipped=TestEveryVariant; fi

helm lint --strict deploy/chart/oci-proxy 2>&1 | grep -v 'walk.go' # which tells of links
(
  cd .ci/chart
  go mod tidy -diff
  go vet .
  timeout 300 go test -count=1 -v -skip "$skipped" . 2>&1 | grep -v -e '=== RUN' -e '    --- PASS' -e 'walk.go'
)
.ci/e2e/kubernetes.sh
.ci/e2e/kubelet.sh "$OCI_PROXY"
