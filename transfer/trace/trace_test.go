package trace

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"oci-proxy/transfer/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// What is not recorded costs nothing: a hit allocates not a byte more for it.
func TestNothingIsRecordedAtNoCost(t *testing.T) {
	var tracer *Tracer
	ctx, h, err := t.Context(), http.Header{"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}, errors.New("failed")
	n := testing.AllocsPerRun(100, func() {
		ctx, root := tracer.Begin(ctx, "pull blob", h)
		ctx, span := Start(ctx, "disk")
		span.Set("key", "value")
		span.Count("key", 1)
		span.End(err)
		ctx = Of(ctx).Into(ctx)
		Inject(ctx, h)
		root.End(nil)
		if root.On() || span.On() || ctx != t.Context() {
			t.Error("something is recorded")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
	tracer.Close(ctx)
}

func BenchmarkNothingIsRecorded(b *testing.B) {
	for b.Loop() {
		_, span := Start(b.Context(), "disk")
		span.End(nil)
	}
}

// The standard's variables decide whether there are traces.
func TestTheEnvironment(t *testing.T) {
	const endpoint = "http://127.0.0.1:1"
	for name, c := range map[string]struct {
		environ []string // names and values in turn
		on      bool
		wrong   string
	}{
		"nothing":                   {nil, false, ""},
		"a name alone":              {[]string{"OTEL_SERVICE_NAME", "x", "OTEL_TRACES_SAMPLER", "always_on"}, false, ""},
		"a collector":               {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT", endpoint}, true, ""},
		"a collector of traces":     {[]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint + "/v1/traces"}, true, ""},
		"the default one":           {[]string{"OTEL_TRACES_EXPORTER", "otlp"}, true, ""},
		"turned off":                {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT", endpoint, "OTEL_SDK_DISABLED", "true"}, false, ""},
		"no exporter":               {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT", endpoint, "OTEL_TRACES_EXPORTER", "none"}, false, ""},
		"another exporter":          {[]string{"OTEL_TRACES_EXPORTER", "zipkin"}, false, `OTEL_TRACES_EXPORTER="zipkin" is not supported; use otlp`},
		"another protocol":          {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT", endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"}, false, `OTEL_EXPORTER_OTLP_PROTOCOL="grpc" is not supported; use http/protobuf`},
		"a protocol for other data": {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT", endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"}, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			for i := 0; i < len(c.environ); i += 2 {
				t.Setenv(c.environ[i], c.environ[i+1])
			}
			tracer, err := Open("node-1", "v1", slog.New(slog.DiscardHandler))
			if (tracer != nil) != c.on || c.wrong == "" && err != nil || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
				t.Errorf("%v, %v", tracer != nil, err)
			}
			tracer.Close(t.Context())
		})
	}
}

// A collector that fails costs spans, and a line in the log a minute.
func TestACollectorThatFails(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusBadRequest)
	}))
	defer srv.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", srv.URL)
	t.Setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
	log := new(testkit.Log)
	tracer, err := Open("node-1", "v1", slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		_, span := tracer.Begin(t.Context(), "pull blob", nil)
		span.End(nil)
	}
	tracer.Close(t.Context())
	if n := log.Count("traces not sent"); n != 1 {
		t.Errorf("%d lines: %s", n, log)
	}
}

// What the sampler leaves out is not recorded below, and the next node hears so.
func TestWhatTheSamplerLeavesOut(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "otlp")
	t.Setenv("OTEL_TRACES_SAMPLER", "always_off")
	tracer, err := Open("node-1", "v1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer tracer.Close(context.WithoutCancel(t.Context()))
	ctx, root := tracer.Begin(t.Context(), "pull blob", nil)
	defer root.End(nil)
	h := http.Header{}
	Inject(ctx, h)
	if _, span := Start(ctx, "disk"); span.On() || !strings.HasSuffix(h.Get("Traceparent"), "-00") {
		t.Errorf("recorded: %t, told: %v", span.On(), h)
	}
}
