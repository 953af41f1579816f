package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"sync/atomic"
	"time"
)

// Limits of one round trip.
const (
	dialTimeout      = 5 * time.Second
	handshakeTimeout = 10 * time.Second
	probeTimeout     = 4 * time.Second // of a handshake with a registry that may speak plain HTTP and just wait
	headerTimeout    = 20 * time.Second
	maxHeaderBytes   = 256 << 10 // gcr.io sends large ones
)

// A trip is what one round trip knows and learns, carried in its context to
// the dialer, which otherwise could not tell a proxy's address from a target's.
type trip struct {
	proxy     *url.URL    // nil: straight
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

// transport makes the connections of a registry.
//
// HTTP/1.1 only: over HTTP/2 all blobs of a registry would share one
// connection, its congestion window and its flow control, so that one lost
// packet or one slow reader holds up the others, and measured throughput is a
// fraction. Here each stream has a TCP connection to itself.
func (r *registry) transport(roots *x509.CertPool, verify bool) *http.Transport {
	t := &http.Transport{
		Proxy:                  proxyOfTrip,
		DialContext:            r.dialer(roots),
		OnProxyConnectResponse: connected,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, InsecureSkipVerify: !verify},
		TLSHandshakeTimeout:    handshakeTimeout,
		ResponseHeaderTimeout:  headerTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		DisableCompression:     true, // bytes stay as they are
		MaxIdleConns:           64,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        90 * time.Second,
		ReadBufferSize:         128 << 10,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	if !r.Configured { // there may be many of them, and each may lead to many hosts
		t.MaxIdleConns, t.MaxIdleConnsPerHost = 8, 4
	}
	if !verify {
		t.TLSHandshakeTimeout = probeTimeout
	}
	return t
}

// trusted returns the system's certificates and those of file.
func trusted(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil // the system's
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

// dialer returns a Transport's DialContext: to a proxy freely, to all else as
// the guard allows.
func (r *registry) dialer(roots *x509.CertPool) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		d := net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
		p := tripOf(ctx).proxy
		if p == nil {
			d.ControlContext = r.guard(addr)
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
func (r *registry) roundTrip(req *http.Request) (*http.Response, error) {
	resp, _, err := r.roundTripAs(req)
	return resp, err
}

// roundTripAs also tells whether TLS with the target failed.
func (r *registry) roundTripAs(req *http.Request) (*http.Response, bool, error) {
	start := time.Now()
	proxy, err := r.proxyFor(req.URL)
	if err == nil {
		err = r.permits(req.URL, proxy != nil)
	}
	t := &trip{proxy: proxy}
	var resp *http.Response
	if err == nil {
		resp, err = r.over(req.URL).RoundTrip(req.WithContext(t.trace(req.Context())))
	}
	r.logTrip(req, resp, err, time.Since(start))
	if err != nil {
		return nil, t.handshake.Load(), r.broken(req, t, err)
	}
	return resp, false, nil
}

// trace returns ctx with t in it, and t told of a failed handshake.
func (t *trip) trace(ctx context.Context) context.Context {
	ctx = context.WithValue(ctx, tripKey{}, t)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) { t.handshake.Store(err != nil) },
	})
}

// over returns the transport for u.
func (r *registry) over(u *url.URL) http.RoundTripper {
	if r.isOwn(u) {
		return r.own
	}
	return r.elsewhere
}

// logTrip logs a round trip: paths only of the registry itself, as those of
// redirects may hold a signature.
func (r *registry) logTrip(req *http.Request, resp *http.Response, err error, took time.Duration) {
	path, status := "", 0
	if r.isOwn(req.URL) {
		path = req.URL.Path
	}
	if resp != nil {
		status = resp.StatusCode
	}
	r.log.DebugContext(req.Context(), "asked upstream", "registry", r.host, "host", shown(req.URL),
		"method", req.Method, "path", path, "status", status, "failed", err != nil, "took", took)
}
