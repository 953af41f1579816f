// Package journal is how a node's log looks.
//
// [New] puts it in front of a handler of log/slog: lines that belong to a client's request
// name it, and equal lines are counted instead of repeated (quiet.go). [Keys] are all keys
// that a line may have, which is what log_format: json promises (keys.go).
package journal

import (
	"context"
	"fmt"
	"hash/maphash"
	"log/slog"
	"regexp"
	"time"

	"oci-proxy/transfer/oci"
)

// Request is the message of the one line for each request. It is never held back.
const Request = "request"

// A handler passes lines on to next.
type handler struct {
	next  slog.Handler
	quiet *quiet
	with  string // what WithAttrs has added, as in textOf
}

// New returns a handler that passes lines on to next: each names the request that its
// context is for, and of equal lines at level info and above there is one a minute.
func New(next slog.Handler) slog.Handler { return &handler{next: next, quiet: newQuiet()} }

// Enabled implements slog.Handler.
func (h *handler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	to := *h
	to.next = h.next.WithAttrs(attrs)
	for _, a := range attrs {
		to.with += textOf(a)
	}
	return &to
}

// WithGroup implements slog.Handler. The node's lines have no groups.
func (h *handler) WithGroup(name string) slog.Handler {
	to := *h
	to.next = h.next.WithGroup(name)
	return &to
}

// Handle implements slog.Handler.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == Request {
		return h.next.Handle(ctx, r)
	}
	if id := oci.CallerOf(ctx).Request; id != "" {
		r = r.Clone()
		r.AddAttrs(slog.String("request_id", id))
	}
	if r.Level >= slog.LevelInfo && !h.quiet.admit(h.keyOf(&r), r.Message, line{h.next, r}) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

// seed is that of the keys of one process.
var seed = maphash.MakeSeed()

// keyOf is equal for equal lines: those that differ only in the request, in amounts and times,
// or in a port.
func (h *handler) keyOf(r *slog.Record) uint64 {
	var sum maphash.Hash
	sum.SetSeed(seed)
	_, _ = sum.WriteString(r.Message + h.with) // a hash never fails
	r.Attrs(func(a slog.Attr) bool {
		_, _ = sum.WriteString(textOf(a))
		return true
	})
	return sum.Sum64()
}

// port matches the only difference between errors of two connections.
var port = regexp.MustCompile(`:\d+\b`)

// textOf is an attribute as it counts for whether lines are equal.
func textOf(a slog.Attr) string {
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindInt64, slog.KindUint64, slog.KindFloat64, slog.KindDuration, slog.KindTime:
		return ""
	}
	if _, is := v.Any().(time.Time); is || a.Key == "request_id" || a.Key == "stack" {
		return ""
	}
	return fmt.Sprintf("\x00%s=%s", a.Key, port.ReplaceAllString(v.String(), ""))
}
