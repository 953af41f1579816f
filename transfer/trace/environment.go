package trace

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	otelapi "go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// lastSpans is how long the end of a node may take for the spans that are still to be sent.
const lastSpans = 5 * time.Second

// wanted reports whether the environment asks for traces: it names a collector, or the exporter
// of them, and does not turn them off (OpenTelemetry's specification, "Environment Variable
// Specification" and "Protocol Exporter").
func wanted(getenv func(string) string) bool {
	exporter := strings.TrimSpace(getenv("OTEL_TRACES_EXPORTER"))
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") || exporter == "none" {
		return false
	}
	return exporter != "" || getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}

// unsupported returns what the environment asks for and this program cannot do, "" if there is
// nothing.
func unsupported(getenv func(string) string) string {
	for _, v := range []struct {
		name  string
		takes []string
	}{
		{"OTEL_TRACES_EXPORTER", []string{"", "otlp"}},
		{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", []string{"", "http/protobuf"}},
		{"OTEL_EXPORTER_OTLP_PROTOCOL", []string{"", "http/protobuf"}},
	} {
		value := strings.TrimSpace(getenv(v.name))
		if v.name == "OTEL_EXPORTER_OTLP_PROTOCOL" && getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") != "" {
			continue // the other wins
		}
		if !slices.Contains(v.takes, value) {
			return fmt.Sprintf("%s=%q is not supported; use %s", v.name, value, v.takes[1])
		}
	}
	return ""
}

// Open returns the Tracer that the environment's OTEL_ variables describe, nil if they ask for no
// traces. node and version are this node's; service.name is oci-proxy unless the variables say
// otherwise. The error says what in them cannot be used. Close the Tracer.
func Open(node, version string, log *slog.Logger) (*Tracer, error) {
	if !wanted(os.Getenv) {
		return nil, nil
	}
	if problem := unsupported(os.Getenv); problem != "" {
		return nil, fmt.Errorf("setting up traces: %s", problem)
	}
	ctx := context.Background() // nothing is sent yet
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("setting up traces: %w", err)
	}
	own := resource.WithAttributes(attribute.String("service.name", scope), attribute.String("service.version", version), attribute.String("service.instance.id", node))
	from, err := resource.New(ctx, own, resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("setting up traces: OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	otelapi.SetErrorHandler(&complaints{log: log})
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(from))
	return &Tracer{provider, provider.Tracer(scope)}, nil
}

// Close sends the spans that are left, within 5 s, and ends.
func (t *Tracer) Close(ctx context.Context) {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSpans)
	defer cancel()
	_ = t.provider.Shutdown(ctx) // what is not sent is lost
}

// complaintsEvery is the least time between two lines about spans that could not be sent.
const complaintsEvery = time.Minute

// complaints log what OpenTelemetry says of its own failures. Spans are lost then, and nothing
// else.
type complaints struct {
	log  *slog.Logger
	last atomic.Int64 // when one was logged, in unix nanoseconds
}

// Handle implements otel.ErrorHandler.
func (c *complaints) Handle(err error) {
	now, last := time.Now().UnixNano(), c.last.Load()
	if now-last >= int64(complaintsEvery) && c.last.CompareAndSwap(last, now) {
		c.log.Warn("traces not sent", "error", err)
	}
}
