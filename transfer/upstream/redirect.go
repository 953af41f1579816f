package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"oci-proxy/transfer/oci"
)

// maxHops bounds the redirects of one request.
const maxHops = 10

// An ask is a request in parts. Its method is GET or HEAD.
type ask struct {
	method   string
	repo     string // "": of the registry as a whole
	path     string // below /v2/<repo>/
	query    url.Values
	accept   string
	offset   int64 // > 0: from that byte on
	handOver bool  // a redirect is not followed but is the answer
}

// An answer is what a request led to.
type answer struct {
	resp     *http.Response
	url      *url.URL    // that answered
	host     string      // of url
	asked    oci.Party   // who is at that host: the registry, its token server, or where a redirect led
	oci      bool        // an error in the form that registries share
	before   http.Header // of the registry's redirect, nil without one
	redirect string      // where the registry sends the client (handOver); resp is closed
}

// url returns where a is asked for.
func (r *registry) url(a ask) *url.URL {
	path := "/v2/"
	if a.repo != "" {
		path += a.repo + "/" + a.path
	}
	return &url.URL{Scheme: r.scheme(), Host: r.host, Path: path, RawQuery: a.query.Encode()}
}

// request builds a hop's request for a at u. The pass goes with it only where
// the caller says so: http.Client, which we do not use, would hand it to other
// ports of the same host, to sub-domains, and from https down to http.
func request(ctx context.Context, a ask, u *url.URL, header string) *http.Request {
	h := http.Header{
		"User-Agent":      {"oci-proxy/" + Version},
		"Accept-Encoding": {"identity"},
		"Accept":          {a.accept},
	}
	if a.accept == "" {
		h.Set("Accept", "*/*")
	}
	if a.offset > 0 {
		h.Set("Range", "bytes="+strconv.FormatInt(a.offset, 10)+"-")
	}
	if header != "" {
		h.Set("Authorization", header)
	}
	return (&http.Request{Method: a.method, URL: u, Host: u.Host, Header: h}).WithContext(ctx)
}

// follow asks for a with p and follows redirects. The pass stays with the
// registry's own scheme, host and port, and once a redirect has led away it is
// shown no more, even if another leads back: that path is not of our choosing.
func (r *registry) follow(ctx context.Context, a ask, p pass) (*answer, error) {
	resp, u, err := r.first(ctx, a, p)
	if err != nil {
		return nil, err
	}
	return r.chase(ctx, a, p, &answer{resp: resp, url: u, host: shown(u), asked: oci.Registry})
}

// chase follows the redirects from an answer on.
func (r *registry) chase(ctx context.Context, a ask, p pass, ans *answer) (*answer, error) {
	home := ans.url
	for range maxHops {
		next, f := r.next(ans)
		if f != nil {
			return nil, f
		}
		if next == nil {
			return ans, nil
		}
		if ans.before == nil {
			ans.before = ans.resp.Header
		}
		asked := ans.askedNext(sameOrigin(home, next))
		staying := asked == oci.Registry
		discard(ans.resp)
		// What the registry would not give without a pass the client can't get either.
		if a.handOver && (!staying || p.header == "") {
			if f := r.mayHandOver(next); f != nil {
				return nil, f
			}
			ans.redirect, ans.host = next.String(), shown(next)
			return ans, nil
		}
		header := ""
		if staying {
			header = p.header
		}
		resp, err := r.roundTrip(request(ctx, a, next, header))
		if err != nil {
			return nil, err
		}
		ans = &answer{resp: resp, url: next, host: shown(next), asked: asked, before: ans.before}
	}
	if next, f := r.next(ans); next == nil && f == nil {
		return ans, nil
	}
	discard(ans.resp)
	return nil, r.fail(oci.Unavailable, never, ans.host, "too many redirects")
}

// next returns where an answer redirects to, nil if it does not.
func (r *registry) next(ans *answer) (*url.URL, *failure) {
	if !ans.redirects() {
		return nil, nil
	}
	location := ans.resp.Header.Get("Location")
	to, err := ans.url.Parse(location)
	if location == "" || err != nil || to.Host == "" {
		discard(ans.resp)
		return nil, r.wrong(ans, oci.Unavailable, never, "a redirect without a usable Location") // the cause repeats the URL
	}
	to.User, to.Fragment, to.RawFragment = nil, "", ""
	if to.Scheme != "https" && (to.Scheme != "http" || !r.Insecure || ans.url.Scheme == "https") {
		discard(ans.resp)
		f := r.fail(oci.Denied, never, shown(to), "a redirect to something else than https is not followed")
		if ans.by() == oci.Middlebox {
			f.By = oci.Middlebox
		}
		return nil, f
	}
	return to, nil
}

// mayHandOver says whether a client may be sent to u. The guard that stands at
// our dialer does not see where its resolver leads, so all is judged by name.
func (r *registry) mayHandOver(u *url.URL) *failure {
	err := r.permits(u, true)
	if err == nil {
		return nil
	}
	return r.fail(oci.Denied, never, shown(u), err.Error())
}

// first asks the registry itself. An insecure one may speak TLS or not, which
// only shows by trying: what it last spoke is remembered, and where that fails
// in the way the other would, the other is tried at once.
func (r *registry) first(ctx context.Context, a ask, p pass) (*http.Response, *url.URL, error) {
	u := r.url(a)
	resp, badTLS, err := r.roundTripAs(request(ctx, a, u, p.header))
	if !r.Insecure || ctx.Err() != nil || !otherScheme(u, resp, badTLS, err) {
		return resp, u, err
	}
	other := *u
	other.Scheme = map[string]string{"http": "https", "https": "http"}[u.Scheme]
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok { // plain HTTP was the answer to TLS
		r.plain.Store(true)
		resp, err := r.roundTrip(request(ctx, a, &other, ""))
		return resp, &other, err
	}
	header := p.header
	if other.Scheme == "http" {
		header = "" // what was for TLS is not shown in the clear: if need be it asks again
	}
	resp2, err2 := r.roundTrip(request(ctx, a, &other, header))
	if err2 != nil || otherScheme(&other, resp2, false, nil) {
		if err2 == nil {
			discard(resp2)
		}
		return resp, u, err // what was remembered says more
	}
	if err == nil {
		discard(resp)
	}
	r.plain.Store(other.Scheme == "http")
	return resp2, &other, nil
}

// otherScheme reports whether a round trip to u looks as if the other of http
// and https were spoken there: servers of TLS answer plain HTTP with 400, or cut.
func otherScheme(u *url.URL, resp *http.Response, badTLS bool, err error) bool {
	if u.Scheme == "https" {
		return badTLS
	}
	if err == nil {
		return resp.StatusCode == http.StatusBadRequest
	}
	f, ok := errors.AsType[*failure](err)
	return ok && f.again == patiently && f.Kind == oci.Unavailable
}

// header returns the answer's field, or that of the registry's redirect where
// the host it led to does not know it.
func (a *answer) header(name string) string {
	if v := a.resp.Header.Get(name); v != "" || a.before == nil {
		return v
	}
	return a.before.Get(name)
}

// discard reads the little that may be left of an answer that is of no use, so
// that its connection is kept, and closes it.
func discard(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, maxErrorBytes) // an error only costs the connection
	_ = resp.Body.Close()
}
