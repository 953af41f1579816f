package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// socketBuffer bounds what is counted as sent and has not left this machine's kernel.
const socketBuffer = 64 << 10

// A Registry serves blobs under any name, and counts the bytes that it sends of each.
type Registry struct {
	Addr  string       // host:port
	Pace  atomic.Int64 // bytes a second for each answer; 0: no bound
	Fails atomic.Int64 // how many of 1,000 requests for a blob go wrong, but never three in a row

	mu    sync.Mutex
	blobs map[string]*Blob
	sent  map[string]int64    // bytes, by digest
	asked map[string][]string // when each digest was asked for, and from which byte on
	wrong map[string]int      // how many requests for it went wrong in a row
}

// startRegistry listens on addr, and serves until ctx ends.
func startRegistry(ctx context.Context, addr string) (*Registry, error) {
	var listen net.ListenConfig
	l, err := listen.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("starting the registry: %w", err)
	}
	r := &Registry{Addr: l.Addr().String(), blobs: map[string]*Blob{}, sent: map[string]int64{}, asked: map[string][]string{}, wrong: map[string]int{}}
	srv := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetWriteBuffer(socketBuffer) // else the count is a little less exact
		}
		return ctx
	}
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	go func() { _ = srv.Serve(l) }() // ends when srv is closed
	return r, nil
}

// Add makes the registry serve these blobs too.
func (r *Registry) Add(blobs ...*Blob) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, b := range blobs {
		r.blobs[b.Digest] = b
	}
}

// Sent returns how many bytes of each digest were sent.
func (r *Registry) Sent() map[string]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.sent)
}

// Again tells of each blob of which more bytes were sent than it has, when it was asked for. Of
// many it tells of some.
func (r *Registry) Again() (lines []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for digest, bytes := range r.sent {
		if more := bytes - r.blobs[digest].Size; more > 0 && len(lines) < 10 {
			lines = append(lines, fmt.Sprintf("%d bytes more of %s, asked for at %s", more, digest, strings.Join(r.asked[digest], ", ")))
		}
	}
	return lines
}

// note notes that a blob is asked for.
func (r *Registry) note(digest string, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := time.Now().UTC().Format("15:04:05.000") + " " + req.Method
	if from := req.Header.Get("Range"); from != "" {
		at += " (" + from + ")"
	}
	r.asked[digest] = append(r.asked[digest], at)
}

// ServeHTTP implements http.Handler.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	_, digest, found := strings.Cut(req.URL.Path, "/blobs/")
	r.mu.Lock()
	blob := r.blobs[digest]
	r.mu.Unlock()
	switch {
	case req.URL.Path == "/v2/":
		w.WriteHeader(http.StatusOK)
	case !found || blob == nil:
		http.Error(w, `{"errors":[{"code":"BLOB_UNKNOWN"}]}`, http.StatusNotFound)
	default:
		r.note(digest, req)
		w.Header().Set("Docker-Content-Digest", digest)
		w.Header().Set("Content-Type", "application/octet-stream")
		r.deliver(&counted{ResponseWriter: w, registry: r, blob: blob, request: req, left: blob.Size + 1}, req, blob)
	}
}

// goesWrong decides whether a request for a blob goes wrong. Of three in a row one is answered:
// a node asks a registry no more than three times for one answer, so one that fails them all does
// not live for it.
func (r *Registry) goesWrong(digest string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.wrong[digest] == 2 || rand.Int64N(1000) >= r.Fails.Load() {
		r.wrong[digest] = 0
		return false
	}
	r.wrong[digest]++
	return true
}

// deliver sends a blob, or fails in one of four ways.
func (r *Registry) deliver(w *counted, req *http.Request, blob *Blob) {
	if req.Method == http.MethodGet && r.goesWrong(blob.Digest) {
		switch rand.IntN(4) {
		case 0:
			w.Header().Set("Retry-After", "1")
			http.Error(w.ResponseWriter, `{"errors":[{"code":"TOOMANYREQUESTS"}]}`, http.StatusTooManyRequests)
			return
		case 1:
			http.Error(w.ResponseWriter, "out of order", http.StatusServiceUnavailable)
			return
		case 2:
			w.stalls = true
		}
		w.left = rand.Int64N(blob.Size)
	}
	http.ServeContent(w, req, "", time.Time{}, blob.Open())
	if w.left < 0 {
		panic(http.ErrAbortHandler) // so that the connection is cut
	}
}

// errEnds is why an answer ends early.
var errEnds = errors.New("the answer is to end here")

// counted is an answer whose body is counted, paced, and perhaps ended early.
type counted struct {
	http.ResponseWriter
	registry *Registry
	blob     *Blob
	request  *http.Request
	left     int64 // bytes until the answer ends; < 0: it has
	stalls   bool  // it stands still there, and is cut otherwise
}

// ReadFrom keeps http.ServeContent from passing Write by.
func (c *counted) ReadFrom(from io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{c}, from)
}

// Write sends p.
func (c *counted) Write(p []byte) (int, error) {
	ends := int64(len(p)) > c.left
	if ends {
		p = p[:c.left]
	}
	n, err := c.ResponseWriter.Write(p)
	c.registry.count(c.blob.Digest, int64(n))
	c.left -= int64(n)
	if err != nil {
		return n, err
	}
	if ends {
		c.left = -1
		_ = http.NewResponseController(c.ResponseWriter).Flush() // it is cut next
		if c.stalls {
			c.registry.stall(c.request.Context())
		}
		return n, errEnds
	}
	if pace := c.registry.Pace.Load(); pace > 0 {
		pause(c.request.Context(), time.Duration(n)*time.Second/time.Duration(pace))
	}
	return n, nil
}

// stall waits for a minute, until ctx ends, or until nothing is to go wrong any more.
func (r *Registry) stall(ctx context.Context) {
	_ = within(ctx, time.Minute, func(context.Context) error { // what it waited for does not matter
		if r.Fails.Load() > 0 {
			return errLate
		}
		return nil
	})
}

// count notes bytes that were sent.
func (r *Registry) count(digest string, n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent[digest] += n
}

// pause waits until d has passed or ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
