package metrics

import (
	"strings"
	"testing"

	"oci-proxy/transfer/testkit"
)

// The table in docs/operations.md is generated from the code.
func TestMetricsDoc(t *testing.T) {
	t.Parallel()
	testkit.Document(t, "../../docs/operations.md", "metrics", Table())
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
