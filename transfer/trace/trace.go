// Package trace records what becomes of a pull as spans, and sends them to a collector over OTLP
// (OpenTelemetry). It is the only room that knows OpenTelemetry.
//
// A request that enters a node begins a span by the node's [Tracer]; everything below it begins
// further ones by [Start], which needs nothing but the request's context. A node whose
// environment names no collector has no Tracer: then no context has a span, and Start does
// nothing at no cost. What environment variables mean stands in environment.go.
package trace

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	otel "go.opentelemetry.io/otel/trace"
)

// A Tracer begins spans where requests enter a node. A nil one begins none.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   otel.Tracer
}

// scope is what the spans are known by among those of other programs.
const scope = "oci-proxy"

// headers are the fields that carry a span from one process to the next (W3C Trace Context).
var headers propagation.TraceContext

// Begin begins a span of that name, and returns ctx with it. from is the header of the request,
// whose traceparent names the span that it belongs to; nil: it belongs to none. End the span.
func (t *Tracer) Begin(ctx context.Context, name string, from http.Header) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	if from != nil {
		ctx = headers.Extract(ctx, propagation.HeaderCarrier(from))
	}
	ctx, span := t.tracer.Start(ctx, name, otel.WithSpanKind(otel.SpanKindServer))
	return ctx, Span{span}
}

// Start begins a span below that of ctx, and returns ctx with it. If ctx has none that is
// recorded it does nothing. End the span.
func Start(ctx context.Context, name string) (context.Context, Span) {
	parent := otel.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, Span{}
	}
	ctx, span := parent.TracerProvider().Tracer(scope).Start(ctx, name)
	return ctx, Span{span}
}

// Inject names the span of ctx in the header of a request to another node, if there is one.
func Inject(ctx context.Context, h http.Header) {
	if otel.SpanContextFromContext(ctx).IsValid() {
		headers.Inject(ctx, propagation.HeaderCarrier(h))
	}
}

// A Span is a part of a pull that takes time. The zero Span is of a pull that is not recorded.
type Span struct{ span otel.Span }

// On reports whether the span is recorded, so that what is noted about it is worth the effort.
func (s Span) On() bool { return s.span != nil }

// ID names the trace that the span belongs to, as traceparent does: 32 hexadecimal digits. It
// is "" if the span is not recorded.
func (s Span) ID() string {
	if s.span == nil || !s.span.IsRecording() {
		return ""
	}
	return s.span.SpanContext().TraceID().String()
}

// Set notes something about the span. It must be no secret.
func (s Span) Set(key, value string) {
	if s.span != nil {
		s.span.SetAttributes(attribute.String(key, value))
	}
}

// Count is Set for a number.
func (s Span) Count(key string, value int64) {
	if s.span != nil {
		s.span.SetAttributes(attribute.Int64(key, value))
	}
}

// End ends the span. err is why it failed, nil if it did not.
func (s Span) End(err error) {
	if s.span == nil {
		return
	}
	if err != nil {
		s.span.SetStatus(codes.Error, err.Error())
	}
	s.span.End()
}

// A Parent is the span of a context, to be kept for work that outlives that. The zero Parent is
// none.
type Parent struct{ span otel.Span }

// Of returns the span of ctx.
func Of(ctx context.Context) Parent {
	if span := otel.SpanFromContext(ctx); span.IsRecording() {
		return Parent{span}
	}
	return Parent{}
}

// Into returns ctx with the span, whatever span it had.
func (p Parent) Into(ctx context.Context) context.Context {
	if p.span == nil {
		return ctx
	}
	return otel.ContextWithSpan(ctx, p.span)
}
