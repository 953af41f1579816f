package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"sync/atomic"
	"time"
)

// maxHeaderBytes bounds the header of an answer. gcr.io sends large ones.
const maxHeaderBytes = 256 << 10

// A trip is what is known of one round trip. Its context carries it to the dialer,
// which could not tell a proxy's address from a target's otherwise.
type trip struct {
	proxy     *url.URL    // nil: none
	handshake atomic.Bool // TLS with the target has failed
}

type tripKey struct{}

// tripOf returns the trip that ctx belongs to.
func tripOf(ctx context.Context) *trip {
	if t, ok := ctx.Value(tripKey{}).(*trip); ok {
		return t
	}
	return &trip{}
}

// A network sends the requests for one registry: to itself, its token servers and its
// storage, through a proxy if there is one. It follows no redirects.
type network struct {
	home  *home
	guard *guard
	proxy *url.URL // nil: as the environment says
	log   *slog.Logger

	// The certificate of an insecure registry is not verified. That goes for its own
	// host:port alone, so requests to elsewhere have another transport then. Otherwise
	// both are the same.
	own, elsewhere http.RoundTripper
}

// newNetwork returns the network of a registry. roots are the certificates that it
// trusts, nil for the system's.
func newNetwork(home *home, guard *guard, proxy *url.URL, roots *x509.CertPool, log *slog.Logger) *network {
	n := &network{home: home, guard: guard, proxy: proxy, log: log}
	verified := n.transport(roots, true)
	n.own, n.elsewhere = verified, verified
	if home.insecure {
		n.own = n.transport(roots, false)
	}
	return n
}

// closeIdle closes the connections that carry no request.
func (n *network) closeIdle() {
	for _, t := range []http.RoundTripper{n.own, n.elsewhere} {
		if t, ok := t.(*http.Transport); ok {
			t.CloseIdleConnections()
		}
	}
}

// transport returns a transport that makes the connections.
//
// It speaks HTTP/1.1 only. Over HTTP/2 all blobs of a registry would share one
// connection with its congestion window and flow control: one lost packet or one
// slow reader would hold up the others, and measured throughput is a fraction.
// Here each stream has a TCP connection to itself.
func (n *network) transport(roots *x509.CertPool, verify bool) *http.Transport {
	t := &http.Transport{
		Proxy:                  proxyOfTrip,
		DialContext:            n.dialer(roots),
		OnProxyConnectResponse: connected,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, InsecureSkipVerify: !verify},
		TLSHandshakeTimeout:    handshakeTimeout,
		ResponseHeaderTimeout:  headerTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		DisableCompression:     true, // bytes stay as they are
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        90 * time.Second,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	if !n.guard.configured { // there may be many of them, and each may lead to many hosts
		t.MaxIdleConns, t.MaxIdleConnsPerHost = 8, 4
	}
	if !verify {
		t.TLSHandshakeTimeout = probeTimeout
	}
	return t
}

// trusted returns the system's certificates and those in file.
func trusted(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil // the system's alone
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading ca_file: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca_file %s holds no PEM certificate", file)
	}
	return pool, nil
}

// dialer returns a Transport's DialContext. It dials a proxy without restriction
// and all else as the guard allows.
func (n *network) dialer(roots *x509.CertPool) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
		p := tripOf(ctx).proxy
		if p == nil {
			d.ControlContext = n.guard.control(addr)
			return d.DialContext(ctx, network, addr)
		}
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil || p.Scheme != "https" {
			return conn, err
		}
		secured := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: p.Hostname(), MinVersion: tls.VersionTLS12})
		ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
		defer cancel()
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return secured, nil
	}
}

// A proxyRefusal is a proxy's answer to CONNECT that is not 200.
type proxyRefusal struct{ status int }

func (e *proxyRefusal) Error() string {
	return fmt.Sprintf("the proxy answered CONNECT with %d", e.status)
}

// connected is a Transport's OnProxyConnectResponse.
func connected(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode != http.StatusOK {
		return &proxyRefusal{resp.StatusCode}
	}
	return nil
}

// roundTrip sends req, once. The error is a *failure.
func (n *network) roundTrip(req *http.Request) (*http.Response, error) {
	resp, _, err := n.roundTripTLS(req)
	return resp, err
}

// roundTripTLS also tells whether TLS with the target failed.
func (n *network) roundTripTLS(req *http.Request) (_ *http.Response, badTLS bool, _ error) {
	start := time.Now()
	proxy, err := n.permitted(req.URL)
	t := &trip{proxy: proxy}
	var resp *http.Response
	if err == nil {
		resp, err = n.over(req.URL).RoundTrip(req.WithContext(t.trace(req.Context())))
	}
	n.logTrip(req, resp, err, time.Since(start))
	if err != nil {
		return nil, t.handshake.Load(), broken(n.home, req, t, err)
	}
	return resp, false, nil
}

// permitted returns the proxy for u, and an error if this registry may not lead
// there.
func (n *network) permitted(u *url.URL) (proxy *url.URL, err error) {
	proxy, err = n.proxyFor(u)
	if err != nil {
		return nil, err
	}
	return proxy, n.guard.permits(u, proxy != nil)
}

// trace returns ctx with t in it, and has t note a failed handshake.
func (t *trip) trace(ctx context.Context) context.Context {
	ctx = context.WithValue(ctx, tripKey{}, t)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) { t.handshake.Store(err != nil) },
	})
}

// over returns the transport for u.
func (n *network) over(u *url.URL) http.RoundTripper {
	if n.home.isOwn(u) {
		return n.own
	}
	return n.elsewhere
}

// logTrip logs a round trip. It names the path only at the registry itself, since
// a path elsewhere may hold a signature.
func (n *network) logTrip(req *http.Request, resp *http.Response, err error, took time.Duration) {
	path, status := "", 0
	if n.home.isOwn(req.URL) {
		path = req.URL.Path
	}
	if resp != nil {
		status = resp.StatusCode
	}
	n.log.DebugContext(req.Context(), "asked upstream", "registry", n.home.host, "host", shown(req.URL),
		"method", req.Method, "path", path, "status", status, "failed", err != nil, "took", took)
}
