package config

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"
)

const prefix = "OCI_PROXY_"

// FileVariable is the environment variable that names the config file where no flag does.
// It is no key of the config.
const FileVariable = prefix + "CONFIG"

// Variable returns the environment variable that sets the key at path. It returns
// "" for the keys of registries, which can only be set in the file.
func Variable(path string) string {
	if strings.HasPrefix(path, "registries") {
		return ""
	}
	return prefix + strings.ToUpper(strings.ReplaceAll(path, ".", "__"))
}

// environment returns environ by name. If a name occurs twice, the last one counts.
func environment(environ []string) map[string]string {
	values := make(map[string]string, len(environ))
	for _, e := range environ {
		if name, value, ok := strings.Cut(e, "="); ok {
			values[name] = value
		}
	}
	return values
}

// fillFromEnvironment applies the environment's values over those of the file.
func (l *loader) fillFromEnvironment() {
	keys := map[string]Key{}
	for _, k := range Keys() {
		if v := Variable(k.Path); v != "" {
			keys[v] = k
		}
	}
	names := slices.Collect(maps.Keys(l.environ))
	// Empty values come last: they may clear a key of the cluster or the archive, but must not
	// create one.
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(emptiness(l.environ[a]), emptiness(l.environ[b])), strings.Compare(a, b))
	})
	for _, name := range names {
		k, known := keys[name]
		switch value := l.environ[name]; {
		case !strings.HasPrefix(name, prefix) || name == FileVariable || injected(name, value):
		case !known:
			l.unknownVariable(name, slices.Sorted(maps.Keys(keys)))
		case value == "" && (!k.text || guards(k.Path) || strings.HasPrefix(k.Path, "cluster.") && l.config.Cluster == nil || strings.HasPrefix(k.Path, "archive.") && l.config.Archive == nil):
			// Treated as unset; compose files and charts rely on it.
		default:
			fill(l.reader, l.config, configKeys, variableNode(name, value, k), "", "")
		}
	}
}

// guards reports whether the key protects the proxy or keeps it from connecting
// directly. An empty variable, often the result of a missing .env, must not undo
// such a key of the file.
func guards(path string) bool {
	switch path {
	case "auth.username", "auth.password", "auth.password_file", "auth.htpasswd_file", "tls.cert_file", "tls.key_file",
		"cluster.secret", "cluster.secret_file", "cluster.secrets", "defaults.upstream_proxy",
		"archive.access_key", "archive.access_key_file", "archive.secret_key", "archive.secret_key_file":
		return true
	}
	return false
}

func emptiness(s string) int {
	if s == "" {
		return 1
	}
	return 0
}

// variableNode returns the tree of a file that would set only what the variable
// sets.
func variableNode(name, value string, k Key) *node {
	at := place{variable: name}
	n := &node{at: at, shape: scalar, text: value, literal: true}
	if k.list {
		n = &node{at: at, shape: list}
		for item := range strings.SplitSeq(value, ",") {
			if item = strings.TrimSpace(item); item != "" {
				n.items = append(n.items, &node{at: at, shape: scalar, text: item, literal: true})
			}
		}
	}
	levels := strings.Split(k.Path, ".")
	for _, level := range slices.Backward(levels) {
		n = &node{at: at, shape: mapping, pairs: []pair{{level, at, n}}}
	}
	return n
}

func (l *loader) unknownVariable(name string, known []string) {
	at := place{variable: name}
	if strings.HasPrefix(name, prefix+"REGISTRIES") {
		l.problem(at, "", "registries can only be set in the file")
		return
	}
	hint := ""
	if near := closest(name[len(prefix):], trimmed(known)); near != "" {
		hint = " (did you mean " + prefix + near + "?)"
	}
	l.problem(at, "", "unknown variable%s", hint)
}

// trimmed returns names without their common prefix, which would make all of them
// look alike.
func trimmed(names []string) []string {
	short := make([]string, len(names))
	for i, n := range names {
		short[i] = strings.TrimPrefix(n, prefix)
	}
	return short
}

var (
	serviceName = regexp.MustCompile(`^OCI_PROXY_([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)$`)
	servicePort = regexp.MustCompile(`^OCI_PROXY_([A-Z0-9_]+_)?PORT$`)
	serviceURL  = regexp.MustCompile(`^(tcp|udp|sctp)://`)
)

// injected reports whether Kubernetes set the variable for a Service called
// oci-proxy or oci-proxy-something in the same namespace.
func injected(name, value string) bool {
	return serviceName.MatchString(name) || servicePort.MatchString(name) && serviceURL.MatchString(value)
}
