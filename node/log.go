package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"net/http"
	"oci-proxy/transfer/oci"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// A record is what the log says of one request.
type record struct {
	status int
	bytes  int64
	way    *oci.Provenance
	ref    *oci.Ref
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

func noteFailure(r *http.Request, err error)       { recordOf(r).err = err }
func noteStatus(r *http.Request, status int)       { recordOf(r).status = status }
func noteRef(r *http.Request, ref *oci.Ref)        { recordOf(r).ref = ref }
func noteWay(r *http.Request, way *oci.Provenance) { recordOf(r).way = way }

// logged writes one line for each request that h answers: what one asks at
// night, and neither a query string (it may be signed) nor a header.
func (n *Node) logged(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &record{}
		r = r.WithContext(context.WithValue(r.Context(), recordKey{}, rec))
		defer func() {
			fault := recover()
			if err, ok := fault.(error); fault != nil && !(ok && errors.Is(err, http.ErrAbortHandler)) {
				n.log.Error("request failed by a bug", "fault", fault, "stack", string(debug.Stack()))
				noteStatus(r, http.StatusInternalServerError)
			}
			n.log.LogAttrs(r.Context(), level(r, rec), "request", n.attrs(r, rec, time.Since(start))...)
			if fault != nil {
				panic(http.ErrAbortHandler) // the connection is closed; all else has been said
			}
		}()
		h.ServeHTTP(&response{ResponseWriter: w, control: http.NewResponseController(w), record: rec, head: r.Method == http.MethodHead}, r)
	})
}

// level keeps what asks every few seconds out of the log.
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
func (n *Node) attrs(r *http.Request, rec *record, took time.Duration) []slog.Attr {
	out := []slog.Attr{slog.String("client", n.access.client(r).String()), slog.String("method", clip(r.Method))}
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
	}
	if host := rec.host(); host != "" {
		out = append(out, slog.String("upstream_host", host))
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
	case way.Stale != nil:
		return "stale"
	case confirmed(way):
		return "checked"
	case way.Collapsed:
		return "collapsed"
	default:
		return way.Origin.String()
	}
}

// confirmed reports whether a tag was checked with upstream and still means
// the manifest that the shard holds: nothing but the check went to upstream.
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

const (
	// progress is how long a client may take for the next piece of an answer.
	// Who reads more slowly than that is cut.
	progress = 5 * time.Minute
	// piece is how many bytes are sent at most under one deadline.
	piece = 1 << 20
)

// A response counts what is sent. It hands ReadFrom through, so that the
// kernel copies files (a wrapper without it would cost a third of the speed).
type response struct {
	http.ResponseWriter
	control *http.ResponseController
	record  *record
	head    bool // net/http leaves the body out
}

// Unwrap is for http.ResponseController.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	w.begin(status)
	w.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (w *response) Write(p []byte) (int, error) {
	w.begin(http.StatusOK)
	k, err := w.ResponseWriter.Write(p)
	w.count(int64(k))
	return k, err
}

// ReadFrom implements io.ReaderFrom. It takes src, which may be a whole layer,
// in pieces, each with a deadline of its own.
func (w *response) ReadFrom(src io.Reader) (int64, error) {
	limited, ok := src.(*io.LimitedReader)
	if !ok {
		limited = &io.LimitedReader{R: src, N: math.MaxInt64}
	}
	var sent int64
	for limited.N > 0 {
		w.begin(http.StatusOK)
		step := min(limited.N, piece)
		// One LimitedReader around the file and no more: the kernel copies
		// only what net finds directly below one. Over TLS, and HTTP/2 with it,
		// nobody does that.
		k, err := copyPiece(w.ResponseWriter, &io.LimitedReader{R: limited.R, N: step})
		limited.N -= k
		sent += k
		w.count(k)
		if err != nil || k < step {
			return sent, err
		}
	}
	return sent, nil
}

// buffers are for writers that can't copy themselves.
var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

func copyPiece(w io.Writer, src *io.LimitedReader) (int64, error) {
	if to, ok := w.(io.ReaderFrom); ok {
		return to.ReadFrom(src)
	}
	b := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(b)
	return io.CopyBuffer(w, src, b[:])
}

// count counts what went to the client.
func (w *response) count(k int64) {
	if !w.head {
		w.record.bytes += k
	}
}

// begin notes the status of the answer, if it is the first, and gives the
// client time for the next piece.
func (w *response) begin(status int) {
	if w.record.status == 0 {
		w.record.status = status
	}
	_ = w.control.SetWriteDeadline(time.Now().Add(progress)) // a writer without deadlines has no slow client
}
