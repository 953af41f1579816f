// Package chart checks the Helm chart in deploy/chart: each switch of it both ways, rendered by real
// helm and decoded strictly into Kubernetes' own types (world.go), then looked at for what no type can
// tell (rules.go). With a real API server, that looks at all objects, too (server.go). Begin with
// chart_test.go.
package chart

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A variant is the chart with some values.
type variant struct {
	name   string
	values []string // YAML documents, each over the one before
}

// A change is one switch of the chart, turned.
type change struct{ name, values string }

// kinds are what a node may be.
var kinds = []string{"DaemonSet", "StatefulSet"}

// changes turn each switch of values.yaml away from its default.
var changes = []change{
	{"existing secret", `clusterSecret: {existingSecret: ours, key: mesh}`},
	{"other key", `clusterSecret: {key: mesh}`},
	{"all host addresses", `daemonSet: {hostIP: ""}`},
	{"other host port and folder", `daemonSet: {hostPort: 5050, hostPath: /data/cache, maxUnavailable: 25%}`},
	{"no host folder", `daemonSet: {hostPath: ""}`},
	{"volumes", `statefulSet: {replicas: 5, size: 100Gi, storageClass: fast, whenDeleted: Delete}`},
	{"containerd", `containerd: {setup: true, proxy: "http://proxy.example:5000"}`},
	{"containerd, some registries", `containerd: {setup: true, proxy: "http://proxy.example:5000", registries: [ghcr.io, docker.io]}`},
	{"node port", `service: {type: NodePort, port: 8080, nodePort: 30080}`},
	{"load balancer", `service: {type: LoadBalancer, annotations: {example.com/class: inside}}`},
	{"no budget", `podDisruptionBudget: {enabled: false}`},
	{"policy", `networkPolicy: {enabled: true}`},
	{"policy, narrow", `networkPolicy: {enabled: true, from: [{ipBlock: {cidr: 10.0.0.0/8}}], egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: 443, protocol: TCP}]}]}`},
	{"monitor", `serviceMonitor: {enabled: true}`},
	{"monitor, login", `serviceMonitor: {enabled: true, interval: 15s, labels: {release: prometheus}, endpoint: {basicAuth: {username: {name: login, key: user}, password: {name: login, key: password}}}}`},
	{"rules", `prometheusRule: {enabled: true, labels: {release: prometheus}}`},
	{"dashboard", `dashboard: {enabled: true, labels: {grafana_dashboard: "1", folder: images}}`},
	{"ACME", `{config: {tls: {acme: {domains: [proxy.example.com]}}}, service: {port: 443}}`},
	{"TLS", `{config: {tls: {cert_file: /tls/tls.crt, key_file: /tls/tls.key}}, extraVolumes: [{name: tls, secret: {secretName: tls}}], extraVolumeMounts: [{name: tls, mountPath: /tls, readOnly: true}]}`},
	{"clients' port", `config: {port: 9000}`},
	{"long drain", `config: {shutdown_timeout: 1h2m3s}`},
	{"large numbers", `config: {defaults: {cache_max_size: 10737418240}}`},
	{"no cluster section", `config: {cluster: null}`},
	{"seeds and zone", `config: {cluster: {seeds: ["seed.example:7946"], zone: hall-1}}`},
	{"a login", `{config: {registries: {ghcr.io: {auth: {username: robot, password: "${TOKEN}"}}}}, extraEnv: [{name: TOKEN, valueFrom: {secretKeyRef: {name: login, key: token}}}]}`},
	{"image", `image: {repository: registry.example:5000/oci-proxy, tag: "1.2.3", pullPolicy: Always, pullSecrets: [{name: login}]}`},
	{"placement", `{nodeSelector: {disk: large}, tolerations: [{operator: Exists}], priorityClassName: system-node-critical, affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: disk, operator: Exists}]}]}}}, topologySpreadConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app.kubernetes.io/component: node}}}]}`},
	{"labels", `{podLabels: {team: images}, podAnnotations: {example.com/scrape: "no"}, serviceAccount: {annotations: {example.com/role: none}}}`},
	{"memory", `resources: {requests: {memory: 1Gi}, limits: {memory: 1Gi, cpu: "2"}}`},
	{"short name", `nameOverride: images`},
	{"long name", `fullnameOverride: a-name-that-is-longer-than-all-the-objects-of-kubernetes-may-be-called`},
}

// bad are values that the chart must refuse, and what it must say.
var bad = []struct{ values, says string }{
	{`{replicas: 3}`, "replicas"},
	{`kind: Deployment`, "kind"},
	{`image: {name: x}`, "name"},
	{`daemonSet: {hostPort: 70000}`, "hostPort"},
	{`daemonSet: {hostPath: cache}`, "hostPath"},
	{`service: {type: ExternalName}`, "type"},
	{`networkPolicy: {enabled: "yes"}`, "enabled"},
	{`containerd: {proxy: "127.0.0.1:5000"}`, "proxy"},
	{`config: {cluster: {secret: 0123456789abcdef}}`, "secret"},
	{`config: {cluster: {bind_addr: "0.0.0.0:1"}}`, "bind_addr"},
	{`config: {address: 127.0.0.1}`, "address"},
	{`config: {port: 80}`, "port"},
	{`config: {shutdown_timeout: soon}`, "shutdown_timeout"},
	{`{kind: StatefulSet, containerd: {setup: true}}`, "needs containerd.proxy"},
	{`{containerd: {setup: true}, config: {tls: {cert_file: /a, key_file: /b}}}`, "needs containerd.proxy"},
	{`{containerd: {setup: true}, config: {tls: {acme: {domains: [proxy.example]}}}}`, "needs containerd.proxy"},
}

// apart are changes that do not go with the others.
var apart = []string{"no budget", "no cluster section", "ACME"}

// variants are both kinds with all defaults, with each change by itself, with as many as go
// together, and with everything off that can be.
func variants() (all []variant) {
	for _, kind := range kinds {
		base := "kind: " + kind
		all = append(all, variant{kind, []string{base}})
		together := variant{kind + ", all on", []string{base}}
		for _, c := range changes {
			all = append(all, variant{kind + ", " + c.name, []string{base, c.values}})
			if !slices.Contains(apart, c.name) {
				together.values = append(together.values, c.values)
			}
		}
		all = append(all, together, variant{kind + ", all off", []string{base, `{podDisruptionBudget: {enabled: false}, daemonSet: {hostIP: "", hostPath: ""}, resources: {}, config: {cluster: null, defaults: null, shutdown_timeout: null}}`}})
	}
	// The proxy's address is made of the host port here.
	for _, hostIP := range []string{"", "127.0.0.1", "10.0.0.1", "::1"} {
		all = append(all, variant{"containerd by the host port at " + hostIP, []string{`{containerd: {setup: true}, daemonSet: {hostPort: 5050, hostIP: "` + hostIP + `"}}`}})
	}
	return all
}

// A renderer runs helm.
type renderer struct{ helm, chart, scratch string }

// render returns what `helm template` makes of a variant.
func (r renderer) render(ctx context.Context, v variant) ([]byte, error) {
	args := []string{"template", "mesh", r.chart, "--namespace", "images", "--kube-version", "1.37.2"}
	for i, text := range v.values {
		file := filepath.Join(r.scratch, strconv.Itoa(i)+".yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return nil, err
		}
		args = append(args, "-f", file)
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, r.helm, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("helm template: %w: %s", err, strings.TrimSpace(errs.String()))
	}
	return out.Bytes(), nil
}
