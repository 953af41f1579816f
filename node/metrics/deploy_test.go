package metrics

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// rules is a file of rules for Prometheus.
type rules struct {
	Groups []struct {
		Rules []struct {
			Alert, Expr         string
			Labels, Annotations map[string]string
		}
	}
}

// alerts reads the alerts: their queries by name.
func alerts(t *testing.T) map[string]string {
	t.Helper()
	var file rules
	if err := yaml.Unmarshal(content(t, "../../deploy/alerts.yaml"), &file); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" || out[r.Alert] != "" || r.Annotations["summary"] == "" || !slices.Contains([]string{"critical", "warning"}, r.Labels["severity"]) {
				t.Errorf("the alert %q is there twice, or lacks a name, a summary or a severity", r.Alert)
			}
			out[r.Alert] = r.Expr
		}
	}
	return out
}

// A panel is one of Grafana's. A row holds panels.
type panel struct {
	Title, Type, Description string
	Panels                   []panel
	Targets                  []struct{ Expr string }
}

// queries reads the queries of the dashboard: by the panels' titles.
func queries(t *testing.T) map[string][]string {
	t.Helper()
	var board struct{ Panels []panel }
	if err := json.Unmarshal(content(t, "../../deploy/grafana.json"), &board); err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	var walk func(all []panel)
	walk = func(all []panel) {
		for _, p := range all {
			walk(p.Panels)
			if p.Type == "row" {
				continue
			}
			if p.Title == "" || out[p.Title] != nil || len(p.Targets) == 0 {
				t.Errorf("the panel %q is there twice, or has no name or no query", p.Title)
			}
			for _, target := range p.Targets {
				out[p.Title] = append(out[p.Title], target.Expr)
			}
		}
	}
	walk(board.Panels)
	return out
}

func content(t *testing.T, file string) []byte {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// foreign are the metrics of others that queries may name: Prometheus' own, Go's and the
// process's.
func foreign(t *testing.T) []string {
	t.Helper()
	w := httptest.NewRecorder()
	read := func() *Snapshot { return &Snapshot{} }
	New("", "").Handler(read).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	names := []string{"up"}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE ((?:go|process)_\w+)`).FindAllStringSubmatch(w.Body.String(), -1) {
		names = append(names, m[1])
	}
	return names
}

// selector is a metric in a query, and what is asked of its labels. Functions are followed
// by a parenthesis, words of the language by something else.
var (
	selector = regexp.MustCompile(`\b((?:oci_proxy|go|process)_\w+|up)\b(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)`)
)

// everywhere are the labels that Prometheus adds.
var everywhere = []string{"job", "instance", "le"}

// familyOf is the metric of that name, which may be a part of a histogram.
func familyOf(name string) (family, bool) {
	for _, f := range families() {
		if full := prefix + f.name; name == full || f.kind == histogram && slices.Contains([]string{full + "_bucket", full + "_count", full + "_sum"}, name) {
			return f, true
		}
	}
	return family{}, false
}

// Each query of the alerts and of the dashboard names metrics, and labels, that exist.
func TestQueriesNameWhatExists(t *testing.T) {
	t.Parallel()
	all, others := queries(t), foreign(t)
	if len(all) < 20 {
		t.Errorf("the dashboard has %d panels", len(all))
	}
	for name, expr := range alerts(t) {
		all["alert "+name] = []string{expr}
	}
	for name, exprs := range all {
		for _, expr := range exprs {
			found := selector.FindAllStringSubmatch(expr, -1)
			if len(found) == 0 {
				t.Errorf("%s: %q names no metric", name, expr)
			}
			for _, m := range found {
				f, ok := familyOf(m[1])
				if !ok && !slices.Contains(others, m[1]) {
					t.Errorf("%s: there is no metric %s", name, m[1])
				}
				for _, label := range matcher.FindAllStringSubmatch(m[2], -1) {
					if ok && !slices.Contains(append(everywhere, f.labels...), label[1]) {
						t.Errorf("%s: %s has no label %s", name, m[1], label[1])
					}
				}
			}
		}
	}
}

// Each alert has a rule test that it passes, and docs/operations.md says what to do.
func TestEachAlertIsTestedAndExplained(t *testing.T) {
	t.Parallel()
	tests, doc := string(content(t, "../../.ci/alerts/test.yaml")), string(content(t, "../../docs/operations.md"))
	names := alerts(t)
	if len(names) < 15 {
		t.Errorf("%d alerts", len(names))
	}
	for name := range names {
		if !strings.Contains(tests, "alertname: "+name+"\n") {
			t.Errorf(".ci/alerts/test.yaml does not test %s", name)
		}
		if !strings.Contains(doc, "\n| "+name+" | ") {
			t.Errorf("docs/operations.md does not explain %s", name)
		}
	}
	for _, m := range regexp.MustCompile(`\n\| (OciProxy\w+) \|`).FindAllStringSubmatch(doc, -1) {
		if names[m[1]] == "" {
			t.Errorf("docs/operations.md explains %s, which is no alert", m[1])
		}
	}
}
