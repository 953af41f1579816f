#!/usr/bin/env bash
# Runs the Helm chart's pods with a real kubelet and a real containerd, as a DaemonSet would on one
# machine:
#
#	.ci/e2e/kubelet.sh OCI-PROXY
#
# The chart is installed at a real API server with containerd.setup. No controller runs, so the run
# itself makes the pods of both DaemonSets, from the templates that the API server has. The node must
# become ready at the host port, containerd be pointed at it, and a pod's image of a registry that
# only the proxy can reach come through it: also once the registry is gone. When the pods end,
# containerd must be as before.
#
# All of it is in namespaces of its own (mounts, network, processes), with folders of its own laid over
# /etc, /var/log and /run: nothing of the machine is changed. Skipped where kubelet and kube-apiserver
# are not built (`.ci/tools.sh kube-apiserver kubelet`, once, in some minutes), or where namespaces are
# not allowed. Needs root, containerd, runc, ip, iptables, the CNI plugins in /usr/lib/cni, etcd,
# registry, crane, helm, curl, jq, openssl and the front.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
chart=$here/../../deploy/chart/oci-proxy
oci_proxy=$(realpath "$1")

for program in kube-apiserver kubelet etcd containerd runc iptables /usr/lib/cni/portmap; do
  if ! command -v "$program" >/dev/null; then
    echo "kubelet: skipped, $program is not there: .ci/tools.sh kube-apiserver kubelet builds Kubernetes', Debian has the others"
    exit 0
  fi
done
if [[ ${2:-} != inside ]]; then
  if ! unshare --mount --net --pid --fork --mount-proc true 2>/dev/null; then
    echo "kubelet: skipped, it needs root and namespaces"
    exit 0
  fi
  exec unshare --mount --net --pid --fork --mount-proc --kill-child "$0" "$oci_proxy" inside
fi

work=$(mktemp -d)
mkdir -p "$work"/{log,image/usr/bin,cache,kubelet,cni,etc,etc-work}
uplink=10.77.0.1 registry_port=5001
mount --make-rprivate / && ip link set lo up

# shellcheck source-path=SCRIPTDIR
{
  source "$here/processes.sh"
  source "$here/checks.sh"
  source "$here/apiserver.sh"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# machine makes the surroundings of a machine: a way out, and folders over those of this one.
machine() {
  ip link add uplink type bridge && ip addr add "$uplink/24" dev uplink && ip link set uplink up &&
    ip route add default via "$uplink" && echo 1 >/proc/sys/net/ipv4/ip_forward || return
  mount -t overlay overlay -o "lowerdir=/etc,upperdir=$work/etc,workdir=$work/etc-work" /etc &&
    mount -t tmpfs tmpfs /var/log && mount -t tmpfs tmpfs /run || return
  mkdir -p /run/netns && rm -rf /etc/containerd && mkdir -p /etc/containerd && : >/etc/resolv.conf
  cat >"$work/cni/pods.conflist" <<END
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "$work/ipam", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
END
  cat >/etc/containerd/config.toml <<END
version = 2
root = "$work/containerd"
state = "/run/containerd"
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/library/pause:run"
# Not every machine lets root ask to be spared when memory is short.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$work/cni"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "/etc/containerd/certs.d"
END
  start containerd containerd -c /etc/containerd/config.toml && within 30 ctr version
}

# pack IMAGE ARGUMENT… makes an image of the program as $work/NAME.tar, in docker's form.
pack() {
  local name=$1 config
  shift
  [[ -e $work/layer.tar ]] || {
    mkdir -p "$work/image/etc/ssl/certs" && cp "$oci_proxy" "$work/image/usr/bin/oci-proxy" && tar -C "$work/image" -cf "$work/layer.tar" .
  } || return
  config=$(jq -nc --arg sum "sha256:$(sha256sum "$work/layer.tar" | cut -d ' ' -f 1)" '{os: "linux", architecture: "amd64",
    rootfs: {type: "layers", diff_ids: [$sum]}, config: {Entrypoint: ["/usr/bin/oci-proxy"], Cmd: $ARGS.positional, User: "65532:65532", Env: ["XDG_CACHE_HOME=/var/lib"]}}' --args "$@")
  echo "$config" >"$work/config.json"
  jq -nc --arg name "$name" '[{Config: "config.json", RepoTags: [$name], Layers: ["layer.tar"]}]' >"$work/manifest.json"
  tar -C "$work" -cf "$work/$(basename "${name%:*}").tar" config.json manifest.json layer.tar
}

# images brings what no registry has to the machine, as operators do, and fills the registry.
images() {
  pack docker.io/library/pause:run hold && pack docker.io/library/oci-proxy:run serve || return
  # A layer of its own, or containerd would have it already.
  rm "$work/layer.tar" && echo app >"$work/image/app" && pack docker.io/team/app:1 hold &&
    ctr -n k8s.io images import "$work/pause.tar" && ctr -n k8s.io images import "$work/oci-proxy.tar" || return
  mkdir -p "$work/registry"
  cat >"$work/registry.yml" <<END
version: 0.1
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: "$uplink:$registry_port"}
END
  start registry registry serve "$work/registry.yml"
  within 30 curl -sf "http://$uplink:$registry_port/v2/" && crane push --insecure "$work/app.tar" "$uplink:$registry_port/team/app:1"
}

