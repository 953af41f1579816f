package wire

import (
	"io"
	"math"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// piece is how many bytes are sent at most under one deadline.
	piece = 1 << 20
	// anew is the part of a piece's time after which a body gets a deadline other than its
	// header's: each costs as much as a small answer's header.
	anew = 64
)

// Paced writes an answer in pieces, each with a deadline of its own: a reader
// that is dead is cut, a slow one is not. It counts what it sends. ReadFrom
// reaches the connection, so that the kernel copies files; a wrapper without it
// would cost a third of the speed.
type Paced struct {
	http.ResponseWriter
	control http.ResponseController
	each    time.Duration
	header  time.Time // when it was written, until the body follows
	head    bool
	conn    *Conn // below ResponseWriter; nil: another kind, or HTTP/2, or TLS
	status  int
	sent    atomic.Int64
	began   time.Time
	body    bool // it has begun
}

// Pace returns a Paced that writes the answer to r to w. The reader may take
// the time each for a piece.
func Pace(w http.ResponseWriter, r *http.Request, each time.Duration) *Paced {
	p := &Paced{ResponseWriter: w, control: *http.NewResponseController(w), each: each, head: r.Method == http.MethodHead}
	if c, ok := connOf(r).(interface{ below() *Conn }); ok {
		p.conn = c.below()
	}
	return p
}

// Unwrap is for http.ResponseController.
func (w *Paced) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Status is the status of the answer, 0 before it began.
func (w *Paced) Status() int { return w.status }

// Sent is how many bytes of the body were sent. To a HEAD none are.
// Any goroutine may ask.
func (w *Paced) Sent() int64 { return w.sent.Load() }

// Within changes how long the reader may take for each piece that follows.
func (w *Paced) Within(each time.Duration) { w.each, w.header = each, time.Time{} }

// Began is when the first byte of the body was there to be sent, or the header of an answer
// without one. It is zero before that.
func (w *Paced) Began() time.Time { return w.began }

// WriteHeader implements http.ResponseWriter.
func (w *Paced) WriteHeader(status int) {
	w.header = w.extend(status)
	if w.began.IsZero() {
		w.began = w.header
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (w *Paced) Write(p []byte) (int, error) {
	sent := 0
	for {
		w.begin(w.extend(http.StatusOK))
		k, err := w.write(p[:min(len(p), piece)])
		w.count(int64(k))
		sent += k
		p = p[k:]
		if err != nil || len(p) == 0 {
			return sent, err
		}
	}
}

const (
	// least is the size from which on a body does not fit into net/http's buffer with its header.
	least = 3 << 10
	// small is the size up to which the two leave in one write. For a larger one that saves little,
	// and while its reader is slow, net/http keeps 32 KiB: so that way is not taken for a piece that
	// follows another either, which no header goes along with.
	small = 64 << 10
)

// write writes a piece, past that buffer if it would not fit and net/http would write all of it
// as it is.
func (w *Paced) write(p []byte) (int, error) {
	if w.conn != nil && !w.head && w.sent.Load() == 0 && len(p) >= least && len(p) <= small && w.fits(len(p)) {
		if to, ok := w.ResponseWriter.(io.ReaderFrom); ok {
			return w.conn.writeWhole(to, p)
		}
	}
	return w.ResponseWriter.Write(p)
}

// fits reports whether the header names a length and the first n bytes are within it: the way past
// the buffer checks no length.
func (w *Paced) fits(n int) bool {
	length, err := strconv.ParseInt(w.Header().Get("Content-Length"), 10, 64)
	return err == nil && int64(n) <= length
}

// ReadFrom implements io.ReaderFrom. src may be a whole layer.
func (w *Paced) ReadFrom(src io.Reader) (int64, error) {
	limited, ok := src.(*io.LimitedReader)
	if !ok {
		limited = &io.LimitedReader{R: src, N: math.MaxInt64}
	}
	var sent int64
	for limited.N > 0 {
		w.begin(w.extend(http.StatusOK))
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

// begin notes that the body begins now.
func (w *Paced) begin(now time.Time) {
	if !w.body {
		w.body, w.began = true, now
	}
}

// extend gives the reader time for the next piece from now on, and notes the status if the
// answer begins with it.
func (w *Paced) extend(status int) (now time.Time) {
	if w.status == 0 {
		w.status = status
	}
	now = time.Now()
	if now.Sub(w.header) > w.each/anew { // else the reader has had no time yet
		_ = w.control.SetWriteDeadline(now.Add(w.each)) // a writer without deadlines has no slow reader
	}
	w.header = time.Time{}
	return now
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
