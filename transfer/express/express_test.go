package express

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/wire"
)

// ask sends a request over a connection and reads the answer.
func ask(t *testing.T, c net.Conn, in *bufio.Reader, request string) (*http.Response, []byte) {
	t.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(in, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no answer to %q: %v", request, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

// ended fails the test unless the server ends the connection.
func ended(t *testing.T, in io.Reader) {
	t.Helper()
	if n, err := io.Copy(io.Discard, in); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes and %v, not the connection's end", n, err)
	}
}

// A head that comes in two pieces is net/http's, wherever it is cut, and so is all that follows:
// the second piece may look like a request.
func TestPiecesAreNeverTakenForRequests(t *testing.T) {
	t.Parallel()
	with, without := start(t, true, paced(shapes)), start(t, false, paced(shapes))
	hidden := "GET /v2/ HTTP/1.1\r\nHost: a\r\nX: " + asks
	posts := "POST /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: " + strconv.Itoa(len(asks)) + "\r\n\r\n" + asks
	step := len(asks) / testkit.Times(len(asks)/4, len(asks)) // each byte in a long run
	for _, all := range []string{asks + other, hidden, posts} {
		for i := 1; i < len(all); i += step {
			compare(t, with, without, other, all[:i], all[i:])
		}
		compare(t, with, without, all[:len(all)-len(asks)], all[len(all)-len(asks):])
	}
	compare(t, with, without, "GET /v2/ HTTP/1.1\r\nHost: a\r\nX: ", asks, asks)
	compare(t, with, without, other, asks, "GET /v2/ HTTP/1.1\r\nHost: a\r\nX: ", asks, asks)
	compare(t, with, without, posts[:len(posts)-len(asks)], asks, asks)
	compare(t, with, without, other, asks, posts[:len(posts)-len(asks)], asks, asks)
}

// The lane answers what is held, before and after net/http has answered, until something comes
// whose end is not clear.
func TestWhoAnswers(t *testing.T) {
	t.Parallel()
	const odd = "POST /v2/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
	for name, c := range map[string]struct {
		segments []string
		ahead    int64
	}{
		"held":                     {[]string{asks, asksTo, asks, asks}, 3}, // each connection begins with net/http
		"a ping first":             {[]string{other, asks, other, asks}, 2},
		"two at once":              {[]string{other, asks + asks, asks}, 0},
		"two at once first":        {[]string{asks + asks, asks}, 0},
		"a body":                   {[]string{other, asks, odd, asks}, 1},
		"a body first":             {[]string{odd, asks}, 0},
		"two pieces":               {[]string{other, asks[:5], asks[5:], asks}, 0},
		"two pieces first":         {[]string{asks[:5], asks[5:], asks}, 0},
		"not held":                 {[]string{other, strings.Replace(asks, "held", "gone", 1), asks}, 1},
		"fields that nobody knows": {[]string{other, strings.Replace(asks, "User-Agent", "X-Forwarded-For", 1), asks}, 1},
		"a query":                  {[]string{other, strings.Replace(asks, " HTTP", "?ns=x HTTP", 1), asks}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, true, paced(shapes))
			if _, err := s.converse(t, c.segments...); err != nil {
				t.Fatal(err)
			}
			all := int64(strings.Count(strings.Join(c.segments, ""), " HTTP/1.1\r\n"))
			if got := s.asked.Load(); got != all {
				t.Errorf("%d of %d requests came to the handler", got, all)
			}
			if got := s.ahead.Load(); got != c.ahead {
				t.Errorf("the lane answered %d requests, want %d", got, c.ahead)
			}
		})
	}
}

