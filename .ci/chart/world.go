package chart

import (
	"bytes"
	"errors"
	"fmt"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// A workload makes pods.
type workload struct {
	name, kind string
	selector   map[string]string
	pod        *corev1.PodTemplateSpec
	claims     []corev1.PersistentVolumeClaim
}

// A world is what one rendering of the chart makes.
type world struct {
	documents []document
	workloads []workload
	sets      []*appsv1.StatefulSet
	services  []*corev1.Service
	secrets   map[string]*corev1.Secret
	maps      []*corev1.ConfigMap
	accounts  []*corev1.ServiceAccount
	budgets   []*policyv1.PodDisruptionBudget
	policies  []*networkingv1.NetworkPolicy
	monitors  []*monitoringv1.ServiceMonitor
	rules     []*monitoringv1.PrometheusRule
}

// A document is an object as it goes to the API server.
type document struct {
	metav1.PartialObjectMetadata
	json []byte
}

// decode reads a rendering. Keys that a type lacks, keys in another case and keys given twice are
// errors.
func decode(text []byte) (*world, error) {
	w := &world{secrets: map[string]*corev1.Secret{}}
	seen := map[string]bool{}
	for part := range bytes.SplitSeq(text, []byte("\n---\n")) {
		data, err := yaml.YAMLToJSONStrict(part)
		if err != nil {
			return nil, fmt.Errorf("%w in %s", err, part)
		}
		if string(data) == "null" {
			continue
		}
		d := document{json: data}
		if err := kjson.UnmarshalCaseSensitivePreserveInts(data, &d.PartialObjectMetadata); err != nil {
			return nil, err
		}
		name := d.Kind + "/" + d.Name
		if seen[name] || d.Namespace != "images" {
			return nil, fmt.Errorf("%s in the namespace %q is there twice, or elsewhere", name, d.Namespace)
		}
		seen[name] = true
		if err := w.take(d); err != nil {
			return nil, fmt.Errorf("%s %s: %w", d.Kind, d.Name, err)
		}
		w.documents = append(w.documents, d)
	}
	return w, nil
}

// take decodes one object into the type of its kind.
func (w *world) take(d document) error {
	switch d.APIVersion + " " + d.Kind {
	case "apps/v1 DaemonSet":
		o, err := strictly[appsv1.DaemonSet](d)
		w.workloads = append(w.workloads, workload{name: o.Name, kind: d.Kind, selector: labelsOf(o.Spec.Selector), pod: &o.Spec.Template})
		return err
	case "apps/v1 StatefulSet":
		o, err := strictly[appsv1.StatefulSet](d)
		w.sets = append(w.sets, o)
		w.workloads = append(w.workloads, workload{name: o.Name, kind: d.Kind, selector: labelsOf(o.Spec.Selector), pod: &o.Spec.Template, claims: o.Spec.VolumeClaimTemplates})
		return err
	case "v1 Secret":
		o, err := strictly[corev1.Secret](d)
		w.secrets[o.Name] = o
		return err
	case "v1 Service":
		return keep(d, &w.services)
	case "v1 ConfigMap":
		return keep(d, &w.maps)
	case "v1 ServiceAccount":
		return keep(d, &w.accounts)
	case "policy/v1 PodDisruptionBudget":
		return keep(d, &w.budgets)
	case "networking.k8s.io/v1 NetworkPolicy":
		return keep(d, &w.policies)
	case "monitoring.coreos.com/v1 ServiceMonitor":
		return keep(d, &w.monitors)
	case "monitoring.coreos.com/v1 PrometheusRule":
		return keep(d, &w.rules)
	}
	return fmt.Errorf("no type is known for %s", d.APIVersion)
}

// strictly decodes an object and refuses what its type does not have.
func strictly[T any](d document) (*T, error) {
	o := new(T)
	strict, err := kjson.UnmarshalStrict(d.json, o)
	return o, errors.Join(append(strict, err)...)
}

func keep[T any](d document, all *[]*T) error {
	o, err := strictly[T](d)
	*all = append(*all, o)
	return err
}

// labelsOf returns what a selector asks for.
func labelsOf(s *metav1.LabelSelector) map[string]string {
	if s == nil {
		return nil
	}
	return s.MatchLabels
}
