package peer

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/mesh"
)

// A cable is a network in memory, for tests with virtual time. While refuse is set, it
// refuses connections.
type cable struct {
	conns chan net.Conn
	done  chan struct{}

	mu     sync.Mutex
	refuse bool
	dials  []time.Duration // when it was dialled, counted from start
	start  time.Time
}

func newCable() *cable {
	return &cable{conns: make(chan net.Conn), done: make(chan struct{}), start: time.Now()}
}

func (w *cable) dial(context.Context, string, string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dials = append(w.dials, time.Since(w.start))
	if w.refuse {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	here, there := net.Pipe()
	w.conns <- there
	return here, nil
}

// set makes the cable refuse or listen, and forgets the dials.
func (w *cable) set(refuse bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuse, w.dials, w.start = refuse, nil, time.Now()
}

// dialled returns the times at which the cable was dialled, counted from the last set.
func (w *cable) dialled() []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dials
}

func (w *cable) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.done:
		return nil, net.ErrClosed
	}
}

func (w *cable) Close() error {
	close(w.done)
	return nil
}

func (w *cable) Addr() net.Addr { return &net.TCPAddr{} }

// inBubble runs fn with a client and its peer b, in virtual time.
func inBubble(t *testing.T, fn func(*Client, *cable, *members)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w, g := newCable(), newMembers("b:1")
		s := NewServer(ServerConfig{Nonce: nonceB, Keys: [][]byte{secret}, Member: g.get, Stats: func() any { return 1 }, Log: slog.New(slog.DiscardHandler)})
		srv := s.HTTP(nil)
		var served sync.WaitGroup
		served.Go(func() { _ = srv.Serve(w) })
		c := NewClient(ClientConfig{Self: func() string { return "a" }, SelfNonce: nonceA, Keys: [][]byte{secret}, Member: g.get, Log: slog.New(slog.DiscardHandler), Dial: w.dial})
		fn(c, w, g)
		c.Close()
		_ = srv.Close()
		served.Wait()
	})
}

// ask1 asks b for something small.
func ask1(c *Client) error {
	_, err := c.Stats(context.Background(), "b")
	return err
}

func seconds(n ...int) []time.Duration {
	var out []time.Duration
	for _, s := range n {
		out = append(out, time.Duration(s)*time.Second)
	}
	return out
}

func TestRefusedPeerIsPingedUntilItIsBack(t *testing.T) {
	t.Parallel()
	inBubble(t, func(c *Client, w *cable, _ *members) {
		if err := ask1(c); err != nil || !c.Healthy("b") {
			t.Fatalf("%v, healthy %v", err, c.Healthy("b"))
		}
		w.set(true)
		linksOf(c)["b"].hangUp()
		if err := ask1(c); !errors.Is(err, syscall.ECONNREFUSED) || c.Healthy("b") {
			t.Fatalf("%v, healthy %v", err, c.Healthy("b"))
		}
		time.Sleep(100 * time.Second) // in the bubble
		if got, want := w.dialled(), seconds(0, 2, 6, 14, 30, 60, 90); !reflect.DeepEqual(got, want) {
			t.Errorf("asked at %v, want %v", got, want)
		}
		w.set(false)
		if err := ask1(c); err != nil || c.Healthy("b") { // a quarantined peer may be asked; only a ping ends the quarantine
			t.Errorf("%v, healthy %v", err, c.Healthy("b"))
		}
		time.Sleep(21 * time.Second) // in the bubble
		if !c.Healthy("b") {
			t.Error("it answers pings and is still quarantined")
		}
		// It fails again soon: its quarantine is as long as before.
		c.Peer("b").Fault(errLate)
		time.Sleep(29 * time.Second) // in the bubble
		if c.Healthy("b") {
			t.Error("its quarantine ended too soon")
		}
		time.Sleep(2 * time.Second) // in the bubble
		if !c.Healthy("b") {
			t.Error("it is quarantined for more than half a minute")
		}
		// It fails after it was well for a while: its quarantine is short again.
		time.Sleep(time.Minute) // in the bubble
		c.Peer("b").Fault(errLate)
		time.Sleep(3 * time.Second) // in the bubble
		if !c.Healthy("b") {
			t.Error("it is quarantined for more than two seconds")
		}
	})
}

func TestRestartedPeerIsHealthy(t *testing.T) {
	t.Parallel()
	inBubble(t, func(c *Client, w *cable, g *members) {
		w.set(true)
		if err := ask1(c); err == nil || c.Healthy("b") {
			t.Fatalf("%v, healthy %v", err, c.Healthy("b"))
		}
		m, _ := g.get("b")
		m.Nonce = []byte("next boot of b")
		g.put(m)
		if !c.Healthy("b") {
			t.Error("the failure of its last boot still counts")
		}
		if err := ask1(c); err == nil || c.Healthy("b") {
			t.Errorf("%v, healthy %v", err, c.Healthy("b"))
		}
		g.drop("b")
		if c.Healthy("b") {
			t.Error("a member that is gone counts as healthy")
		}
		time.Sleep(time.Minute) // in the bubble
		if n := len(w.dialled()); n != 2 || len(linksOf(c)) != 0 {
			t.Errorf("dialled %d times, %d links left", n, len(linksOf(c)))
		}
	})
}