// TestWhatComesMeanwhile: a request that comes while net/http answers another is the lane's then. net/http
// hears that a client leaves, but of no byte.
func TestWhatComesMeanwhile(t *testing.T) {
	t.Parallel()
	began, goOn, left := make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	s := start(t, true, paced(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v2/wait":
			began <- struct{}{}
			<-goOn
			if r.Context().Err() != nil {
				t.Error("the client has not left")
			}
		case "/v2/leave":
			began <- struct{}{}
			<-r.Context().Done()
			close(left)
		}
		shapes(w, r)
	}))
	c, in := s.talk(t)
	for _, next := range []string{asks, asks + asks} {
		if _, err := io.WriteString(c, strings.Replace(other, "/v2/", "/v2/wait", 1)); err != nil {
			t.Fatal(err)
		}
		<-began
		if _, err := io.WriteString(c, next); err != nil {
			t.Fatal(err)
		}
		goOn <- struct{}{}
		for range 1 + strings.Count(next, asks) {
			if resp, err := http.ReadResponse(in, nil); err != nil {
				t.Fatal(err)
			} else if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := s.ahead.Load(); n != 1 {
		t.Errorf("the lane answered %d requests, want that which came alone", n)
	}
	c, _ = s.talk(t)
	if _, err := io.WriteString(c, strings.Replace(other, "/v2/", "/v2/leave", 1)); err != nil {
		t.Fatal(err)
	}
	<-began
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	<-left
}

// A shutdown waits for an answer under way, ends what is idle, and lets no other answer begin.
func TestShutdownCutsNoAnswer(t *testing.T) {
	t.Parallel()
	began, goOn := make(chan struct{}), make(chan struct{})
	s := start(t, true, paced(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "told-7") {
			close(began)
			<-goOn
		}
		shapes(w, r)
	}))
	idle, idleIn := s.talk(t)
	ask(t, idle, idleIn, asks)
	busy, busyIn := s.talk(t)
	late, lateIn := s.talk(t)
	if _, err := io.WriteString(busy, strings.Replace(asks, "told-4096", "told-7", 1)); err != nil {
		t.Fatal(err)
	}
	<-began
	down := make(chan error, 1)
	go func() { down <- errors.Join(s.lane.Shutdown(t.Context()), s.srv.Shutdown(t.Context())) }()
	testkit.Await(t, "the shutdown has begun", s.lane.closing.Load)
	ask(t, late, lateIn, asks) // net/http answers
	if n := s.ahead.Load(); n != 2 {
		t.Errorf("%d answers of the lane, want none after Shutdown began", n)
	}
	select {
	case err := <-down:
		t.Errorf("Shutdown did not wait: %v", err)
	default:
	}
	close(goOn)
	resp, err := http.ReadResponse(busyIn, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); len(body) != 7 || err != nil || !resp.Close {
		t.Errorf("%d bytes, %v, close %v", len(body), err, resp.Close)
	}
	ended(t, busyIn)
	ended(t, idleIn)
	ended(t, lateIn)
	if err := <-down; err != nil {
		t.Error(err)
	}
}

// Shutdown waits no longer than its context.
func TestShutdownEnds(t *testing.T) {
	t.Parallel()
	began, goOn := make(chan struct{}), make(chan struct{})
	s := start(t, true, paced(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			close(began)
			<-goOn
		}
	}))
	c, _ := s.talk(t)
	if _, err := io.WriteString(c, asks); err != nil {
		t.Fatal(err)
	}
	<-began
	defer close(goOn)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.lane.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A reader that is dead is cut; its deadline does not outlive the answer.
func TestDeadlinesOfWriting(t *testing.T) {
	t.Parallel()
	cut := make(chan error, 1)
	const soon = 50 * time.Millisecond
	s := start(t, true, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v2/held/dead":
			w = wire.Pace(w, r, soon)
			w.Header().Set("Content-Length", strconv.Itoa(64<<20))
			_, err := w.Write(make([]byte, 64<<20))
			cut <- err
		case "/v2/held/quick":
			shapes(wire.Pace(w, r, soon), r)
		case "/v2/late":
			over := time.Now().Add(2 * soon)
			testkit.Await(t, "the time of the answer before is over", func() bool { return time.Now().After(over) })
			_, _ = w.Write([]byte("whole"))
		}
	})
	c, _ := s.talk(t)
	if _, err := io.WriteString(c, strings.Replace(asks, "told-4096", "dead", 1)); err != nil {
		t.Fatal(err)
	}
	if err := <-cut; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the writer got %v", err)
	}
	c, in := s.talk(t)
	ask(t, c, in, strings.Replace(asks, "told-4096", "quick", 1))
	if _, body := ask(t, c, in, strings.Replace(other, "/v2/", "/v2/late", 1)); string(body) != "whole" {
		t.Errorf("%q", body)
	}
}

