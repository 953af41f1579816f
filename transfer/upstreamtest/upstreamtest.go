// Package upstreamtest is a registry for tests that misbehaves on request.
//
// [New] starts it on 127.0.0.1 and stops it with the test. Healthy, it serves
// the pull side of the OCI distribution spec 1.1: /v2/, manifests by tag and
// digest, blobs with Range and HEAD, tags/list and referrers with pages.
// [Basic] and [Bearer] make it ask for a login, [Redirect] and
// [RedirectManifests] make it send clients to a CDN on another port, [TLS]
// makes it speak https under a CA of its own ([Registry.CAFile]).
//
// Content comes from [Registry.PutBlob], [Registry.PutRandomBlob] (any size,
// made on the fly, see [Random]), [Registry.PutManifest] and
// [Registry.PutImage]. [Registry.Fault] makes chosen requests go wrong,
// [Registry.RevokeTokens] and [Registry.ExpireTokensAfter] end tokens,
// [Registry.RevokeLinks] ends CDN links, [Registry.Down] and [Registry.Up]
// play an outage. What happened is told by [Registry.Requests],
// [Registry.Count] and [Registry.BytesSent]; [Registry.Hold] and
// [Registry.WaitFor] put concurrent requests into a known order without
// sleeping.
//
// A request is, in this order: recorded (so counted and seen by WaitFor), held,
// checked for its login, and only then looked at for faults, so that the
// challenge before a token uses up no fault (unless Fault.BeforeAuth is set).
// With Redirect, a fault of the body belongs to Match{Server: "cdn"}, whose
// paths hold the digest's hex part, but not "/blobs/" or "/manifests/".
package upstreamtest

import (
	"crypto/tls"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
)

// The names of the servers, as they stand in Request and Match.
const (
	serverRegistry = "registry"
	serverToken    = "token"
	serverCDN      = "cdn"
)

// An Option changes what New starts.
type Option func(*options)

type options struct {
	tls, http2                  bool
	basic                       *credentials
	bearer                      *BearerAuth
	redirect, redirectManifests bool
}

type credentials struct{ user, password string }

// TLS makes all servers speak https with a certificate of a CA made for the
// test, valid for 127.0.0.1 and localhost.
func TLS() Option { return func(o *options) { o.tls = true } }

// HTTP2 is TLS with HTTP/2 offered as well. There a reset ends the stream, not the connection.
func HTTP2() Option { return func(o *options) { o.tls, o.http2 = true, true } }

// Redirect makes blobs answer 307 to a CDN on another port, by a signed query.
// The CDN refuses a request that carries Authorization with 400, as S3 does.
func Redirect() Option { return func(o *options) { o.redirect = true } }

// RedirectManifests does for manifests what Redirect does for blobs.
func RedirectManifests() Option { return func(o *options) { o.redirectManifests = true } }

// A Registry is a running test registry. All methods may be called from any
// goroutine, but those that can fail the test (New, WaitFor, Up) only from the test's own.
type Registry struct {
	t       testing.TB
	opts    options
	closing chan struct{} // closed when the test ends: whoever waits gives up
	active  sync.WaitGroup
	sent    atomic.Int64

	main, token, cdn *listener // token and cdn are nil where main serves or none is wanted
	tlsConfig        *tls.Config
	caFile           string

	mu          sync.Mutex
	closed      bool
	repos       map[string]*repository
	faults      []*fault
	holds       []*hold
	records     []*record
	arrived     chan struct{} // closed and replaced at each request
	tokens      map[string]grant
	generation  int // of tokens; those of earlier ones are revoked
	expireAfter int // authorised requests left until all tokens end; <0: no such plan
	linkKey     []byte
}

// New starts a registry on 127.0.0.1, over plain HTTP unless TLS is given, and
// has t.Cleanup stop it. When that returns no goroutine of it is left at work.
func New(t testing.TB, opts ...Option) *Registry {
	t.Helper()
	r := &Registry{
		t: t, closing: make(chan struct{}), arrived: make(chan struct{}), repos: map[string]*repository{},
		tokens: map[string]grant{}, expireAfter: -1, linkKey: randomKey(),
	}
	for _, o := range opts {
		o(&r.opts)
	}
	if r.opts.tls {
		r.makeCertificate()
	}
	const anyPort = "127.0.0.1:0"
	r.main = &listener{addr: anyPort, handler: http.HandlerFunc(r.serveMain)}
	if r.opts.bearer != nil && r.opts.bearer.SeparateHost {
		r.token = &listener{addr: anyPort, handler: r.handle(serverToken, r.serveToken)}
	}
	if r.opts.redirect || r.opts.redirectManifests {
		r.cdn = &listener{addr: anyPort, handler: r.handle(serverCDN, r.serveCDN)}
	}
	t.Cleanup(r.close)
	r.Up()
	return r
}

// Host returns the registry's "127.0.0.1:port".
func (r *Registry) Host() string { return r.main.addr }

// URL returns the registry's address with scheme and without a path.
func (r *Registry) URL() string { return r.scheme() + "://" + r.main.addr }

// TokenHost returns the host:port of the token server: Host unless SeparateHost was asked for.
func (r *Registry) TokenHost() string {
	if r.token != nil {
		return r.token.addr
	}
	return r.main.addr
}

// CDNHost returns the CDN's host:port, "" without Redirect or RedirectManifests.
func (r *Registry) CDNHost() string {
	if r.cdn == nil {
		return ""
	}
	return r.cdn.addr
}

// CAFile returns the path of the PEM file with the CA's certificate, "" without TLS.
func (r *Registry) CAFile() string { return r.caFile }

func (r *Registry) scheme() string {
	if r.opts.tls {
		return "https"
	}
	return "http"
}

// serveMain tells token requests from the registry's own where both share a listener.
func (r *Registry) serveMain(w http.ResponseWriter, req *http.Request) {
	if r.opts.bearer != nil && r.token == nil && req.URL.Path == tokenPath {
		r.handle(serverToken, r.serveToken).ServeHTTP(w, req)
		return
	}
	r.handle(serverRegistry, r.serveRegistry).ServeHTTP(w, req)
}

// handle is what each request of each server goes through.
func (r *Registry) handle(server string, next func(*wire, *http.Request)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		rec, held, ok := r.arrive(server, req)
		if !ok {
			panic(http.ErrAbortHandler)
		}
		defer r.active.Done()
		out := &wire{ResponseWriter: w, r: r, req: req, rec: rec, limit: -1}
		out.identifyServer(server)
		for _, h := range held {
			out.await(h.released)
		}
		if out.fault = r.pick(server, req, true); out.fault == nil {
			if server == serverRegistry && !r.authorise(out, req) {
				return
			}
			out.fault = r.pick(server, req, false)
		}
		out.serve(next)
	})
}

// repo returns the repository of that name, which is made if need be. r.mu is held.
func (r *Registry) repo(name string) *repository {
	p := r.repos[name]
	if p == nil {
		p = &repository{blobs: map[digest.Digest]blob{}, manifests: map[digest.Digest]manifest{}, tags: map[string]digest.Digest{}}
		r.repos[name] = p
	}
	return p
}
