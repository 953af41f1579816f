package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"oci-proxy/node/gate"
	"oci-proxy/node/metrics"
	"oci-proxy/node/rules"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
	"oci-proxy/transfer/wire"
)

// A record is what the log says of one request beside its answer. It is the request's context, too: one
// step leads to all that is noted of it.
type record struct {
	context.Context // that the request came with
	id              [1]string
	status          int // in place of the answer's, 0 for the answer's own
	way             *oci.Provenance
	ref             *oci.Ref
	kind            string // of a pull, "" for other requests
	err             error
	operator        bool // the client may know what the network inside is like
	who             gate.Visitor
	caller          oci.Caller    // the request's id is in it from the start, for whom it is once that is known
	trace           string        // that a pull is recorded as, "" for none
	action          string        // what an operator asks for that changes something, "" for nothing
	queued          time.Duration // how long it waited for its turn, if it took one
	turned          bool          // it took one

	answering *answering // of a pull, for those who watch it
}

type recordKey struct{}

// Value implements context.Context.
func (rec *record) Value(key any) any {
	switch key.(type) {
	case recordKey:
		return rec
	case oci.CallerKey:
		return &rec.caller
	case gate.VisitorKey:
		return &rec.who
	}
	return rec.Context.Value(key)
}

// recordOf returns the record of a request. A request that is not logged gets one
// that nobody reads.
func recordOf(r *http.Request) *record {
	if rec, ok := r.Context().Value(recordKey{}).(*record); ok {
		return rec
	}
	return new(record)
}

func noteOperator(r *http.Request, is bool)     { recordOf(r).operator = is }
func noteFailure(r *http.Request, err error)    { recordOf(r).err = err }
func noteStatus(r *http.Request, status int)    { recordOf(r).status = status }
func noteAction(r *http.Request, action string) { recordOf(r).action = action }
func noteQueue(r *http.Request, d time.Duration) {
	rec := recordOf(r)
	rec.queued, rec.turned = d, true
}

// noteWay notes where the answer comes from.
func noteWay(r *http.Request, way *oci.Provenance) {
	rec := recordOf(r)
	rec.way = way
	if rec.answering != nil {
		rec.answering.came(*way) // the answer goes on changing its own
	}
}

// noteSize notes how long the body of an answer is, -1 if nobody knows.
func noteSize(r *http.Request, size int64) {
	if one := recordOf(r).answering; one != nil {
		one.size.Store(size)
	}
}

// A requestLog writes one line for each request: what people ask at night, but
// neither a query string, which may be signed, nor a header beside User-Agent.
type requestLog struct {
	log     *slog.Logger
	address func(r *http.Request) netip.Addr // of the client
	id      func(r *http.Request) string     // names the request
	counted func(metrics.Answer)
	label   func(registry string) string // of a registry in metrics
}

// around logs each request that h answers. It gives clients time for each piece of
// the answer.
func (l requestLog) around(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &record{Context: r.Context(), id: [1]string{l.id(r)}}
		rec.caller.Request = rec.id[0]
		r = r.WithContext(rec)
		w.Header()[gate.RequestIDHeader] = rec.id[:]
		paced := wire.Pace(w, r, pieceTime)
		defer func() {
			fault := recover()
			if err, ok := fault.(error); fault != nil && !(ok && errors.Is(err, http.ErrAbortHandler)) {
				l.log.Error("request failed because of a bug; please report it", "error", fmt.Sprint(fault), "stack", string(debug.Stack()))
				rec.status = http.StatusInternalServerError
			}
			if rec.status == 0 {
				rec.status = paced.Status()
			}
			l.counted(l.answer(r, rec, paced, start))
			if at := level(r, rec); l.log.Enabled(r.Context(), at) {
				l.log.LogAttrs(r.Context(), at, "request", l.attrs(r, rec, paced, start)...)
			}
			if fault != nil {
				panic(http.ErrAbortHandler) // the connection is closed; the log has the rest
			}
		}()
		h.ServeHTTP(paced, r)
	})
}

// level says who has to act: the operator on a warning, nobody on the rest. It keeps out of
// the log what asks every few seconds.
func level(r *http.Request, rec *record) slog.Level {
	switch {
	case probes(r.URL.Path) && (rec.status < 500 || rec.status == http.StatusServiceUnavailable):
		return slog.LevelDebug
	case rec.status >= 500, rec.err != nil && rec.status < 400 && !clientLeft(r, rec.err):
		return slog.LevelWarn // in the second case the answer broke off
	default:
		return slog.LevelInfo
	}
}

