package node

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"oci-proxy/transfer"
)

// A record is what the log says of one request.
type record struct {
	status int
	bytes  int64
	way    *transfer.Way
	ref    *transfer.Ref
	err    error
}

type recordKey struct{}

// recordOf returns the record of a request. Requests that did not come through
// logged get one that nobody reads.
func recordOf(r *http.Request) *record {
	if rec, ok := r.Context().Value(recordKey{}).(*record); ok {
		return rec
	}
	return new(record)
}

func noteFailure(r *http.Request, err error)     { recordOf(r).err = err }
func noteStatus(r *http.Request, status int)     { recordOf(r).status = status }
func noteRef(r *http.Request, ref *transfer.Ref) { recordOf(r).ref = ref }
func noteWay(r *http.Request, way *transfer.Way) { recordOf(r).way = way }

// logged writes one line for each request that h answers: what one asks at
// night, and neither a query string (it may be signed) nor a header.
func (n *Node) logged(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &record{}
		r = r.WithContext(context.WithValue(r.Context(), recordKey{}, rec))
		defer func() { n.log.LogAttrs(r.Context(), level(r, rec), "request", n.attrs(r, rec, time.Since(start))...) }()
		h.ServeHTTP(&response{ResponseWriter: w, control: http.NewResponseController(w), record: rec}, r)
	})
}

// level keeps what asks every few seconds out of the log.
func level(r *http.Request, rec *record) slog.Level {
	if rec.status < 500 && (r.URL.Path == "/_/health" || r.URL.Path == "/_/ready") {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// attrs are the parts of the line.
func (n *Node) attrs(r *http.Request, rec *record, took time.Duration) []slog.Attr {
	out := []slog.Attr{slog.String("client", n.access.client(r).String()), slog.String("method", r.Method)}
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
	out = append(out, slog.Int("status", rec.status), slog.Int64("bytes", rec.bytes), slog.Duration("took", took.Round(time.Microsecond)))
	if rec.way != nil {
		out = append(out, slog.String("source", source(rec.way)))
		if rec.way.Host != "" {
			out = append(out, slog.String("upstream_host", rec.way.Host))
		}
	}
	if rec.err != nil {
		out = append(out, slog.String("error", rec.err.Error()))
	}
	return out
}

// source is where the bytes came from, in one word.
func source(way *transfer.Way) string {
	switch {
	case way.Stale != nil:
		return "stale"
	case way.Collapsed:
		return "collapsed"
	default:
		return way.From.String()
	}
}

// clip bounds what a client can put into a log line.
func clip(s string) string {
	const most = 300
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// progress is how long a client may take for the next piece of an answer, a
// MiB at most. Who reads more slowly than that is cut.
const progress = 5 * time.Minute

// A response counts what is sent. It hands ReadFrom through, so that the
// kernel copies files (a wrapper without it would cost a third of the speed).
type response struct {
	http.ResponseWriter
	control *http.ResponseController
	record  *record
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	if w.record.status == 0 {
		w.record.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (w *response) Write(p []byte) (int, error) {
	w.begin()
	k, err := w.ResponseWriter.Write(p)
	w.record.bytes += int64(k)
	return k, err
}

// ReadFrom implements io.ReaderFrom.
func (w *response) ReadFrom(src io.Reader) (int64, error) {
	w.begin()
	k, err := io.Copy(w.ResponseWriter, src)
	w.record.bytes += k
	return k, err
}

// begin gives the client time for the next piece.
func (w *response) begin() {
	if w.record.status == 0 {
		w.record.status = http.StatusOK
	}
	_ = w.control.SetWriteDeadline(time.Now().Add(progress)) // a writer without deadlines has no slow client
}
