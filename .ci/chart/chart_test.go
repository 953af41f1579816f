package chart

import (
	"os"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// helm returns what renders the chart. .ci/chart.sh says where helm is.
func helm(t *testing.T) renderer {
	t.Helper()
	return renderer{helm: needed(t, "HELM"), chart: "../../deploy/chart/oci-proxy", scratch: t.TempDir()}
}

// needed returns a variable that .ci/chart.sh sets.
func needed(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Skip(name + " is not set: run .ci/chart.sh")
	}
	return value
}

// made renders a variant and decodes it.
func made(t *testing.T, r renderer, v variant) *world {
	t.Helper()
	text, err := r.render(t.Context(), v)
	if err != nil {
		t.Fatal(err)
	}
	w, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestEveryVariant: what each switch makes is known to Kubernetes' types and holds together, and the
// node takes its config.
func TestEveryVariant(t *testing.T) {
	r, program := helm(t), needed(t, "OCI_PROXY")
	api := running(t)
	objects := 0
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			w := made(t, r, v)
			if err := w.check(); err != nil {
				t.Error(err)
			}
			if err := w.checkConfig(t.Context(), program, r.scratch); err != nil {
				t.Error(err)
			}
			checkPolicy(t, w)
			objects += len(w.documents)
			if api != nil {
				if err := api.tryAll(t.Context(), w.documents); err != nil {
					t.Errorf("the API server refuses it: %v", err)
				}
			}
		})
	}
	t.Logf("%d variants, %d objects; tried by an API server: %t", len(variants()), objects, api != nil)
}

// running returns the API server that .ci/e2e/kubernetes.sh started, or nil.
func running(t *testing.T) *server {
	t.Helper()
	address := os.Getenv("KUBE_SERVER")
	if address == "" {
		return nil
	}
	ca, err := os.ReadFile(os.Getenv("KUBE_CA"))
	if err != nil {
		t.Fatal(err)
	}
	api, err := serverAt(address, os.Getenv("KUBE_TOKEN"), ca)
	if err != nil {
		t.Fatal(err)
	}
	return api
}

// checkPolicy plays callers against the policies: members come in and go out, others reach the
// clients' port at most.
func checkPolicy(t *testing.T, w *world) {
	t.Helper()
	member, other := caller(w.node().pod.Labels), caller{"app": "other"}
	cfg, err := w.config()
	if err != nil {
		t.Fatal(err)
	}
	narrow := len(w.policies) > 0 && len(w.policies[0].Spec.Ingress[0].From) > 0
	for _, c := range []struct {
		who      caller
		port     int32
		protocol corev1.Protocol
		want     bool
	}{
		{member, 7946, "TCP", true},
		{member, 7946, "UDP", true},
		{member, 7947, "TCP", true},
		{other, 7946, "TCP", false},
		{other, 7946, "UDP", false},
		{other, 7947, "TCP", false},
		{nil, 7947, "TCP", false},
		{other, cfg.Port, "TCP", !narrow},
		{nil, cfg.Port, "TCP", !narrow},
		{other, 22, "TCP", false},
	} {
		if in := w.lets(c.who, c.port, c.protocol); in != (c.want || len(w.policies) == 0) {
			t.Errorf("%v reaches port %d (%s): %t", c.who, c.port, c.protocol, in)
		}
	}
	for _, c := range []struct {
		port     int32
		protocol corev1.Protocol
	}{{7946, "TCP"}, {7946, "UDP"}, {7947, "TCP"}} {
		if !w.goes(member, c.port, c.protocol) {
			t.Errorf("a member cannot ask another at port %d (%s)", c.port, c.protocol)
		}
	}
	if !w.goes(nil, 53, "UDP") || !w.goes(nil, 53, "TCP") {
		t.Error("a member cannot ask the DNS")
	}
}

// TestBadValues: a mistake in values is refused, and the place named.
func TestBadValues(t *testing.T) {
	r := helm(t)
	for _, b := range bad {
		_, err := r.render(t.Context(), variant{values: []string{b.values}})
		if err == nil || !strings.Contains(err.Error(), b.says) {
			t.Errorf("%s: %v; want an error about %s", b.values, err, b.says)
		}
	}
}

// TestAlertsAreTheOnes: the chart's rules are those of deploy/alerts.yaml, about the job that the
// monitor names.
func TestAlertsAreTheOnes(t *testing.T) {
	w := made(t, helm(t), variant{values: []string{`prometheusRule: {enabled: true}`}})
	text, err := os.ReadFile("../../deploy/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var want monitoringv1.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict([]byte(strings.ReplaceAll(string(text), `job="oci-proxy"`, `job="mesh-oci-proxy"`)), &want); err != nil {
		t.Fatal(err)
	}
	a, _ := yaml.Marshal(want)
	b, _ := yaml.Marshal(w.rules[0].Spec)
	if string(a) != string(b) || len(want.Groups) == 0 {
		t.Errorf("the rules are\n%s\nwant\n%s", b, a)
	}
}

