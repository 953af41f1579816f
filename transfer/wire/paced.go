package wire

import (
	"io"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// piece is how many bytes are sent at most under one deadline.
const piece = 1 << 20

// Paced writes an answer in pieces, each with a deadline of its own: a reader
// that is dead is cut, a slow one is not. It counts what it sends. ReadFrom
// reaches the connection, so that the kernel copies files; a wrapper without it
// would cost a third of the speed.
type Paced struct {
	http.ResponseWriter
	control *http.ResponseController
	each    time.Duration
	head    bool
	status  int
	sent    atomic.Int64
	began   time.Time
	body    bool // it has begun
}

// Pace returns a Paced that writes the answer to r to w. The reader may take
// the time each for a piece.
func Pace(w http.ResponseWriter, r *http.Request, each time.Duration) *Paced {
	return &Paced{ResponseWriter: w, control: http.NewResponseController(w), each: each, head: r.Method == http.MethodHead}
}

// Unwrap is for http.ResponseController.
func (w *Paced) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Status is the status of the answer, 0 before it began.
func (w *Paced) Status() int { return w.status }

// Sent is how many bytes of the body were sent. To a HEAD none are.
// Any goroutine may ask.
func (w *Paced) Sent() int64 { return w.sent.Load() }

// Within changes how long the reader may take for each piece that follows.
func (w *Paced) Within(each time.Duration) { w.each = each }

// Began is when the first byte of the body was there to be sent, or the header of an answer
// without one. It is zero before that.
func (w *Paced) Began() time.Time { return w.began }

// WriteHeader implements http.ResponseWriter.
func (w *Paced) WriteHeader(status int) {
	w.extend(status)
	if w.began.IsZero() {
		w.began = time.Now()
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (w *Paced) Write(p []byte) (int, error) {
	w.begin()
	sent := 0
	for {
		w.extend(http.StatusOK)
		k, err := w.ResponseWriter.Write(p[:min(len(p), piece)])
		w.count(int64(k))
		sent += k
		p = p[k:]
		if err != nil || len(p) == 0 {
			return sent, err
		}
	}
}

// ReadFrom implements io.ReaderFrom. src may be a whole layer.
func (w *Paced) ReadFrom(src io.Reader) (int64, error) {
	limited, ok := src.(*io.LimitedReader)
	if !ok {
		limited = &io.LimitedReader{R: src, N: math.MaxInt64}
	}
	w.begin()
	var sent int64
	for limited.N > 0 {
		w.extend(http.StatusOK)
		step := min(limited.N, piece)
		// The kernel copies only a file directly below exactly one LimitedReader.
		// Over TLS, and over HTTP/2 with it, it never does.
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

// begin notes that the body begins.
func (w *Paced) begin() {
	if !w.body {
		w.body, w.began = true, time.Now()
	}
}

// extend gives the reader time for the next piece, and notes the status if the
// answer begins with it.
func (w *Paced) extend(status int) {
	if w.status == 0 {
		w.status = status
	}
	_ = w.control.SetWriteDeadline(time.Now().Add(w.each)) // a writer without deadlines has no slow reader
}

// count counts bytes of the body. net/http sends none to a HEAD.
func (w *Paced) count(k int64) {
	if !w.head {
		w.sent.Add(k)
	}
}

// buffers serve writers that have no ReadFrom.
var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// copyPiece copies src to w, by w's own ReadFrom if it has one.
func copyPiece(w io.Writer, src *io.LimitedReader) (int64, error) {
	if to, ok := w.(io.ReaderFrom); ok {
		return to.ReadFrom(src)
	}
	b := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(b)
	return io.CopyBuffer(w, src, b[:])
}