// probes reports whether machines ask for the path every few seconds.
func probes(path string) bool {
	return slices.Contains([]string{"/_/health", "/_/ready", "/_/metrics"}, path)
}

// clientLeft reports whether an answer broke off with err because of its reader. What
// breaks on the way to a registry or another member is an error of theirs.
func clientLeft(r *http.Request, err error) bool {
	if _, theirs := oci.AsError(err); theirs {
		return false
	}
	return r.Context().Err() != nil || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, os.ErrDeadlineExceeded)
}

// attrs are the parts of the line. What they are called and what they mean stands in
// node/journal.
func (l requestLog) attrs(r *http.Request, rec *record, w *wire.Paced, start time.Time) []slog.Attr {
	out := []slog.Attr{slog.String("client", l.address(r).String())}
	if rec.who.User != "" {
		out = append(out, slog.String("user", rec.who.User))
	}
	out = append(out, slog.String("method", clip(r.Method)))
	out = append(out, rec.subject(r)...)
	out = append(out, slog.Int("status", rec.status), slog.Int64("bytes", w.Sent()))
	out = append(out, rec.times(w, start)...)
	if rec.way != nil {
		out = append(out, slog.String("source", source(rec.way)))
	}
	if host := rec.host(); host != "" {
		out = append(out, slog.String("upstream_host", host))
	}
	if rec.action != "" {
		out = append(out, slog.String("action", rec.action))
	}
	out = append(out, slog.String("request_id", rec.caller.Request))
	if rec.trace != "" {
		out = append(out, slog.String("trace_id", rec.trace))
	}
	if agent := r.UserAgent(); agent != "" {
		out = append(out, slog.String("user_agent", clip(agent)))
	}
	if refusal, is := errors.AsType[*rules.Refusal](rec.err); is {
		out = append(out, slog.String("rule", refusal.Place))
	}
	if rec.err != nil {
		out = append(out, slog.String("error", rec.err.Error()))
	}
	return out
}

// subject is what the request is about.
func (rec *record) subject(r *http.Request) []slog.Attr {
	if rec.ref == nil {
		return []slog.Attr{slog.String("path", clip(r.URL.Path))}
	}
	out := []slog.Attr{slog.String("registry", rec.ref.Registry), slog.String("image", rec.ref.Repository)}
	if rec.ref.Tag != "" {
		out = append(out, slog.String("tag", rec.ref.Tag))
	}
	if rec.ref.Digest != "" {
		out = append(out, slog.String("digest", rec.ref.Digest.String()))
	}
	return out
}

// times are how long the whole took, and parts of it.
func (rec *record) times(w *wire.Paced, start time.Time) []slog.Attr {
	out := []slog.Attr{slog.Float64("took_ms", wait.Milliseconds(time.Since(start)))}
	if began := w.Began(); !began.IsZero() {
		out = append(out, slog.Float64("first_byte_ms", wait.Milliseconds(began.Sub(start))))
	}
	if rec.turned {
		out = append(out, slog.Float64("queue_ms", wait.Milliseconds(rec.queued)))
	}
	return out
}

// host is the host that delivered, or else the one that failed.
func (rec *record) host() string {
	if rec.way != nil && rec.way.Host != "" {
		return rec.way.Host
	}
	if rec.way != nil && rec.way.Stale != nil {
		return rec.way.Stale.Host
	}
	if e, ok := errors.AsType[*oci.Error](rec.err); ok {
		return e.Host
	}
	return ""
}

// source is where the bytes came from, in one word.
func source(way *oci.Provenance) string {
	switch {
	case way.Marked():
		return "stale"
	case confirmed(way):
		return "checked"
	case way.Collapsed:
		return "collapsed"
	default:
		return way.Origin.String()
	}
}

// confirmed reports whether a tag was checked with upstream and still means the
// manifest that the shard holds: nothing but the check went to upstream.
func confirmed(way *oci.Provenance) bool {
	return way.Checked && !way.Stored && way.Stale == nil
}

// clip bounds what a client can put into a log line.
func clip(s string) string {
	const most = 300
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}
