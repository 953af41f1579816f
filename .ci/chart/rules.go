package chart

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// check looks for what no type can tell.
func (w *world) check() error {
	var all []error
	for _, rule := range []func() []error{
		w.checkWorkloads, w.checkServices, w.checkBudgets, w.checkMonitoring,
	} {
		all = append(all, rule()...)
	}
	return errors.Join(all...)
}

// node returns the workload whose pods are nodes of the mesh.
func (w *world) node() workload {
	i := slices.IndexFunc(w.workloads, func(l workload) bool { return !strings.HasSuffix(l.name, "-containerd") })
	return w.workloads[i]
}

// matches reports whether a selector that is not empty takes these labels.
func matches(selector, of map[string]string) bool {
	return len(selector) > 0 && labels.SelectorFromSet(selector).Matches(labels.Set(of))
}

// checkWorkloads looks at what makes pods.
func (w *world) checkWorkloads() (wrong []error) {
	images := map[string]bool{}
	for _, l := range w.workloads {
		say := func(format string, args ...any) {
			wrong = append(wrong, fmt.Errorf("%s %s: "+format, append([]any{l.kind, l.name}, args...)...))
		}
		if !matches(l.selector, l.pod.Labels) {
			say("its selector %v does not match its pods", l.selector)
		}
		if account := l.pod.Spec.ServiceAccountName; !w.accountWithoutToken(account) || l.pod.Spec.AutomountServiceAccountToken == nil || *l.pod.Spec.AutomountServiceAccountToken {
			say("its account %q is missing or gives a token", account)
		}
		for _, v := range w.unmounted(l) {
			say("%s", v)
		}
		for _, c := range containers(l) {
			images[c.Image] = true
			for _, v := range unsafe(l, c) {
				say("container %s: %s", c.Name, v)
			}
		}
	}
	if len(images) != 1 {
		wrong = append(wrong, fmt.Errorf("the pods use %d images, want 1", len(images)))
	}
	return append(append(wrong, w.checkNode()...), w.checkSets()...)
}

func (w *world) accountWithoutToken(name string) bool {
	return slices.ContainsFunc(w.accounts, func(a *corev1.ServiceAccount) bool {
		return a.Name == name && a.AutomountServiceAccountToken != nil && !*a.AutomountServiceAccountToken
	})
}

func containers(l workload) []corev1.Container {
	return slices.Concat(l.pod.Spec.InitContainers, l.pod.Spec.Containers)
}

// unmounted returns mounts without a volume, volumes without a mount, and volumes of Secrets that
// nobody makes.
func (w *world) unmounted(l workload) (wrong []string) {
	volumes, mounted := map[string]bool{}, map[string]bool{}
	for _, v := range l.pod.Spec.Volumes {
		volumes[v.Name] = true
		if v.Secret == nil || v.Secret.SecretName == "ours" || v.Secret.SecretName == "tls" {
			continue // ours and tls are the operator's
		}
		for _, item := range v.Secret.Items {
			if s := w.secrets[v.Secret.SecretName]; s == nil || len(s.Data[item.Key]) == 0 {
				wrong = append(wrong, fmt.Sprintf("no Secret %s with the key %s", v.Secret.SecretName, item.Key))
			}
		}
		if w.secrets[v.Secret.SecretName] == nil {
			wrong = append(wrong, "no Secret "+v.Secret.SecretName)
		}
	}
	for _, c := range l.claims {
		volumes[c.Name] = true
	}
	for _, c := range containers(l) {
		for _, m := range c.VolumeMounts {
			mounted[m.Name] = true
			if !volumes[m.Name] {
				wrong = append(wrong, fmt.Sprintf("container %s mounts %s, which is no volume", c.Name, m.Name))
			}
		}
	}
	for name := range volumes {
		if !mounted[name] {
			wrong = append(wrong, "nothing mounts the volume "+name)
		}
	}
	return wrong
}

