package wire

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// A stub is a connection that only knows whether it was closed.
type stub struct {
	net.Conn
	closed bool
}

func (c *stub) Close() error {
	c.closed = true
	return nil
}

// on is a request over c.
func on(c net.Conn) *http.Request {
	return request("GET").WithContext(context.WithValue(context.Background(), connKey{}, c))
}

// closed lists which of the connections are closed, in binary.
func closed(conns []*stub) string {
	s := ""
	for _, c := range conns {
		s += map[bool]string{true: "1", false: "0"}[c.closed]
	}
	return s
}

// open adds n connections to the ledger.
func open(l *Ledger, n int) []*stub {
	out := make([]*stub, n)
	for i := range out {
		out[i] = &stub{}
		l.note(out[i], http.StateNew)
	}
	return out
}

func TestTheLongestIdleMakesRoom(t *testing.T) {
	t.Parallel()
	l := NewLedger(4, 0)
	c := open(l, 4)
	l.Begin(on(c[0]))
	l.note(c[1], http.StateActive) // half a header
	l.note(c[2], http.StateIdle)   // now idle for less time than the others
	open(l, 1)
	if got := closed(c); got != "0100" || l.Len() != 4 {
		t.Errorf("closed %s, %d are open", got, l.Len())
	}
	l.note(c[0], http.StateIdle)
	open(l, 2)
	if got := closed(c); got != "0111" {
		t.Errorf("closed %s", got)
	}
	l.note(c[1], http.StateClosed) // as net/http notes late
	if l.Len() != 4 {
		t.Errorf("%d are open", l.Len())
	}
}

// A request that is not held is worth less than one that is, and more than none.
func TestAnAnswerThatIsNotHeldMakesRoomIfNoneIsIdle(t *testing.T) {
	t.Parallel()
	l := NewLedger(4, 0)
	c := open(l, 4)
	for _, one := range c[:3] {
		l.Answer(on(one))
	}
	first, second := l.Begin(on(c[0])), l.Begin(on(c[0])) // over HTTP/2 there may be several
	open(l, 1)
	if got := closed(c); got != "0001" {
		t.Errorf("closed %s: the idle one goes first", got)
	}
	first()
	l.Answer(on(c[0]))
	l.Resize(1)
	if got := closed(c); got != "0111" || l.Len() != 1 {
		t.Errorf("closed %s, %d are open: all go that are not held", got, l.Len())
	}
	second()
	l.Resize(0)
	if got := closed(c); got != "1111" || l.Len() != 0 {
		t.Errorf("closed %s, %d are open: it is not held any more", got, l.Len())
	}
}

func TestANewConnectionWaitsIfNoneIsIdle(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*Ledger, []*stub){
		"until one is idle":         func(l *Ledger, c []*stub) { l.note(c[1], http.StateIdle) },
		"until one is closed":       func(l *Ledger, c []*stub) { l.note(c[1], http.StateClosed) },
		"until the limit is raised": func(l *Ledger, _ []*stub) { l.Resize(3) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := NewLedger(2, 0)
				c := open(l, 2)
				l.Begin(on(c[0]))
				l.Begin(on(c[1]))
				in := false
				go func() {
					open(l, 1)
					in = true
				}()
				synctest.Wait()
				if in {
					t.Error("there was room")
				}
				end(l, c)
				synctest.Wait()
				if !in || c[0].closed {
					t.Errorf("it is in: %v; the busy one is closed: %v", in, c[0].closed)
				}
			})
		})
	}
}

func TestIdleConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	l := NewLedger(0, 2)
	c := open(l, 2)
	l.Keep(on(c[0]))
	l.note(c[0], http.StateIdle)
	c = append(c, open(l, 2)...)
	if got := closed(c); got != "0100" || l.Len() != 3 {
		t.Errorf("closed %s, %d are open", got, l.Len())
	}
}

func TestASmallerLimitClosesIdleConnections(t *testing.T) {
	t.Parallel()
	l := NewLedger(4, 0)
	c := open(l, 4)
	l.Begin(on(c[0]))
	l.Resize(2)
	if got := closed(c); got != "0110" {
		t.Errorf("closed %s", got)
	}
	l.Resize(0)
	if got := closed(c); got != "0111" || l.Len() != 1 {
		t.Errorf("closed %s, %d are open", got, l.Len())
	}
}

func TestOnlySilentConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	l := NewLedger(0, 0)
	c := open(l, 3)
	l.note(c[0], http.StateActive)
	l.note(c[0], http.StateIdle)
	l.note(c[1], http.StateClosed)
	l.CloseSilent()
	if got := closed(c); got != "001" {
		t.Errorf("closed %s", got)
	}
	l.Begin(request("GET")) // a request of a server that the ledger does not watch
	if l.Len() != 2 {
		t.Errorf("%d are open", l.Len())
	}
}

// A stuck connection is one whose other end reads nothing: TLS's last word can't
// be written.
type stuck struct {
	net.Conn
	closed chan struct{}
}

func (c *stuck) Write([]byte) (int, error) {
	<-c.closed
	return 0, net.ErrClosed
}

func (c *stuck) Close() error {
	close(c.closed)
	return nil
}

func TestTLSDoesNotDelayClosing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := NewLedger(0, 1)
		c := &stuck{closed: make(chan struct{})}
		l.note(tls.Server(c, &tls.Config{}), http.StateNew)
		began := time.Now()
		open(l, 1)
		<-c.closed
		if took := time.Since(began); took != 0 {
			t.Errorf("closing took %v", took)
		}
	})
}

func TestCutShortEndsByACleanFIN(t *testing.T) {
	t.Parallel()
	cut, read := make(chan bool, 1), make(chan struct{})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		cut <- CutShort(r)
		<-read
		panic(http.ErrAbortHandler)
	}))
	NewLedger(0, 0).Watch(srv.Config)
	srv.Start()
	defer srv.Close()
	c, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / which the server does not read")
	_, err = io.Copy(io.Discard, c)
	close(read)
	if err != nil || !<-cut {
		t.Errorf("the answer ended by %v, want a FIN", err)
	}
	if CutShort(request("GET")) {
		t.Error("a connection that is not known is cut")
	}
}
