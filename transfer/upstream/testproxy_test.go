package upstream

import (
	"bufio"
	"encoding/base64"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// A testProxy connects every name to the same server, and records which names it was
// asked for.
type testProxy struct {
	target string // host:port
	login  string // user:password it wants, "" for none
	status int    // the answer to CONNECT, 0 for 200

	mu    sync.Mutex
	asked []string
}

func (p *testProxy) note(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, what)
}

func (p *testProxy) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

// ServeHTTP is the proxy's HTTP side: CONNECT and absolute URLs.
func (p *testProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.note(r.Method + " " + r.Host)
	want := ""
	if p.login != "" {
		want = "Basic " + base64.StdEncoding.EncodeToString([]byte(p.login))
	}
	switch {
	case r.Header.Get("Proxy-Authorization") != want:
		w.WriteHeader(http.StatusProxyAuthRequired)
	case p.status != 0:
		w.WriteHeader(p.status)
	case r.Method == http.MethodConnect:
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
			upstreamtest.Tunnel(conn, p.target)
		}
	default:
		p.forward(w, r)
	}
}

// forward sends a request with an absolute URL on to the target.
func (p *testProxy) forward(w http.ResponseWriter, r *http.Request) {
	r.Header.Del("Proxy-Authorization")
	out := &http.Request{Method: r.Method, URL: &url.URL{Scheme: "http", Host: p.target, Path: r.URL.Path, RawQuery: r.URL.RawQuery}, Host: r.Host, Header: r.Header, Close: true}
	resp, err := http.DefaultTransport.RoundTrip(out)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

// socks serves the SOCKS5 side (RFC 1928, 1929) and returns its host:port.
func (p *testProxy) socks(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				if p.greet(conn) {
					upstreamtest.Tunnel(conn, p.target)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// greet does the handshake and reports whether it succeeded.
func (p *testProxy) greet(conn net.Conn) bool {
	r := bufio.NewReader(conn)
	take := func(n int) []byte {
		b := make([]byte, n)
		_, _ = io.ReadFull(r, b)
		return b
	}
	take(int(take(2)[1])) // version, methods
	if p.login != "" {
		_, _ = conn.Write([]byte{5, 2})
		user := string(take(int(take(2)[1])))
		password := string(take(int(take(1)[0])))
		if user+":"+password != p.login {
			_, _ = conn.Write([]byte{1, 1})
			return false
		}
		_, _ = conn.Write([]byte{1, 0})
	} else {
		_, _ = conn.Write([]byte{5, 0})
	}
	if kind := take(4)[3]; kind != 3 {
		p.note("an address, not a name")
		return false
	}
	name := string(take(int(take(1)[0])))
	take(2) // the port
	p.note(name)
	_, err := conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	return err == nil
}
