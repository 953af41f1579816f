// Package upstreamtest is a registry for tests. It misbehaves on request.
//
// [New] starts it on 127.0.0.1, and it stops with the test. It serves the pull side
// of the OCI distribution spec 1.1: /v2/, manifests by tag and digest, blobs with
// Range and HEAD, tags/list and referrers with pages. [Basic] and [Bearer] make it
// ask for a login, [Accounts] for one of several. [Redirect] and [RedirectManifests] make it send clients to a CDN
// on another port. [TLS] makes it speak https under a CA of its own (CAFile).
//
// PutBlob, PutRandomBlob (of any size, made on the fly, see [Random]), PutManifest
// and PutImage give it content. Fault makes chosen requests go wrong, and shapes.go
// has faults in the form that real servers give them. RevokeTokens and
// ExpireTokensAfter end tokens, RevokeLinks ends links to the CDN, Down and Up play
// an outage. Requests, Count and BytesSent tell what happened. Hold and WaitFor put
// concurrent requests into a known order without sleeping.
//
// A request goes through these steps: it is recorded (Count and WaitFor see it now),
// it is held, its login is checked, its fault is chosen. So the challenge before a
// token uses up no fault, unless Fault.BeforeAuth is set. With Redirect, a fault of a
// body needs Match{Server: "cdn"}. Paths there hold the digest's hex part, but
// neither "/blobs/" nor "/manifests/".
package upstreamtest

import (
	"crypto/rand"
	"net/http"
	"testing"
)

// The names of the servers in Request and Match.
const (
	serverRegistry = "registry"
	serverToken    = "token"
	serverCDN      = "cdn"
)

// An Option changes what New starts.
type Option func(*options)

// options are what the Options of a registry set.
type options struct {
	tls, http2                  bool
	basic                       *credentials
	bearer                      *BearerAuth
	accounts                    []Account
	redirect, redirectManifests bool
}

// credentials are a login.
type credentials struct{ user, password string }

// TLS makes all servers speak https with a certificate of a CA made for the
// test, valid for 127.0.0.1 and localhost.
func TLS() Option { return func(o *options) { o.tls = true } }

// HTTP2 is TLS with HTTP/2 offered as well. There a reset ends the stream and not the
// connection.
func HTTP2() Option { return func(o *options) { o.tls, o.http2 = true, true } }

// Redirect answers requests for blobs with 307 to a CDN on another port, under a
// signed query. The CDN answers a request with Authorization by 400, as S3 does.
func Redirect() Option { return func(o *options) { o.redirect = true } }

// RedirectManifests does for manifests what Redirect does for blobs.
func RedirectManifests() Option { return func(o *options) { o.redirectManifests = true } }

// A Registry is a running test registry. All methods may be called from any
// goroutine, except those that can fail the test (WaitFor, Up), which are for the
// test's own.
type Registry struct {
	opts options
	*servers
	*traffic
	*content
	*faults
	*issuer
	*accounts
	*links
}

// New starts a registry on 127.0.0.1, over plain HTTP unless TLS is given. It stops
// with the test, and then leaves no goroutine behind.
func New(t testing.TB, opts ...Option) *Registry {
	t.Helper()
	r := &Registry{
		traffic: newTraffic(t), faults: &faults{}, links: &links{key: rand.Text()},
		content: &content{repos: map[string]*repository{}},
	}
	for _, o := range opts {
		o(&r.opts)
	}
	r.issuer = newIssuer(r.opts.bearer)
	r.accounts = &accounts{further: r.opts.accounts}
	r.servers = &servers{t: t, http2: r.opts.http2}
	if r.opts.tls {
		r.makeCertificate()
	}
	r.main = &listener{addr: anyPort, handler: r}
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

// close stops the servers and waits for every answer to end.
func (r *Registry) close() {
	r.traffic.stop()
	r.Down()
	r.active.Wait()
}

// ServeHTTP answers as the registry does on its own port, for tests that put other servers
// in front of it. If the token server has no listener of its own, its requests come here,
// too.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if r.opts.bearer != nil && r.token == nil && req.URL.Path == tokenPath {
		r.handle(serverToken, r.serveToken).ServeHTTP(w, req)
		return
	}
	r.handle(serverRegistry, r.serveRegistry).ServeHTTP(w, req)
}

// handle takes a request to a server through its steps, and to next at last.
func (r *Registry) handle(server string, next func(*wire, *http.Request)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		rec, held, ok := r.arrive(server, req)
		if !ok {
			panic(http.ErrAbortHandler)
		}
		defer r.active.Done()
		out := &wire{ResponseWriter: w, r: r.traffic, req: req, rec: rec, limit: -1}
		out.identifyServer(server)
		for _, h := range held {
			out.await(h.released)
		}
		if out.fault = r.pick(server, req, true); out.fault == nil {
			if server == serverRegistry && !r.authorise(out, req) {
				return
			}
			if user := r.userOf(req); user != "" && server == serverRegistry {
				repo, _, _ := split(req.URL.Path)
				r.traffic.came(rec, user)
				if !r.letIn(out, user, repo) {
					return
				}
			}
			out.fault = r.pick(server, req, false)
		}
		out.serve(next)
	})
}
