package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"oci-proxy/transfer/trace"
	"oci-proxy/transfer/wait"
)

// maxHeaderBytes bounds the header of an answer. gcr.io sends large ones.
const maxHeaderBytes = 256 << 10

// A network sends the requests for one registry: to itself, its token servers and its
// storage, through a proxy if there is one. It follows no redirects.
type network struct {
	home  *home
	guard *guard
	proxy *url.URL // nil: as the environment says
	log   *slog.Logger
	mark  func() string // this node's, in every request; nil: none

	dialer   *dialer
	outages  *outages
	pauses   *pauses
	silences *silences
	patience time.Duration // how long a request waits for a connection

	// The certificate of an insecure registry is not verified. That goes for its own
	// host:port alone, so requests to elsewhere have another transport then. Otherwise
	// both are the same.
	own, elsewhere http.RoundTripper
}

// newNetwork returns the network of a registry. roots are the certificates that it
// trusts, nil for the system's.
func newNetwork(home *home, guard *guard, cfg Registry, roots *x509.CertPool, log *slog.Logger) *network {
	n := &network{
		home: home, guard: guard, proxy: cfg.Proxy, log: log,
		dialer: newDialer(), outages: newOutages(), pauses: newPauses(), silences: newSilences(), patience: cmp.Or(cfg.Patience, Patience),
	}
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
		DialContext:            n.dial(roots),
		OnProxyConnectResponse: n.connected,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, InsecureSkipVerify: !verify},
		TLSHandshakeTimeout:    handshakeTimeout,
		ResponseHeaderTimeout:  headerTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		DisableCompression:     true, // bytes stay as they are
		MaxIdleConns:           2 * DefaultRequests,
		MaxIdleConnsPerHost:    DefaultRequests, // fewer, and a busy node would dial all the time
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

// dial returns a Transport's DialContext. It dials a proxy without restriction and all
// else as the guard allows. The Transport goes on with a dial whose request has ended;
// so what becomes of it is noted here.
func (n *network) dial(roots *x509.CertPool) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, addr string) (net.Conn, error) {
		t := tripOf(ctx)
		if err := n.outages.enter(t.place, t.probe, t.gone); err != nil {
			return nil, err
		}
		conn, err := n.connect(ctx, t.proxy, addr, roots)
		switch {
		case err != nil:
			n.outages.failed(t.place, t.probe, err, false)
		case t.plain && (t.proxy == nil || !strings.HasPrefix(t.proxy.Scheme, "socks")):
			n.outages.reached(t.place, t.probe)
		}
		return conn, err
	}
}

// connect connects to addr, which is that of the proxy if there is one.
func (n *network) connect(ctx context.Context, proxy *url.URL, addr string, roots *x509.CertPool) (net.Conn, error) {
	if proxy == nil {
		conn, err := n.dialer.dial(ctx, addr, n.guard.control(addr))
		if err == nil {
			if tcp, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
				at := tcp.AddrPort()
				tripOf(ctx).met.Store(&at)
			}
		}
		return conn, err
	}
	conn, err := n.dialer.dial(ctx, addr, nil)
	if err != nil || proxy.Scheme != "https" {
		return conn, err
	}
	secured := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: proxy.Hostname(), MinVersion: tls.VersionTLS12})
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return secured, nil
}

// A proxyRefusal is a proxy's answer to CONNECT that is not 200.
type proxyRefusal struct{ status int }

func (e *proxyRefusal) Error() string {
	return fmt.Sprintf("the proxy answered CONNECT with %d", e.status)
}

// connected is a Transport's OnProxyConnectResponse.
func (n *network) connected(ctx context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	err := &proxyRefusal{resp.StatusCode}
	if t := tripOf(ctx); undialled(err) {
		n.outages.failed(t.place, t.probe, err, false)
	}
	return err
}

// roundTrip sends req, once. The error is a *failure.
func (n *network) roundTrip(req *http.Request) (*http.Response, error) {
	resp, _, err := n.roundTripTLS(req)
	return resp, err
}

// roundTripTLS also tells whether TLS with the target failed.
func (n *network) roundTripTLS(req *http.Request) (resp *http.Response, badTLS bool, err error) {
	start := time.Now()
	ctx, span := trace.Start(req.Context(), "upstream")
	if span.On() {
		req = req.WithContext(ctx) // and not the header: registries hear nothing of traces
	}
	defer func() { describe(span, req, resp, err) }()
	proxy, err := n.permitted(req.URL)
	t := newTrip(proxy, req.URL)
	if n.mark != nil {
		req.Header.Set("Via", "1.1 "+n.mark())
	}
	if err == nil {
		resp, err = n.send(req, t)
	}
	n.home.count(req, resp)
	n.logTrip(req, resp, time.Since(start))
	if err != nil {
		f := broken(n.home, req, t, err)
		f.age = max(n.outages.age(t.place), n.silences.age(t.place))
		n.tell(req, t, nil, f, start)
		return nil, t.handshake.Load(), f
	}
	n.tell(req, t, resp, nil, start)
	if n.home.isOwn(req.URL) {
		n.home.answered(req.Context(), resp, time.Since(start))
	}
	if proxy == nil && n.home.isOwn(req.URL) {
		n.guard.seen(t.remote)
	}
	return resp, false, nil
}

// describe ends the span of a request. It names hosts, and no URL: that may be signed.
func describe(span trace.Span, req *http.Request, resp *http.Response, err error) {
	if !span.On() {
		return
	}
	kind, _ := req.Context().Value(kindKey{}).(string)
	span.Set("oci_proxy.kind", kind)
	span.Set("http.request.method", req.Method)
	span.Set("server.address", shown(req.URL))
	if resp != nil {
		span.Count("http.response.status_code", int64(resp.StatusCode))
	}
	span.End(err)
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

// over returns the transport for u.
func (n *network) over(u *url.URL) http.RoundTripper {
	if n.home.isOwn(u) {
		return n.own
	}
	return n.elsewhere
}

// logTrip logs a round trip; without an answer its status is 0. It names the path only at the registry itself, since
// a path elsewhere may hold a signature.
func (n *network) logTrip(req *http.Request, resp *http.Response, took time.Duration) {
	if !n.log.Enabled(req.Context(), slog.LevelDebug) {
		return
	}
	path, status := "", 0
	if n.home.isOwn(req.URL) {
		path = req.URL.Path
	}
	if resp != nil {
		status = resp.StatusCode
	}
	n.log.DebugContext(req.Context(), "asked upstream", "registry", n.home.host, "host", shown(req.URL),
		"method", req.Method, "path", path, "status", status, "took_ms", wait.Milliseconds(took))
}
