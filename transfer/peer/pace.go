package peer

import (
	"io"
	"math"
	"net/http"
	"time"
)

const (
	// pieceTime is how long a peer may take for the next piece of an answer.
	pieceTime = time.Minute
	// piece is how many bytes are sent at most under one deadline.
	piece = 1 << 20
)

// A paced writer gives each piece of an answer a deadline of its own, so that
// a reader that is dead is cut, and one that is slow is not. It hands ReadFrom
// through, so that the kernel copies files.
type paced struct {
	http.ResponseWriter
	control *http.ResponseController
	each    time.Duration
	began   bool // a status was written
}

// Unwrap is for http.ResponseController.
func (w *paced) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// extend gives the peer time for the next piece.
func (w *paced) extend() {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.each)) // a writer without deadlines has no slow reader
}

// WriteHeader implements http.ResponseWriter.
func (w *paced) WriteHeader(status int) {
	w.began = true
	w.extend()
	w.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (w *paced) Write(p []byte) (int, error) {
	w.began = true
	sent := 0
	for {
		w.extend()
		k, err := w.ResponseWriter.Write(p[:min(len(p), piece)])
		sent += k
		p = p[k:]
		if err != nil || len(p) == 0 {
			return sent, err
		}
	}
}

// ReadFrom implements io.ReaderFrom. It takes src, which may be a whole layer,
// in pieces.
func (w *paced) ReadFrom(src io.Reader) (int64, error) {
	w.began = true
	limited, ok := src.(*io.LimitedReader)
	if !ok {
		limited = &io.LimitedReader{R: src, N: math.MaxInt64}
	}
	var sent int64
	for limited.N > 0 {
		w.extend()
		step := min(limited.N, piece)
		// One LimitedReader around the file and no more: the kernel copies
		// only what net finds directly below one.
		k, err := io.Copy(w.ResponseWriter, &io.LimitedReader{R: limited.R, N: step})
		limited.N -= k
		sent += k
		if err != nil || k < step {
			return sent, err
		}
	}
	return sent, nil
}