// What is idle, and half a head, end in the time that the server sets.
func TestDeadlinesOfReading(t *testing.T) {
	t.Parallel()
	for name, sent := range map[string]string{"idle": "", "half a head": "GET /v2"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s *site
			s = start(t, true, paced(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case !strings.HasPrefix(r.URL.Path, "/v2/held/"): // another request follows
				case sent == "":
					s.srv.IdleTimeout = time.Millisecond
				default:
					s.srv.ReadHeaderTimeout = time.Millisecond
				}
				shapes(w, r)
			}))
			c, in := s.talk(t)
			ask(t, c, in, asks)
			_, _ = io.WriteString(c, sent) // the connection may have ended
			if _, err := io.Copy(io.Discard, in); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection stays")
			}
		})
	}
}

// The deadline of an idle connection moves on with its answers, once a second at most.
func TestIdleTimeIsRenewed(t *testing.T) {
	t.Parallel()
	s := start(t, true, paced(shapes))
	client, theirs := s.dial(t)
	_ = client.Close()
	c := &conn{Conn: &wire.Conn{TCPConn: theirs}, lane: s.lane}
	begin := time.Now()
	for _, step := range []struct {
		after time.Duration
		moves bool
	}{{0, true}, {renewal / 2, false}, {renewal, false}, {renewal + 1, true}, {renewal + 2, false}} {
		now := begin.Add(step.after)
		c.rest(now)
		if moved := c.renewed.Equal(now); moved != step.moves {
			t.Errorf("after %s: moved %v", step.after, moved)
		}
	}
}

// For the ledger a connection of the lane is as busy as one of net/http.
func TestTheLedgerSeesWhoAsked(t *testing.T) {
	t.Parallel()
	s := start(t, true, paced(shapes), func(s *site) { s.ledger = wire.NewLedger(2, 0) })
	told := int64(0)
	rested := func() {
		told++
		testkit.Await(t, "the ledger knows", func() bool { return s.rested.Load() == told })
	}
	first, firstIn := s.talk(t)
	rested()
	second, secondIn := s.talk(t)
	rested()
	ask(t, second, secondIn, asks)
	rested()
	ask(t, first, firstIn, asks)
	rested()
	s.talk(t)
	ended(t, secondIn)
	ask(t, first, firstIn, asks)
	if n := s.ahead.Load(); n != 3 {
		t.Errorf("the lane answered %d requests", n)
	}
}

// Answers of each kind are the lane's, with net/http's bytes.
func TestShapes(t *testing.T) {
	t.Parallel()
	for _, h := range []http.HandlerFunc{paced(shapes), shapes} {
		with, without := start(t, true, h), start(t, false, h)
		for _, shape := range kinds {
			for _, method := range []string{"GET", "HEAD"} {
				before := with.ahead.Load()
				one := method + " /v2/held/" + shape + " HTTP/1.1\r\nHost: a\r\n\r\n"
				compare(t, with, without, other, one, asks)
				compare(t, with, without, other, asks, one)
				if n := with.ahead.Load() - before; n < 3 {
					t.Errorf("%s: the lane answered %d requests", shape, n)
				}
			}
		}
	}
}

// A writer that is kept reaches no other answer.
func TestAKeptWriter(t *testing.T) {
	t.Parallel()
	kept := make(chan http.ResponseWriter, 1)
	s := start(t, true, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v2/held/keep":
			kept <- w
			w.Header().Set("Content-Length", "4")
			_, _ = w.Write([]byte("abcd"))
		case "/v2/held/told-4096":
			old := <-kept
			old.Header().Set("X-Old", "1")
			if n, err := old.Write([]byte("x")); n != 0 || err == nil {
				t.Errorf("wrote %d bytes, %v", n, err)
			}
		}
	})
	c, in := s.talk(t)
	ask(t, c, in, strings.Replace(asks, "told-4096", "keep", 1))
	if resp, body := ask(t, c, in, asks); len(body) != 0 || resp.Header.Get("X-Old") != "" {
		t.Errorf("%q, %v", body, resp.Header)
	}
}

