package metrics

import (
	"flag"
	"os"
	"strings"
	"testing"
)

const (
	metricsDoc = "../../docs/operations.md"
	tableBegin = "<!-- metrics: written by go test ./node/metrics -run TestMetricsDoc -update -->\n"
	tableEnd   = "<!-- end of metrics -->\n"
)

var update = flag.Bool("update", false, "write the table of metrics into docs/operations.md")

// The table in docs/operations.md is generated from the code.
func TestMetricsDoc(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile(metricsDoc)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begun := strings.Cut(string(doc), tableBegin)
	_, after, ended := strings.Cut(rest, tableEnd)
	if !begun || !ended {
		t.Fatalf("%s lacks the marks %q and %q", metricsDoc, tableBegin, tableEnd)
	}
	want := before + tableBegin + Table() + tableEnd + after
	if want == string(doc) {
		return
	}
	if !*update {
		t.Fatalf("%s differs from the code; run: go test ./node/metrics -run TestMetricsDoc -update", metricsDoc)
	}
	if err := os.WriteFile(metricsDoc, []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
}

// No two metrics have one name, and each says what it means.
func TestEachMetricIsDescribed(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, f := range families() {
		if seen[f.name] || f.help == "" || strings.ContainsAny(f.help, "|\n`") {
			t.Errorf("%s is there twice, or its help %q does not fit into a table", f.name, f.help)
		}
		seen[f.name] = true
		if (f.kind == counter) != strings.HasSuffix(f.name, "_total") {
			t.Errorf("%s is a %s", f.name, f.kind)
		}
	}
	if len(seen) < 40 {
		t.Errorf("%d metrics", len(seen))
	}
}
