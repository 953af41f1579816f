package upstream

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"

	"oci-proxy/transfer/oci"
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

// turned starts a registry whose listener turns.
func turned(t *testing.T, handler http.HandlerFunc) *turning {
	t.Helper()
	reg, secure := httptest.NewUnstartedServer(handler), httptest.NewTLSServer(nil) // for its certificate
	l := &turning{Listener: reg.Listener, config: &tls.Config{Certificates: secure.TLS.Certificates, MinVersion: tls.VersionTLS12}}
	reg.Listener = l
	reg.Start()
	t.Cleanup(reg.Close)
	t.Cleanup(secure.Close)
	return l
}

// An insecure registry that has spoken TLS is not asked in the clear because its TLS breaks: what
// answers then may be somebody else. One that has no TLS any more is, but is told no password.
func TestARegistryThatSpokeTLSGetsNoPasswordInTheClear(t *testing.T) {
	t.Parallel()
	var asked, told atomic.Int32 // in the clear
	l := turned(t, func(w http.ResponseWriter, r *http.Request) {
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
	})
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

// Somebody on the way answers TLS in the clear, whatever is asked. What the registry once asked for
// is not shown there: not with the next request, and not where a redirect to itself leads.
func TestWhatTLSAskedForIsNotShownInTheClear(t *testing.T) {
	t.Parallel()
	const token = "for-tls-alone"
	for name, wants := range map[string]string{"a password": `Basic realm="r"`, "a token": `Bearer realm="/token"`} {
		for says, answer := range map[string]func(http.ResponseWriter, *http.Request){
			"not found":            func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
			"content":              func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") },
			"a redirect to itself": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path+"?x", http.StatusFound) },
		} {
			t.Run(name+", "+says, func(t *testing.T) {
				t.Parallel()
				var asked, shown atomic.Int32 // in the clear
				l := turned(t, func(w http.ResponseWriter, r *http.Request) {
					login := r.Header.Get("Authorization") != ""
					switch {
					case r.TLS == nil:
						if asked.Add(1); login {
							shown.Add(1)
						}
						answer(w, r)
					case r.URL.Path == "/token":
						_, _ = io.WriteString(w, `{"token":"`+token+`"}`)
					case !login:
						w.Header().Set("WWW-Authenticate", wants)
						w.WriteHeader(http.StatusUnauthorized)
					default:
						_, _ = io.WriteString(w, "hello")
					}
				})
				host := l.Addr().String()
				client := newClient(t, withLogin(plainly(host)))
				reg := client.named[host]
				reg.net.own = reg.net.transport(nil, false)
				reg.net.elsewhere = reg.net.own
				wantHello(t, client, host)
				l.way.Store(lacks)
				for range 2 {
					reg.net.closeIdle()
					_, _ = opened(t.Context(), client, hello(host)) // whatever comes of it
				}
				if asked.Load() == 0 || shown.Load() > 0 {
					t.Errorf("asked in the clear %d times, and shown there %d times", asked.Load(), shown.Load())
				}
				l.way.Store(speaks)
				wantHello(t, client, host)
			})
		}
	}
}

// A registry whose name has no port may listen at one of the ports of https and http alone. What
// was true of it at one time need not be so for ever.
func TestEitherPortOfAnInsecureRegistryWillDo(t *testing.T) {
	t.Parallel()
	n := &terrain{names: means("8.8.8.8")}
	at := func(port uint16, other func(context.Context, netip.AddrPort) (net.Conn, error)) {
		n.become(func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			if to.Port() == port {
				return greets(ctx, to)
			}
			return other(ctx, to)
		})
	}
	const host = "reg.example.com"
	newOne := func() *Client {
		c := newClient(t, plainly(host))
		n.at(c.named[host])
		return c
	}
	at(80, refuses(syscall.ECONNREFUSED))
	wantHello(t, newOne(), host)
	at(80, blackhole)
	c := newOne()
	_, err := opened(t.Context(), c, hello(host)) // which waits in vain for as long as it may
	wantError(t, err, oci.Timeout, "no connection in time")
	wantHello(t, c, host)

	tried := make(chan uint16, 16)
	n.become(func(_ context.Context, to netip.AddrPort) (net.Conn, error) {
		tried <- to.Port()
		return nil, syscall.ECONNREFUSED
	})
	c = newOne()
	c.named[host].home.met("http")
	_, err = opened(t.Context(), c, hello(host))
	wantError(t, err, oci.Unavailable, "connection refused")
	if first, second := <-tried, <-tried; first != 80 || second != 443 {
		t.Errorf("it listened at port 80, and now it is sought at %d and %d", first, second)
	}
}