// unsafe returns which rights a container has that it does not need.
func unsafe(l workload, c corev1.Container) (wrong []string) {
	pod, own := l.pod.Spec.SecurityContext, c.SecurityContext
	if pod == nil || own == nil || own.Capabilities == nil {
		return []string{"no security context"}
	}
	want := func(ok bool, what string) {
		if !ok {
			wrong = append(wrong, what)
		}
	}
	want(own.AllowPrivilegeEscalation != nil && !*own.AllowPrivilegeEscalation, "it may gain rights")
	want(own.ReadOnlyRootFilesystem != nil && *own.ReadOnlyRootFilesystem, "its root is not read-only")
	want(slices.Equal(own.Capabilities.Drop, []corev1.Capability{"ALL"}), "it keeps capabilities")
	want(len(own.Capabilities.Add) == 0 || c.Name == "own" && slices.Equal(own.Capabilities.Add, []corev1.Capability{"CHOWN"}), "it gets capabilities")
	want(pod.SeccompProfile != nil && pod.SeccompProfile.Type == corev1.SeccompProfileTypeRuntimeDefault, "no seccomp profile")
	want(!l.pod.Spec.HostNetwork && !l.pod.Spec.HostPID && !l.pod.Spec.HostIPC, "it is in the machine's namespaces")
	if c.Name == "oci-proxy" {
		want(pod.RunAsUser != nil && *pod.RunAsUser == 65532 && own.RunAsUser == nil && pod.RunAsNonRoot != nil && *pod.RunAsNonRoot, "it is not user 65532")
	}
	return wrong
}

// checkNode looks at the pods of the mesh: their ports and how they end.
func (w *world) checkNode() (wrong []error) {
	n := w.node()
	c := n.pod.Spec.Containers[0]
	ports := map[string]corev1.ContainerPort{}
	for _, p := range c.Ports {
		ports[p.Name] = p
		if (p.HostPort != 0) != (p.Name == "http" && n.kind == "DaemonSet") {
			wrong = append(wrong, fmt.Errorf("port %s is the machine's %d", p.Name, p.HostPort))
		}
	}
	cfg, err := w.config()
	if err != nil {
		return append(wrong, err)
	}
	for name, want := range map[string]corev1.ContainerPort{
		"http": {ContainerPort: cfg.Port}, "gossip": {ContainerPort: 7946, Protocol: "TCP"},
		"gossip-udp": {ContainerPort: 7946, Protocol: "UDP"}, "peers": {ContainerPort: 7947, Protocol: "TCP"},
	} {
		if p := ports[name]; p.ContainerPort != want.ContainerPort || p.Protocol != want.Protocol {
			wrong = append(wrong, fmt.Errorf("port %s is %v", name, p))
		}
	}
	for what, p := range map[string]*corev1.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
		if p == nil || p.HTTPGet == nil || p.HTTPGet.Port != intstr.FromString("http") || (p.HTTPGet.Scheme == "HTTPS") != cfg.speaksTLS() {
			wrong = append(wrong, fmt.Errorf("the %s probe asks for another port or scheme", what))
		}
	}
	if c.Lifecycle == nil || c.Lifecycle.PreStop == nil || c.Lifecycle.PreStop.Sleep == nil || n.pod.Spec.TerminationGracePeriodSeconds == nil {
		return append(wrong, errors.New("a node ends without a pause"))
	}
	if grace := *n.pod.Spec.TerminationGracePeriodSeconds; grace < cfg.drain()+c.Lifecycle.PreStop.Sleep.Seconds+5 {
		wrong = append(wrong, fmt.Errorf("a pod is killed after %d s, and may drain for %d", grace, cfg.drain()))
	}
	return append(wrong, w.checkContainerd(c)...)
}

// checkContainerd looks at where the machines' containerd is led: to the host port, if there is one.
func (w *world) checkContainerd(node corev1.Container) (wrong []error) {
	for _, l := range w.workloads {
		if !strings.HasSuffix(l.name, "-containerd") {
			continue
		}
		args := l.pod.Spec.InitContainers[0].Args
		undo := l.pod.Spec.Containers[0].Lifecycle.PreStop.Exec.Command
		port := "-proxy=http://" + net.JoinHostPort(cmp.Or(node.Ports[0].HostIP, "127.0.0.1"), strconv.Itoa(int(node.Ports[0].HostPort)))
		if !slices.Contains(args, "-write") || !slices.Contains(args, port) && !slices.Contains(args, "-proxy=http://proxy.example:5000") {
			wrong = append(wrong, fmt.Errorf("containerd is set up by %q", args))
		}
		if !slices.Contains(undo, "-undo") || !slices.Contains(args, "-root=/host") || !slices.Contains(undo, "-root=/host") {
			wrong = append(wrong, fmt.Errorf("containerd is set back by %q", undo))
		}
	}
	return wrong
}

