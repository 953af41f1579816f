package node

import (
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// A span is one that a collector got.
type span struct {
	*tracepb.Span
	service, instance string
}

// text is a span's name, with what it is about.
func (s span) text() string {
	out := s.Name
	for _, a := range s.Attributes {
		if a.Key == "oci_proxy.kind" {
			out += " " + a.Value.GetStringValue()
		}
	}
	return s.instance + ": " + out
}

// A traceCollector takes spans over OTLP, HTTP with protobuf.
type traceCollector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []span
}

// newTraceCollector starts a collector, to which nodes of this test send their spans.
func newTraceCollector(t *testing.T) *traceCollector {
	t.Helper()
	c := &traceCollector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var data tracepb.TracesData // on the wire an ExportTraceServiceRequest is the same
		if err == nil {
			err = proto.Unmarshal(body, &data)
		}
		if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("%s %v: %v", r.URL, r.Header, err)
		}
		c.take(&data)
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(c.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
	return c
}

func (c *traceCollector) take(data *tracepb.TracesData) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range data.ResourceSpans {
		resource := map[string]string{}
		for _, a := range of.Resource.Attributes {
			resource[a.Key] = a.Value.GetStringValue()
		}
		for _, scope := range of.ScopeSpans {
			for _, s := range scope.Spans {
				c.spans = append(c.spans, span{s, resource["service.name"], resource["service.instance.id"]})
			}
		}
	}
}

// of returns the spans of the trace that a span of that text is in, by their texts.
func (c *traceCollector) of(text string) map[string]span {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := map[string]span{}
	i := slices.IndexFunc(c.spans, func(s span) bool { return s.text() == text })
	if i < 0 {
		return out
	}
	for _, s := range c.spans {
		if string(s.TraceId) == string(c.spans[i].TraceId) {
			out[s.text()] = s
		}
	}
	return out
}

// want waits for the spans of a trace, each with its parent; that of the first is outside.
func (c *traceCollector) want(t *testing.T, want [][2]string) (first span) {
	t.Helper()
	var got map[string]span
	all := testkit.Happens(patience, func() bool {
		got = c.of(want[0][0])
		return !slices.ContainsFunc(want, func(w [2]string) bool { return got[w[0]].Span == nil })
	})
	if !all {
		t.Fatalf("got only %q", slices.Sorted(maps.Keys(got)))
	}
	for _, w := range want[1:] {
		if string(got[w[0]].ParentSpanId) != string(got[w[1]].SpanId) {
			t.Errorf("%s is not below %s", w[0], w[1])
		}
		if got[w[0]].service != "oci-proxy" {
			t.Errorf("%s is of service %q", w[0], got[w[0]].service)
		}
	}
	return got[want[0][0]]
}

// A pull is one trace through all nodes, with what takes time in it. No registry hears of it.
func TestOnePullIsOneTrace(t *testing.T) {
	collector := newTraceCollector(t)
	c := startCluster(t, 2, upstreamtest.New(t), func(int) form { return form{} })
	b := c.blobOf(1, 100_000)
	c.pull(0, b)
	root := collector.want(t, [][2]string{
		{"node-0: pull blob"},
		{"node-0: queue", "node-0: pull blob"},
		{"node-0: flight", "node-0: pull blob"},
		{"node-0: peer blobs", "node-0: flight"},
		{"node-1: member blobs", "node-0: peer blobs"},
		{"node-1: flight", "node-1: member blobs"},
		{"node-1: upstream blob", "node-1: flight"},
		{"node-1: queue registry", "node-1: flight"},
		{"node-1: disk", "node-1: flight"},
		{"node-0: disk", "node-0: flight"},
	})
	if len(root.ParentSpanId) != 0 {
		t.Error("the trace begins elsewhere")
	}
	c.pull(1, b)
	collector.want(t, [][2]string{{"node-1: pull blob"}, {"node-1: disk", "node-1: pull blob"}})
	c.up.PutImage(repo, "v1", random(1, 1000))
	c.get(0, "/v2/"+repo+"/manifests/v1").want(t, http.StatusOK)
	collector.want(t, [][2]string{{"node-0: pull tag"}, {"node-0: queue", "node-0: pull tag"}, {"node-0: tag", "node-0: pull tag"}})
	for _, r := range c.up.Requests() {
		if r.Header.Get("Traceparent") != "" || r.Header.Get("Tracestate") != "" {
			t.Errorf("the registry hears of a trace: %v", r.Header)
		}
	}
}

// A client's own trace goes on only if it comes by a trusted balancer.
func TestWhoseTraceGoesOn(t *testing.T) {
	const trace = "0af7651916cd43dd8448eb211c80319c"
	for top, goesOn := range map[string]bool{"": false, "trusted_proxies: [10.0.0.0/8]": false, "trusted_proxies: [127.0.0.0/8]": true} {
		t.Run(top, func(t *testing.T) {
			collector := newTraceCollector(t)
			up := upstreamtest.New(t)
			p := newProxy(t, up, settings{top: top})
			img := up.PutImage(repo, "v1", random(1, 1000))
			for range 2 {
				p.get(blobPath(img.Layers[0]), "Traceparent", "00-"+trace+"-b7ad6b7169203331-01").want(t, http.StatusOK)
			}
			root := collector.want(t, [][2]string{{"oci-proxy: pull blob"}})
			if logged := p.log.Count(`"trace_id":"` + hex.EncodeToString(root.TraceId) + `"`); logged == 0 || p.log.Count(`"trace_id"`) != p.log.Count(`"msg":"request"`) {
				t.Errorf("the log names the trace %d times: %s", logged, p.log)
			}
			if own := hex.EncodeToString(root.TraceId) != trace; own == goesOn {
				t.Errorf("the trace is our own: %t", own)
			}
		})
	}
}

// What fails is told, and no credential is.
func TestATraceOfAFailure(t *testing.T) {
	collector := newTraceCollector(t)
	up := upstreamtest.New(t, upstreamtest.Bearer(upstreamtest.BearerAuth{User: "u", Password: "right"}))
	up.PutImage(repo, "v1", random(1, 1000))
	p := newProxy(t, up, settings{registry: "auth: {username: u, password: canary-7c1}"})
	p.get("/v2/"+repo+"/manifests/v1").wantError(t, http.StatusForbidden, "DENIED")
	p.close()
	root := collector.want(t, [][2]string{{"oci-proxy: pull tag"}, {"oci-proxy: upstream token", "oci-proxy: tag"}})
	if root.Status.GetCode() != tracepb.Status_STATUS_CODE_ERROR || !strings.Contains(root.Status.GetMessage(), "refused") {
		t.Errorf("status %v", root.Status)
	}
	for text, s := range collector.of(root.text()) {
		if all := fmt.Sprint(s.Span); strings.Contains(all, "canary-7c1") || strings.Contains(all, "Bearer") {
			t.Errorf("%s tells a credential: %s", text, all)
		}
	}
}

// Without a collector the way of a pull allocates nothing for traces.
func TestNoTraceCostsNothing(t *testing.T) {
	r, req := httptest.NewRequest(http.MethodGet, "/v2/a/blobs/b", http.NoBody), oci.Request{Resource: oci.BlobResource}
	if n := testing.AllocsPerRun(100, func() {
		traced, span := tracing{}.begin(r, req)
		tracing{}.end(traced, span, nil)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
