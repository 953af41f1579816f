package node

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"oci-proxy/node/config"
	"oci-proxy/transfer/upstreamtest"
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

// Whatever clients and registries make up, it becomes no label.
func TestNoLabelIsMadeUpByStrangers(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	p := newProxy(t, up, settings{})
	p.get("/v2/")
	before := len(series(t, p.get("/_/metrics")))
	for i := range 20 {
		name := fmt.Sprintf("made-up-%d", i)
		p.get("/v2/" + name + ".invalid/" + name + "/manifests/" + name)
		p.get("/v2/" + name + "/" + name + "/blobs/sha256:" + strings.Repeat("0", 64) + "?ns=" + name + ".invalid")
		p.do(strings.ToUpper(name[:4]), "/_/"+name, "User-Agent", name)
		p.get("/v2/" + name + "/tags/list?last=" + name)
		up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: "odd"}, Times: 1, Status: 600 + i})
		p.get("/v2/" + repo + "/manifests/odd")
	}
	p.get("/v2/made-up.example.com/a/manifests/b")
	p.settle()
	text := p.get("/_/metrics").body
	if strings.Contains(string(text), "made-up") || strings.Contains(string(text), "MADE") || strings.Contains(string(text), `code="60`) {
		t.Errorf("a label is made up:\n%s", text)
	}
	after := series(t, p.get("/_/metrics"))
	if len(after) > before+400 {
		t.Errorf("%d series became %d", before, len(after))
	}
	for _, want := range []string{`oci_proxy_upstream_requests_total{code="other",kind="tag",registry="` + up.Host() + `"}`, `oci_proxy_upstream_wait_seconds_count{registry="other"}`} {
		if after[want] == 0 {
			t.Errorf("%s is missing", want)
		}
	}
}

// A limit whose window is over is not told any more: an alert would last until the next pull.
func TestARateLimitEndsWithItsWindow(t *testing.T) {
	t.Parallel()
	now := time.Now()
	limit, left, soon := int64(100), int64(3), now.Add(time.Second)
	row := upstreamRow{RateLimit: &limit, RateRemaining: &left, RateReset: &soon}
	if q := row.quota(now); q == nil || q.Limit != 100 || q.Remaining != 3 || !q.Reset.Equal(soon) {
		t.Errorf("within the window: %+v", q)
	}
	if q := row.quota(soon); q != nil {
		t.Errorf("after it: %+v", q)
	}
	if q := new(upstreamRow).quota(now); q != nil {
		t.Errorf("without a limit: %+v", q)
	}
}
