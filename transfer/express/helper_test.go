package express

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/wire"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// A site is a server, with a lane or without.
type site struct {
	srv    *http.Server
	lane   *Lane // nil: there is none
	ledger *wire.Ledger
	addr   string
	conns  chan *net.TCPConn // as they are accepted
	asked  atomic.Int64      // requests that the handler had
	ahead  atomic.Int64      // of them, those of the lane
	rested atomic.Int64      // how often the ledger heard that a connection is idle
}

// pace is how long readers may take for a piece.
const pace = time.Minute

// taps tells of connections as they are accepted.
type taps struct {
	net.Listener
	conns chan *net.TCPConn
}

func (l taps) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok {
		select {
		case l.conns <- tcp:
		default:
		}
	}
	return c, err
}

// start serves h until the test ends. Paths that begin with /v2/held are held.
func start(tb testing.TB, lane bool, h http.HandlerFunc, with ...func(*site)) *site {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := &site{addr: l.Addr().String(), conns: make(chan *net.TCPConn, 64), ledger: wire.NewLedger(0, 0)}
	s.srv = &http.Server{ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: testkit.Patience, IdleTimeout: testkit.Patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		s.ledger.Begin(r)
		if _, ok := w.(*answer); ok {
			s.ahead.Add(1)
		}
		h(w, r)
	})}
	for _, change := range with {
		change(s)
	}
	s.ledger.Watch(s.srv)
	note := s.srv.ConnState
	s.srv.ConnState = func(c net.Conn, state http.ConnState) {
		note(c, state)
		if state == http.StateIdle {
			s.rested.Add(1)
		}
	}
	var in net.Listener = taps{l, s.conns}
	if lane {
		s.lane = New(s.srv, func(path string) bool { return strings.HasPrefix(path, "/v2/held") })
		in = s.lane.Listener(in)
	} else {
		in = wire.Listener(in)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = s.srv.Serve(in)
	}()
	tb.Cleanup(func() {
		if s.lane != nil {
			ctx, cancel := context.WithTimeout(context.Background(), testkit.Patience)
			defer cancel()
			if err := s.lane.Shutdown(ctx); err != nil {
				tb.Error(err)
			}
		}
		_ = s.srv.Close()
		<-over
	})
	return s
}

// paced is a handler whose answers are paced, as the node's are.
func paced(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { h(wire.Pace(w, r, pace), r) }
}

// dial opens a connection, and returns the server's end of it too.
func (s *site) dial(tb testing.TB) (ours, theirs *net.TCPConn) {
	tb.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(testkit.Patience)); err != nil {
		tb.Fatal(err)
	}
	return c.(*net.TCPConn), <-s.conns
}

// talk opens a connection over which net/http has answered once, so that the lane is next.
func (s *site) talk(t *testing.T) (*net.TCPConn, *bufio.Reader) {
	t.Helper()
	c, _ := s.dial(t)
	in := bufio.NewReader(c)
	ask(t, c, in, other)
	return c, in
}

// taken reports whether the server has read all that came, or ended the connection.
func taken(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	var buf [1]byte
	n := 0
	err = raw.Control(func(fd uintptr) {
		n, _, _ = syscall.Recvfrom(int(fd), buf[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return n <= 0 || err != nil
}

// converse sends segments one after the other, each once the server has read the one before, and
// returns all that comes back.
func (s *site) converse(tb testing.TB, segments ...string) (answers string, err error) {
	tb.Helper()
	ours, theirs := s.dial(tb)
	defer func() { _ = ours.Close() }()
	for _, one := range segments {
		if _, err := io.WriteString(ours, one); err != nil {
			break // the server has ended the connection
		}
		for end := time.Now().Add(testkit.Patience); !taken(theirs); runtime.Gosched() { // Await looks too rarely for so many
			if time.Now().After(end) {
				tb.Fatalf("the server has not read %q", one)
			}
		}
	}
	_ = ours.CloseWrite()
	all, err := io.ReadAll(ours)
	return string(all), err
}

// shapes are answers of each kind, by the last part of the path.
func shapes(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h["X-Content-Type-Options"], h["Etag"] = []string{"nosniff"}, []string{`"sha256:0"`}
	h.Set("X-Seen", seen(r))
	kind, number, _ := strings.Cut(r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:], "-")
	n, _ := strconv.Atoi(number)
	n = min(max(n, 0), 1<<20)
	body := []byte(strings.Repeat("0123456789abcdef", n/16+1)[:n])
	switch kind {
	case "told":
		h.Set("Content-Type", "application/octet-stream")
		h.Set("Content-Length", strconv.Itoa(n))
		_, _ = w.Write(body)
	case "pieces":
		h.Set("Content-Length", strconv.Itoa(n))
		for len(body) > 0 {
			k, _ := w.Write(body[:min(len(body), 700)])
			body = body[k:]
		}
	case "status":
		w.WriteHeader(min(max(n, 200), 599))
	case "failed":
		h.Set("Content-Length", "3")
		w.WriteHeader(http.StatusNotFound)
		h.Set("X-Late", "not sent")
		_, _ = w.Write([]byte("no\n"))
	case "more":
		h.Set("Content-Length", strconv.Itoa(n+1))
		_, _ = w.Write(body)
	case "less":
		h.Set("Content-Length", strconv.Itoa(n))
		_, err := w.Write(append(body, 'x'))
		h.Set("X-Error", fmt.Sprint(err))
	case "odd":
		h["X-Odd"] = []string{" a\r\nb ", "c\nd"}
		h.Set("Content-Length", strconv.Itoa(n))
		_, _ = w.Write(body)
	case "close":
		h.Set("Connection", "close")
		h.Set("Content-Length", strconv.Itoa(n))
		_, _ = w.Write(body)
	case "date":
		h["Date"] = nil
		w.WriteHeader(http.StatusOK)
		w.WriteHeader(http.StatusTeapot)
	case "abort":
		panic(http.ErrAbortHandler)
	}
}

// seen is all that a handler can see of a request.
func seen(r *http.Request) string {
	var fields []string
	for name, values := range r.Header {
		fields = append(fields, fmt.Sprintf("%s=%q", name, values))
	}
	slices.Sort(fields)
	body, err := io.ReadAll(r.Body)
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	_, local := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	_, server := r.Context().Value(http.ServerContextKey).(*http.Server)
	return fmt.Sprintf("%s %q %+v %s %d %d %q %q %v %d %v %d %v %v %v %v", r.Method, r.RequestURI, *r.URL, r.Proto, r.ProtoMajor, r.ProtoMinor,
		r.Host, fields, r.Close, r.ContentLength, r.TransferEncoding, len(body), err, host, local, server)
}
