package peer

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"testing"

	"oci-proxy/transfer/oci"
)

// deaths returns a client of the members, and where it tells who is dead.
func deaths(t *testing.T, g *members) (*Client, chan string) {
	t.Helper()
	dead := make(chan string, 10)
	c := NewClient(ClientConfig{
		Self: func() string { return "a" }, SelfNonce: nonceA, Keys: [][]byte{secret}, Member: g.get, Log: slog.New(slog.DiscardHandler),
		Dead: func(id string, boot uint64) { dead <- fmt.Sprint(id, ".", boot) },
	})
	c.times.peek, c.times.progress = c.times.call, c.times.call // the machine may be busy
	t.Cleanup(c.Close)
	return c, dead
}

// An idle connection shows that the process at its other end has ended, before anybody asks
// it anything.
func TestTheEndOfAConnectionShowsADeath(t *testing.T) {
	t.Parallel()
	for name, secured := range map[string]bool{"plain": false, "over TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ends := make(chan func(), 1)
			r := newRig(t, setup{tls: secured, listener: func(l net.Listener) net.Listener {
				e := &ending{Listener: l, conns: make(chan net.Conn, 10)}
				ends <- e.end
				return e
			}})
			c, dead := deaths(t, r.members)
			if _, err := c.Peer("b").Progress(t.Context(), r.ref(somewhere.Digest)); err != nil {
				t.Fatal(err)
			}
			(<-ends)()
			if boot := <-dead; boot != "b.7" {
				t.Errorf("%q is dead", boot)
			}
			if _, err := c.Peer("b").Progress(t.Context(), oci.Ref{}); err == nil {
				t.Error("it answers")
			}
			if len(dead) > 0 {
				t.Error("it was told twice")
			}
		})
	}
}

// An ending listener can end as a process does: with all its connections.
type ending struct {
	net.Listener
	conns chan net.Conn
}

// Accept implements net.Listener.
func (e *ending) Accept() (net.Conn, error) {
	conn, err := e.Listener.Accept()
	if err == nil {
		e.conns <- conn
	}
	return conn, err
}

// end ends it, its connections first.
func (e *ending) end() {
	conn := <-e.conns
	_ = conn.Close() // the other end sees it
	_ = e.Close()
}

// One that ends connections and goes on listening lives, and so does one that is merely not
// there in time.
func TestWhoListensIsNotDead(t *testing.T) {
	t.Parallel()
	looks := make(chan struct{}, 100)
	srv := &http.Server{Handler: http.NotFoundHandler(), ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			looks <- struct{}{}
		}
	}}
	l := listen(t)
	serve(t, srv, l)
	c, dead := deaths(t, newMembers(l.Addr().String()))
	_, _ = c.Peer("b").Progress(t.Context(), oci.Ref{}) // its answer is not signed: the connection ends, at one end or the other
	link, err := c.links.to("b")
	if err != nil {
		t.Fatal(err)
	}
	out := &lookout{dial: dialTCP, addr: l.Addr().String(), life: link.life, own: c.life, tell: func() { dead <- "b" }}
	for len(looks) > 0 {
		<-looks
	}
	out.look()
	out.look() // one look at a time
	for range 2 {
		<-looks
	}
	if len(dead) > 0 {
		t.Error("it is dead")
	}
	c.Close()
	out.look()
	if out.life.Err() == nil || len(dead) > 0 {
		t.Error("it looked after the end")
	}
}

// A refused connection is told once, until one is made.
func TestARefusalIsToldOnce(t *testing.T) {
	t.Parallel()
	l := listen(t)
	addr := l.Addr().String()
	_ = l.Close()
	c, dead := deaths(t, newMembers(addr))
	for range 3 {
		if _, err := c.Peer("b").Progress(t.Context(), oci.Ref{}); err == nil {
			t.Fatal("it answers")
		}
	}
	if len(dead) != 1 {
		t.Errorf("told %d times", len(dead))
	}
}

// A refusal that comes when the member has started anew is told of the boot that was dialled.
func TestARefusalNamesTheBoot(t *testing.T) {
	t.Parallel()
	l := listen(t)
	addr := l.Addr().String()
	_ = l.Close()
	g := newMembers(addr)
	c, dead := deaths(t, g)
	dialled, goOn := make(chan struct{}, 10), make(chan struct{})
	c.links.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialled <- struct{}{}
		<-goOn
		return dialTCP(ctx, network, addr)
	}
	asked := make(chan error)
	go func() {
		_, err := c.Peer("b").Progress(t.Context(), oci.Ref{})
		asked <- err
	}()
	<-dialled
	g.put(Member{ID: "b", Name: "node-b", Addr: addr, Nonce: nonceA, Boot: 8})
	close(goOn)
	if err := <-asked; err == nil {
		t.Error("it answers")
	}
	if boot := <-dead; boot != "b.7" {
		t.Errorf("%q is dead", boot)
	}
}
