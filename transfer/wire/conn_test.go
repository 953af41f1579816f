package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// writes counts the calls by which a server's connections write.
type writes struct {
	net.Listener
	got chan net.Conn
}

func (w writes) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	if err == nil {
		w.got <- c
	}
	return c, err
}

// serveBodies answers GET /N with a body of N bytes, over paced writers and a Listener.
func serveBodies(t *testing.T, answer func(w http.ResponseWriter, r *http.Request)) (addr string, conns <-chan net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan net.Conn, 16)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(Pace(w, r, time.Minute), r) })}
	NewLedger(0, 0).Watch(srv)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(writes{Listener(l), got})
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return l.Addr().String(), got
}

// bodyOf is what serveBodies serves.
func bodyOf(n int) []byte { return bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n] }

// sized answers with as many bytes as the path says, in one Write, with or without a length.
func sized(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(strings.Trim(r.URL.Path, "/"))
	w.Header().Set("Content-Type", "application/octet-stream")
	if r.URL.RawQuery == "" {
		w.Header().Set("Content-Length", strconv.Itoa(n))
	}
	_, _ = w.Write(bodyOf(n))
}

func TestBodiesArriveWhole(t *testing.T) {
	t.Parallel()
	addr, _ := serveBodies(t, sized)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewReader(c)
	for _, n := range []int{0, 1, 511, 512, 2048, least - 1, least, 4096, 8192, 64 << 10, piece, 2*piece + 3} {
		for _, method := range []string{"GET", "HEAD", "GET"} {
			for _, query := range []string{"", "?chunked"} {
				r, _ := http.NewRequest(method, "http://"+addr+"/"+strconv.Itoa(n)+query, nil)
				if err := r.Write(c); err != nil {
					t.Fatal(err)
				}
				resp, err := http.ReadResponse(in, r)
				if err != nil {
					t.Fatalf("%s of %d bytes%s: %v", method, n, query, err)
				}
				got, err := io.ReadAll(resp.Body)
				if want := bodyOf(n); err != nil || method == "GET" && !bytes.Equal(got, want) || method == "HEAD" && len(got) > 0 {
					t.Fatalf("%s of %d bytes%s: %d bytes, %v", method, n, query, len(got), err)
				}
			}
		}
	}
}

func TestHeaderAndSmallBodyLeaveTogether(t *testing.T) {
	t.Parallel()
	sent := make(chan int, 1)
	addr, conns := serveBodies(t, func(w http.ResponseWriter, r *http.Request) {
		sized(w, r)
		sent <- connOf(r).(*Conn).n
	})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-conns
	for _, n := range []int{4 << 10, 16 << 10} {
		if _, err := io.WriteString(c, "GET /"+strconv.Itoa(n)+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if held := <-sent; held != 0 {
			t.Errorf("%d bytes are still held when the body is written", held)
		}
		buf := make([]byte, n+4096)
		k, err := c.Read(buf)
		if err != nil || k <= n { // one write on loopback is one read, if there is room
			t.Errorf("the first read brings %d bytes of a header and %d, %v", k, n, err)
		}
	}
}

func TestWriteToClosedConnectionFails(t *testing.T) {
	t.Parallel()
	failed := make(chan error, 1)
	addr, _ := serveBodies(t, func(w http.ResponseWriter, r *http.Request) {
		_ = connOf(r).(*Conn).TCPConn.CloseWrite()
		w.Header().Set("Content-Length", "4096")
		_, err := w.Write(bodyOf(4096))
		failed <- err
	})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err == nil || errors.Is(err, io.EOF) {
		t.Errorf("writing to a connection that is shut: %v", err)
	}
}

// A body that is longer than the header says is not sent, as net/http has it.
func TestABodyStaysWithinItsLength(t *testing.T) {
	t.Parallel()
	addr, _ := serveBodies(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "4096")
		if _, err := w.Write(bodyOf(8192)); err == nil {
			t.Error("8192 bytes are written under a Content-Length of 4096")
		}
	})
	c, _ := net.Dial("tcp", addr)
	defer c.Close()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	_ = c.SetReadDeadline(time.Now().Add(time.Second))
	_, _ = io.ReadAll(c)
}

// A readFroms counts how often a body is written past net/http's buffer, which takes 32 KiB of memory
// until that is done.
type readFroms struct {
	http.ResponseWriter
	n int
}

func (w *readFroms) ReadFrom(src io.Reader) (int64, error) {
	w.n++
	return w.ResponseWriter.(io.ReaderFrom).ReadFrom(src)
}

// Whoever gets a large body in small pieces, and reads none of them, costs no more than their sum.
func TestOnlyTheFirstPieceGoesPastTheBuffer(t *testing.T) {
	t.Parallel()
	const pieces, size = 5, 8 << 10
	past := make(chan int, 1)
	addr, _ := serveBodies(t, func(w http.ResponseWriter, _ *http.Request) {
		paced := w.(*Paced)
		below := &readFroms{ResponseWriter: paced.ResponseWriter}
		paced.ResponseWriter = below
		w.Header().Set("Content-Length", strconv.Itoa(pieces*size))
		for i := range pieces {
			if _, err := w.Write(bodyOf(pieces * size)[i*size : (i+1)*size]); err != nil {
				t.Error(err)
			}
		}
		past <- below.n
	})
	resp, err := http.Get("http://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(got, bodyOf(pieces*size)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if n := <-past; n != 1 {
		t.Errorf("%d pieces went past the buffer", n)
	}
}

// AwaitEnd takes nothing of what comes, and ends with the deadline or the client.
func TestAwaitEnd(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted, err := Listener(l).Accept()
	if err != nil {
		t.Fatal(err)
	}
	c := accepted.(*Conn)
	defer c.Close()
	for _, sent := range []string{"", "x"} {
		if _, err := io.WriteString(client, sent); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if err := c.AwaitEnd(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after %q: %v", sent, err)
		}
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	var got [2]byte
	if n, err := c.Read(got[:]); n != 1 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.AwaitEnd() }()
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	_ = c.Close()
	if err := c.AwaitEnd(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
