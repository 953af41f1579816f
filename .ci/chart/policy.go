package chart

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// A caller is who comes to a node, or whom a node goes to: a pod of the same namespace by its labels,
// or any address elsewhere (nil).
type caller map[string]string

// lets reports whether the policies let a caller in at a port of a node. Address ranges let nobody in
// here: no caller has an address.
func (w *world) lets(from caller, port int32, protocol corev1.Protocol) bool {
	if len(w.policies) == 0 {
		return true
	}
	for _, rule := range w.policies[0].Spec.Ingress {
		if w.among(rule.Ports, port, protocol) && named(rule.From, from) {
			return true
		}
	}
	return false
}

// goes reports whether the policies let a node out.
func (w *world) goes(to caller, port int32, protocol corev1.Protocol) bool {
	if len(w.policies) == 0 || !slices.Contains(w.policies[0].Spec.PolicyTypes, networkingv1.PolicyTypeEgress) {
		return true
	}
	for _, rule := range w.policies[0].Spec.Egress {
		if w.among(rule.Ports, port, protocol) && named(rule.To, to) {
			return true
		}
	}
	return false
}

// among reports whether a rule is about a port, by number or by its name at the nodes.
func (w *world) among(ports []networkingv1.NetworkPolicyPort, port int32, protocol corev1.Protocol) bool {
	return len(ports) == 0 || slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
		number := p.Port.IntVal
		for _, c := range w.node().pod.Spec.Containers[0].Ports {
			if p.Port.StrVal != "" && c.Name == p.Port.StrVal {
				number = c.ContainerPort
			}
		}
		return number == port && p.Protocol != nil && *p.Protocol == protocol
	})
}

// named reports whether a rule is about everybody or about that caller.
func named(peers []networkingv1.NetworkPolicyPeer, who caller) bool {
	return len(peers) == 0 || slices.ContainsFunc(peers, func(p networkingv1.NetworkPolicyPeer) bool {
		return who != nil && p.NamespaceSelector == nil && matches(labelsOf(p.PodSelector), who)
	})
}