// What a dead reader did not get is not counted as sent.
func TestSentIsWhatWasSent(t *testing.T) {
	t.Parallel()
	const size = 64 << 20 // more than the sockets hold
	sent := make(chan int64, 1)
	s := start(t, true, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		p := wire.Pace(w, r, 50*time.Millisecond)
		p.Header().Set("Content-Length", strconv.Itoa(size))
		_, _ = p.Write(make([]byte, size))
		sent <- p.Sent()
	})
	c, in := s.talk(t)
	if _, err := io.WriteString(c, asks); err != nil {
		t.Fatal(err)
	}
	n := <-sent
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.Copy(io.Discard, resp.Body); got > n || n >= size || err == nil {
		t.Errorf("%d bytes came, %d were counted, %v", got, n, err)
	}
}

// The context of a request ends with its answer.
func TestTheContextEnds(t *testing.T) {
	t.Parallel()
	contexts := make(chan context.Context, 1)
	s := start(t, true, paced(func(w http.ResponseWriter, r *http.Request) {
		if r.Context().Err() != nil {
			t.Error("it has ended before")
		}
		contexts <- r.Context()
		shapes(w, r)
	}))
	c, in := s.talk(t)
	<-contexts
	ask(t, c, in, asks)
	<-(<-contexts).Done()
}

// Files that are written piece by piece arrive whole.
func TestFiles(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/file"
	content := strings.Repeat("0123456789abcdef", 200<<10)
	testkit.Replace(t, path, content)
	s := start(t, true, paced(func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(path)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = f.Close() }()
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		if n, err := w.(io.ReaderFrom).ReadFrom(f); n != int64(len(content)) || err != nil {
			t.Error(n, err)
		}
	}))
	c, in := s.talk(t)
	for range 2 {
		if _, body := ask(t, c, in, asks); string(body) != content {
			t.Errorf("%d bytes, and not those of the file", len(body))
		}
		if _, body := ask(t, c, in, strings.Replace(asksTo, "told-10", "told", 1)); len(body) != 0 {
			t.Errorf("%d bytes to a HEAD", len(body))
		}
	}
	if n := s.ahead.Load(); n != 4 {
		t.Errorf("%d answers of the lane", n)
	}
}

// A body whose length the handler does not tell ends with the connection.
func TestABodyOfUntoldLengthEndsWithTheConnection(t *testing.T) {
	t.Parallel()
	content := strings.Repeat("0123456789abcdef", 2<<10)
	s := start(t, true, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, content[:5])
		_, _ = io.WriteString(w, content[5:])
	})
	c, in := s.talk(t)
	if resp, body := ask(t, c, in, asks); string(body) != content || !resp.Close || resp.ContentLength != -1 {
		t.Errorf("%d bytes, %+v", len(body), resp)
	}
	ended(t, in)
	if n := s.ahead.Load(); n != 1 {
		t.Errorf("%d answers of the lane", n)
	}
}

// Many clients at a time get their own answers.
func TestManyClients(t *testing.T) {
	t.Parallel()
	s := start(t, true, paced(shapes))
	var all sync.WaitGroup
	for i := range 16 {
		c, in := s.talk(t)
		all.Go(func() {
			for j := range testkit.Times(40, 400) {
				n := 1 + (i*7919+j*104729)%20000
				request := strings.Replace(asks, "told-4096", "told-"+strconv.Itoa(n), 1)
				if j%5 == 0 {
					request = other
					n = 0
				}
				if _, body := ask(t, c, in, request); len(body) != n {
					t.Errorf("%d bytes, want %d", len(body), n)
				}
			}
		})
	}
	all.Wait()
}