// checkSets: a StatefulSet's Service has no address of its own.
func (w *world) checkSets() (wrong []error) {
	for _, s := range w.sets {
		if !slices.ContainsFunc(w.services, func(v *corev1.Service) bool {
			return v.Name == s.Spec.ServiceName && v.Spec.ClusterIP == corev1.ClusterIPNone
		}) {
			wrong = append(wrong, fmt.Errorf("StatefulSet %s: no headless Service %s", s.Name, s.Spec.ServiceName))
		}
	}
	return wrong
}

// checkServices: each leads to ports that the nodes have, and to nodes only; seeds name one of them,
// which knows nodes that are not ready.
func (w *world) checkServices() (wrong []error) {
	n := w.node()
	seeds := ""
	for _, v := range n.pod.Spec.Containers[0].Env {
		if v.Name == "OCI_PROXY_CLUSTER__SEEDS" {
			seeds = v.Value
		}
	}
	for _, s := range w.services {
		for _, l := range w.workloads {
			if matches(s.Spec.Selector, l.pod.Labels) != (l.name == n.name) {
				wrong = append(wrong, fmt.Errorf("the Service %s leads to the pods of %s, or does not lead to nodes", s.Name, l.name))
			}
		}
		for _, p := range s.Spec.Ports {
			if !slices.ContainsFunc(n.pod.Spec.Containers[0].Ports, func(c corev1.ContainerPort) bool {
				return p.TargetPort.StrVal == c.Name && orTCP(p.Protocol) == orTCP(c.Protocol)
			}) {
				wrong = append(wrong, fmt.Errorf("the Service %s: no node has the port %v", s.Name, p.TargetPort))
			}
		}
		if seeds == s.Name+":7946" {
			if s.Spec.ClusterIP != corev1.ClusterIPNone || !s.Spec.PublishNotReadyAddresses {
				wrong = append(wrong, fmt.Errorf("the Service %s: the seeds are not all nodes", s.Name))
			}
			seeds = ""
		}
	}
	if cfg, err := w.config(); err == nil && (seeds != "" || len(cfg.Cluster.Seeds) > 0) && len(cfg.Cluster.Seeds) == 0 {
		wrong = append(wrong, fmt.Errorf("no Service is the seed %s", seeds))
	}
	return wrong
}

func orTCP(p corev1.Protocol) corev1.Protocol {
	if p == "" {
		return corev1.ProtocolTCP
	}
	return p
}

// checkBudgets: of nodes, and only of a StatefulSet's.
func (w *world) checkBudgets() (wrong []error) {
	for _, b := range w.budgets {
		if n := w.node(); n.kind != "StatefulSet" || !matches(labelsOf(b.Spec.Selector), n.pod.Labels) {
			wrong = append(wrong, fmt.Errorf("PodDisruptionBudget %s selects no pods of a StatefulSet", b.Name))
		}
	}
	return wrong
}

// checkMonitoring: a monitor finds one Service and a port of it, and names the job that the rules are
// about.
func (w *world) checkMonitoring() (wrong []error) {
	for _, m := range w.monitors {
		found := 0
		for _, s := range w.services {
			if !matches(m.Spec.Selector.MatchLabels, s.Labels) {
				continue
			}
			found++
			for _, e := range m.Spec.Endpoints {
				if !slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == e.Port }) {
					wrong = append(wrong, fmt.Errorf("ServiceMonitor %s: Service %s has no port %s", m.Name, s.Name, e.Port))
				}
			}
		}
		if found != 1 {
			wrong = append(wrong, fmt.Errorf("ServiceMonitor %s finds %d Services, want 1", m.Name, found))
		}
		if r := m.Spec.Endpoints[0].RelabelConfigs; len(r) != 1 || r[0].TargetLabel != "job" || *r[0].Replacement != w.node().name {
			wrong = append(wrong, fmt.Errorf("ServiceMonitor %s: its job is not %s", m.Name, w.node().name))
		}
	}
	return wrong
}