// TestDashboardIsTheOne: byte by byte.
func TestDashboardIsTheOne(t *testing.T) {
	w := made(t, helm(t), variant{values: []string{`dashboard: {enabled: true}`}})
	want, err := os.ReadFile("../../deploy/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(w.maps) != 1 || w.maps[0].Data["mesh-oci-proxy.json"] != string(want) {
		t.Error("the dashboard is not deploy/grafana.json")
	}
}

// TestRulesCanFail: each rule sees the mistake that it is there for.
func TestRulesCanFail(t *testing.T) {
	r := helm(t)
	everything := variant{values: []string{`{kind: StatefulSet, serviceMonitor: {enabled: true}, networkPolicy: {enabled: true}, containerd: {setup: true, proxy: "http://proxy.example:5000"}}`}}
	text, err := r.render(t.Context(), everything)
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	for says, spoil := range map[string]func(*world){
		"does not match its pods":     func(w *world) { w.node().pod.Labels["app.kubernetes.io/component"] = "x" },
		"gives a token":               func(w *world) { w.accounts[0].AutomountServiceAccountToken = &yes },
		"which is no volume":          func(w *world) { w.workloads[1].claims = nil },
		"nothing mounts the volume":   func(w *world) { w.node().pod.Spec.Containers[0].VolumeMounts = nil },
		"no Secret":                   func(w *world) { delete(w.secrets, "mesh-oci-proxy-cluster") },
		"it keeps capabilities":       func(w *world) { w.node().pod.Spec.Containers[0].SecurityContext.Capabilities.Drop = nil },
		"its root is not read-only":   func(w *world) { w.node().pod.Spec.Containers[0].SecurityContext.ReadOnlyRootFilesystem = nil },
		"2 images":                    func(w *world) { w.node().pod.Spec.Containers[0].Image = "x" },
		"port http is":                func(w *world) { w.node().pod.Spec.Containers[0].Ports[0].ContainerPort = 1 },
		"port gossip-udp is":          func(w *world) { w.node().pod.Spec.Containers[0].Ports[2].Protocol = "TCP" },
		"the readiness probe":         func(w *world) { w.node().pod.Spec.Containers[0].ReadinessProbe.HTTPGet.Port = intstr.FromInt32(80) },
		"a pod is killed after":       func(w *world) { *w.node().pod.Spec.TerminationGracePeriodSeconds = 30 },
		"no node has the port":        func(w *world) { w.services[0].Spec.Ports[0].TargetPort = intstr.FromString("x") },
		"leads to the pods of":        func(w *world) { delete(w.services[0].Spec.Selector, "app.kubernetes.io/component") },
		"the seeds are not all nodes": func(w *world) { w.services[1].Spec.PublishNotReadyAddresses = false },
		"no headless Service":         func(w *world) { w.services[1].Spec.ClusterIP = "" },
		"selects no pods":             func(w *world) { w.budgets[0].Spec.Selector.MatchLabels["app.kubernetes.io/name"] = "x" },
		"finds 0 Services":            func(w *world) { w.monitors[0].Spec.Selector.MatchLabels["app.kubernetes.io/name"] = "x" },
		"has no port":                 func(w *world) { w.monitors[0].Spec.Endpoints[0].Port = "x" },
		"its job is not":              func(w *world) { w.monitors[0].Spec.Endpoints[0].RelabelConfigs = nil },
		"containerd is set back":      func(w *world) { w.workloads[0].pod.Spec.Containers[0].Lifecycle.PreStop.Exec.Command = nil },
		"no Service is the seed":      func(w *world) { w.services[1].Name = "x" },
		"it is in the machine's":      func(w *world) { w.node().pod.Spec.HostNetwork = true },
	} {
		w, err := decode(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.check(); err != nil {
			t.Fatal(err)
		}
		spoil(w)
		if err := w.check(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("a rule says %v, want %q", err, says)
		}
	}
}

// TestDecodingIsStrict: what Kubernetes would drop or misread is an error here.
func TestDecodingIsStrict(t *testing.T) {
	for name, text := range map[string]string{
		"unknown":      "replica: 1",
		"other case":   "Replicas: 1",
		"twice":        "replicas: 1, replicas: 2",
		"another type": "replicas: one",
	} {
		_, err := decode([]byte("apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: a, namespace: images}\nspec: {" + text + "}\n"))
		if err == nil {
			t.Errorf("%s: %q is taken", name, text)
		}
	}
	if _, err := kjson.UnmarshalStrict([]byte(`{}`), &struct{}{}); err != nil {
		t.Error(err)
	}
}
