package upstream

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// What a turning registry does with TLS.
const (
	speaks int32 = iota
	hangsUp
	lacks
)

// A turning listener speaks TLS or not, as it was turned last.
type turning struct {
	net.Listener
	config *tls.Config
	way    atomic.Int32
}

func (l *turning) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	switch {
	case err != nil:
		return nil, err
	case l.way.Load() == speaks:
		return tls.Server(c, l.config), nil
	case l.way.Load() == hangsUp:
		return &clearOnly{Conn: c}, nil
	}
	return c, nil
}

// A clearOnly connection ends when TLS is spoken to it.
type clearOnly struct {
	net.Conn
	met bool
}

func (c *clearOnly) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	const handshake = 22 // RFC 8446 section 5.1
	if first := !c.met && n > 0; first && p[0] == handshake {
		return 0, io.EOF
	}
	c.met = c.met || n > 0
	return n, err
}

// An insecure registry that has spoken TLS is not asked in the clear because its TLS breaks: what
// answers then may be somebody else. One that has no TLS any more is, but is told no password.
func TestARegistryThatSpokeTLSGetsNoPasswordInTheClear(t *testing.T) {
	t.Parallel()
	var asked, told atomic.Int32 // in the clear
	reg := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _, login := r.BasicAuth()
		if r.TLS == nil {
			asked.Add(1)
			if login {
				told.Add(1)
			}
		}
		if !login {
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, "hello")
	}))
	secure := httptest.NewTLSServer(nil) // for its certificate
	defer secure.Close()
	l := &turning{Listener: reg.Listener, config: &tls.Config{Certificates: secure.TLS.Certificates, MinVersion: tls.VersionTLS12}}
	reg.Listener = l
	reg.Start()
	defer reg.Close()
	host := l.Addr().String()
	client := newClient(t, withLogin(plainly(host)))
	turn := func(way int32) {
		l.way.Store(way)
		client.named[host].net.closeIdle()
	}
	wantHello(t, client, host)
	turn(hangsUp)
	if got, err := opened(t.Context(), client, hello(host)); err == nil || asked.Load() > 0 {
		t.Errorf("its TLS breaks: %q, %v, asked in the clear %d times", got, err, asked.Load())
	}
	turn(lacks)
	if got, err := opened(t.Context(), client, hello(host)); err == nil || asked.Load() == 0 {
		t.Errorf("it has no TLS: %q, %v, asked in the clear %d times", got, err, asked.Load())
	}
	turn(speaks)
	wantHello(t, client, host)
	if n := told.Load(); n > 0 {
		t.Errorf("the password came in the clear %d times", n)
	}
	fresh := newClient(t, withLogin(plainly(host))) // which has not seen it speak TLS
	l.way.Store(lacks)
	wantHello(t, fresh, host)
}