# join starts the kubelet, as the machine "machine".
join() {
  cat >"$work/kubelet.yml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
evictionHard: {memory.available: 0%, nodefs.available: 0%, imagefs.available: 0%, nodefs.inodesFree: 0%}
imageGCHighThresholdPercent: 100
resolvConf: /etc/resolv.conf
syncFrequency: 5s
END
  start kubelet kubelet --config "$work/kubelet.yml" --kubeconfig "$KUBECONFIG" --root-dir "$work/kubelet" \
    --cert-dir "$work/kubelet/pki" --hostname-override machine --node-ip "$uplink"
  within 60 node_ready
}

node_ready() { api GET api/v1/nodes/machine | jq -e '.status.conditions[] | select(.type == "Ready").status == "True"'; }

# install installs the chart, and makes the pods that its DaemonSets would have here.
install() {
  namespace images privileged && cat >"$work/values.yml" <<END || return
image: {tag: run}
daemonSet: {hostPath: $work/cache/shard}
containerd: {setup: true}
config:
  registries:
    registry.test: {mirrors: [{host: "$uplink:$registry_port", tags: true}]}
    "$uplink:$registry_port": {insecure: true}
END
  timeout 60 helm -n images install mesh "$chart" -f "$work/values.yml" && api POST api/v1/namespaces/images/serviceaccounts '{"metadata":{"name":"default"}}' || return
  daemon mesh-oci-proxy && daemon mesh-oci-proxy-containerd || return
  within 90 ready mesh-oci-proxy && within 60 ready mesh-oci-proxy-containerd
}

# daemon NAME makes the pod of a DaemonSet.
daemon() {
  local pod
  pod=$(api GET "apis/apps/v1/namespaces/images/daemonsets/$1" | jq --arg name "$1" '.spec.template | {apiVersion: "v1", kind: "Pod",
    metadata: (.metadata + {name: $name}), spec: (.spec + {nodeName: "machine", tolerations: [{operator: "Exists"}]})}') &&
    api POST api/v1/namespaces/images/pods "$pod"
}

# ready POD reports whether a pod is ready.
ready() { api GET "api/v1/namespaces/images/pods/$1" | jq -e '.status.conditions[]? | select(.type == "Ready").status == "True"'; }

# gone POD reports whether there is no such pod.
gone() { ! api GET "api/v1/namespaces/images/pods/$1"; }

# app NAME runs a pod of the image that only the proxy can reach.
app() {
  api POST api/v1/namespaces/images/pods '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"'"$1"'"},"spec":{"nodeName":"machine",
    "automountServiceAccountToken":false,"tolerations":[{"operator":"Exists"}],
    "containers":[{"name":"app","image":"registry.test/team/app:1","imagePullPolicy":"Always"}]}}' && within 90 ready "$1"
}

# counted FIELD prints a figure of the registry, as the node counts it.
counted() { curl -sf http://127.0.0.1:5000/_/stats | jq -e --arg field "$1" '.["registry.test"][$field]'; }

# owner: the node's folder is user 65532's alone, and the node works in it.
owner() { seen=$(stat -c '%u:%g %a' "$work/cache/shard") && [[ $seen == '65532:65532 700' && -d $work/cache/shard/cache ]]; }

# pointed: containerd has the node for all registries.
pointed() { grep -r 'http://127.0.0.1:5000' /etc/containerd/certs.d; }

# first: a pod's image comes through the node.
first() { app first && (($(counted Misses) > 0)) && seen="$(counted Misses) blobs of registry.test by the node"; }

# again: also when the registry is gone and containerd has forgotten the image.
again() {
  stop registry
  remove first && forget && app again && (($(counted Hits) > 0)) && seen="$(counted Hits) from its disk"
}

# forget removes the image from containerd, under all the names that the kubelet gave it.
forget() {
  local digest names
  digest=$(ctr -n k8s.io images ls | awk '$1 == "registry.test/team/app:1" { print $3 }') && [[ -n $digest ]] || return
  mapfile -t names < <(ctr -n k8s.io images ls | awk -v digest="$digest" '$3 == digest { print $1 }')
  ctr -n k8s.io images rm --sync "${names[@]}"
}

# remove POD ends a pod as Kubernetes does.
remove() { api DELETE "api/v1/namespaces/images/pods/$1" && within 60 gone "$1"; }

# back: when its pod ends, containerd is as before.
back() { remove mesh-oci-proxy-containerd && ! grep -r 127.0.0.1:5000 /etc/containerd; }

# away: the node drains and ends by itself, before its time is over.
away() {
  local began=$SECONDS
  remove again
  remove mesh-oci-proxy && ((SECONDS - began < 60)) && [[ -d $work/cache/shard/cache ]]
}

evidence() {
  tail -n 5 "$work/log"/{kubelet,containerd}
  api GET api/v1/namespaces/images/pods | jq -c '.items[] | [.metadata.name, .status.phase, (.status.initContainerStatuses, .status.containerStatuses | .[]? | [.name, .state])]'
  tail -n 8 /var/log/pods/*/*/*.log
}

check "a machine with containerd" machine || { finish && exit; exit 1; }
check "the images are there" images
check "an API server runs" serve
check "a kubelet runs its machine" join
check "the chart's pods run" install
check "the folder is the node's" owner
check "containerd is pointed at the host port" pointed
check "a pod's image comes through it" first
check "the registry is gone" again
check "containerd is as before" back
check "the node ends" away
finish
