package node

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"oci-proxy/node/metrics"
	"oci-proxy/node/rules"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wire"
)

// A record is what the log says of one request beside its answer.
type record struct {
	status   int // in place of the answer's, 0 for the answer's own
	way      *oci.Provenance
	ref      *oci.Ref
	kind     string // of a pull, "" for other requests
	err      error
	operator bool // the client may know what the network inside is like
}

type recordKey struct{}

// recordOf returns the record of a request. A request that is not logged gets one
// that nobody reads.
func recordOf(r *http.Request) *record {
	if rec, ok := r.Context().Value(recordKey{}).(*record); ok {
		return rec
	}
	return new(record)
}

func noteOperator(r *http.Request, is bool)        { recordOf(r).operator = is }
func noteFailure(r *http.Request, err error)       { recordOf(r).err = err }
func noteStatus(r *http.Request, status int)       { recordOf(r).status = status }
func noteWay(r *http.Request, way *oci.Provenance) { recordOf(r).way = way }

// noteRequest notes what a pull asks for.
func noteRequest(r *http.Request, req *oci.Request) {
	rec := recordOf(r)
	rec.ref, rec.kind = &req.Ref, pullKind(req)
}

// A requestLog writes one line for each request: what people ask at night, but
// neither a query string, which may be signed, nor a header.
type requestLog struct {
	log     *slog.Logger
	address func(r *http.Request) netip.Addr // of the client
	counted func(metrics.Answer)
	label   func(registry string) string // of a registry in metrics
}

// around logs each request that h answers. It gives clients time for each piece of
// the answer.
func (l requestLog) around(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &record{}
		r = r.WithContext(context.WithValue(r.Context(), recordKey{}, rec))
		paced := wire.Pace(w, r, pieceTime)
		defer func() {
			fault := recover()
			if err, ok := fault.(error); fault != nil && !(ok && errors.Is(err, http.ErrAbortHandler)) {
				l.log.Error("request failed because of a bug; please report it", "fault", fault, "stack", string(debug.Stack()))
				rec.status = http.StatusInternalServerError
			}
			if rec.status == 0 {
				rec.status = paced.Status()
			}
			l.counted(l.answer(r, rec, paced, start))
			l.log.LogAttrs(r.Context(), level(r, rec), "request", l.attrs(r, rec, paced.Sent(), time.Since(start))...)
			if fault != nil {
				panic(http.ErrAbortHandler) // the connection is closed; the log has the rest
			}
		}()
		h.ServeHTTP(paced, r)
	})
}

// level keeps out of the log what asks every few seconds.
func level(r *http.Request, rec *record) slog.Level {
	switch r.URL.Path {
	case "/_/health", "/_/ready", "/_/metrics":
		if rec.status < 500 {
			return slog.LevelDebug
		}
	}
	return slog.LevelInfo
}

// attrs are the parts of the line.
func (l requestLog) attrs(r *http.Request, rec *record, sent int64, took time.Duration) []slog.Attr {
	out := []slog.Attr{slog.String("client", l.address(r).String()), slog.String("method", clip(r.Method))}
	if rec.ref != nil {
		out = append(out, slog.String("registry", rec.ref.Registry), slog.String("image", rec.ref.Repository))
		if rec.ref.Tag != "" {
			out = append(out, slog.String("tag", rec.ref.Tag))
		}
		if rec.ref.Digest != "" {
			out = append(out, slog.String("digest", rec.ref.Digest.String()))
		}
	} else {
		out = append(out, slog.String("path", clip(r.URL.Path)))
	}
	out = append(out, slog.Int("status", rec.status), slog.Int64("bytes", sent), slog.Duration("took", took.Round(time.Microsecond)))
	if rec.way != nil {
		out = append(out, slog.String("source", source(rec.way)))
	}
	if host := rec.host(); host != "" {
		out = append(out, slog.String("upstream_host", host))
	}
	if refusal, is := errors.AsType[*rules.Refusal](rec.err); is {
		out = append(out, slog.String("rule", refusal.Place))
	}
	if rec.err != nil {
		out = append(out, slog.String("error", rec.err.Error()))
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