func TestLesserFailuresAddUp(t *testing.T) {
	t.Parallel()
	inBubble(t, func(c *Client, _ *cable, _ *members) {
		if err := ask1(c); err != nil {
			t.Fatal(err)
		}
		l := linksOf(c)["b"]
		minor := func() { _ = c.garbled(l, errLate) }
		minor()
		minor()
		time.Sleep(31 * time.Second) // in the bubble
		minor()
		minor()
		if !c.Healthy("b") {
			t.Error("two minor failures in half a minute quarantine it")
		}
		time.Sleep(29 * time.Second) // in the bubble
		minor()
		if c.Healthy("b") {
			t.Error("three minor failures in half a minute do not quarantine it")
		}
	})
}

func TestResetIsGrave(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err   error
		grave bool
	}{
		{&dialError{errLate}, true},
		{&net.OpError{Op: "read", Err: syscall.ECONNRESET}, true},
		{syscall.EPIPE, true},
		{errLate, false},
		{net.ErrClosed, false},
	} {
		if got := isGrave(c.err); got != c.grave {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}

func TestNothingNeedlessIsSent(t *testing.T) {
	t.Parallel()
	c, _ := liar(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(headerMark, version)
		if r.Header.Get("User-Agent") != "" || r.Header.Get("Accept-Encoding") != "" || r.Header.Get("Idempotency-Key") != "" {
			w.WriteHeader(http.StatusTeapot)
		}
		_, _ = w.Write([]byte("1"))
	})
	if err := ask1(c); err != nil {
		t.Error(err)
	}
}

// A member that gossip has not told of this node yet is asked again, and is not to blame.
func TestAPeerThatDoesNotKnowThisNodeYetIsAskedAgain(t *testing.T) {
	t.Parallel()
	inBubble(t, func(c *Client, _ *cable, g *members) {
		a, _ := g.get("a")
		g.drop("a")
		time.AfterFunc(time.Second, func() { g.put(a) })
		if err := ask1(c); err != nil {
			t.Error(err)
		}
		if p := c.links.pulse("b"); p != well {
			t.Errorf("its pulse is %d, want %d", p, well)
		}
		g.drop("a")
		time.Sleep(strangeTime) // in the bubble
		for i := range strikes {
			if !c.Healthy("b") {
				t.Errorf("%d refusals quarantine it", i)
			}
			began := time.Now()
			if err := ask1(c); !errors.Is(err, errStranger) || time.Since(began) > 0 {
				t.Errorf("%v after %v, want that this node is a stranger, at once", err, time.Since(began))
			}
		}
		if c.Healthy("b") {
			t.Error("one that never knows this node is not quarantined")
		}
	})
}

// A member that never knows this node does not keep a peek waiting for long.
func TestAPeekAtAPeerThatNeverKnowsThisNodeEnds(t *testing.T) {
	t.Parallel()
	inBubble(t, func(c *Client, _ *cable, g *members) {
		g.drop("a")
		began := time.Now()
		at, err := c.Peer("b").Peek(context.Background(), somewhere)
		if took := time.Since(began); at != mesh.Absent || !errors.Is(err, errStranger) || took < strangeTime-peekTime || took > strangeTime+peekTime {
			t.Errorf("%v, %v after %v", at, err, took)
		}
	})
}

// A member that has been late is waited for longer, until it does not answer a ping: then
// it hangs, until it answers one.
func TestPulse(t *testing.T) {
	t.Parallel()
	inBubble(t, func(c *Client, w *cable, _ *members) {
		want := func(p pulse) {
			t.Helper()
			if got := c.links.pulse("b"); got != p {
				t.Errorf("its pulse is %d, want %d", got, p)
			}
		}
		want(well) // nobody has asked it
		if err := ask1(c); err != nil {
			t.Fatal(err)
		}
		want(well)
		l := linksOf(c)["b"]
		_ = c.garbled(l, errLate)
		want(late)
		time.Sleep(31 * time.Second) // in the bubble
		want(well)
		w.set(true)
		c.Peer("b").Fault(errLate)
		want(late)
		time.Sleep(3 * time.Second) // in the bubble
		want(hung)
		w.set(false)
		time.Sleep(10 * time.Second) // in the bubble
		want(well)
	})
}

// One that lied is known as such until it is well again, even if it was in quarantine.
func TestLies(t *testing.T) {
	t.Parallel()
	inBubble(t, func(c *Client, _ *cable, _ *members) {
		if err := ask1(c); err != nil || Lies(c, "b") {
			t.Fatal(err, Lies(c, "b"))
		}
		c.Peer("b").Fault(errLate)
		if c.Healthy("b") || Lies(c, "b") {
			t.Error("one that is late counts as one that lied")
		}
		c.Peer("b").Fault(mesh.ErrLies)
		if c.Healthy("b") || !Lies(c, "b") {
			t.Error("it lied, and that is not known")
		}
		time.Sleep(3 * time.Second) // in the bubble
		if !c.Healthy("b") || Lies(c, "b") {
			t.Error("it is well again, and counts as one that lied")
		}
	})
}
