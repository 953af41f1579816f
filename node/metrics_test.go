package node

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"oci-proxy/node/config"
)

// The metrics pass Prometheus's own lint, and are behind the login if there is one.
func TestMetricsAreWellFormedAndGuarded(t *testing.T) {
	t.Parallel()
	cfg, err := config.Parse("test.yaml", []byte("auth: {username: u, password: pass}\ndefaults: {cache_dir: "+t.TempDir()+"}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	n, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	problems, err := testutil.CollectAndLint(n.metrics.Collector(n.reports.snapshot))
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
	h := n.Handler()
	for _, login := range []bool{false, true} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/_/metrics", nil)
		r.Host = "localhost"
		if login {
			r.SetBasicAuth("u", "pass")
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		has := strings.Contains(w.Body.String(), `oci_proxy_shard_bound_bytes{registry="registry-1.docker.io"}`)
		if (w.Code == http.StatusOK) != login || has != login {
			t.Errorf("login %v: status %d\n%s", login, w.Code, w.Body)
		}
	}
}
