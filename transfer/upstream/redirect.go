package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"oci-proxy/transfer/oci"
)

// maxHops bounds the redirects of one request.
const maxHops = 10

// An ask is a request in parts.
type ask struct {
	method   string // GET or HEAD; POST to exchange a token
	repo     string // "": the registry as a whole
	path     string // below /v2/<repo>/
	query    oci.Query
	accept   string
	offset   int64  // > 0: from that byte on
	length   int64  // > 0: that many bytes
	upTo     bool   // fewer of them will do, and so will the whole
	handOver bool   // a redirect is not followed but is the answer
	token    bool   // a token server is asked
	form     string // body of a POST (application/x-www-form-urlencoded)
	budget   *budget
}

// at returns the request for a at u. authorization is its header of that name. Each
// hop's request is built anew: http.Client, which is not used here, would hand the
// header to other ports of the same host, to sub-domains, and from https down to
// http.
func (a ask) at(ctx context.Context, u *url.URL, authorization string) *http.Request {
	own := []string{"oci-proxy/" + Version, "identity", cmp.Or(a.accept, "*/*")}
	h := http.Header{"User-Agent": own[0:1:1], "Accept-Encoding": own[1:2:2], "Accept": own[2:3:3]}
	switch {
	case a.length > 0:
		h.Set("Range", fmt.Sprintf("bytes=%d-%d", a.offset, a.offset+a.length-1))
	case a.offset > 0:
		h.Set("Range", "bytes="+strconv.FormatInt(a.offset, 10)+"-")
	}
	if authorization != "" {
		h.Set("Authorization", authorization)
	}
	req := (&http.Request{Method: a.method, URL: u, Host: u.Host, Header: h}).WithContext(a.metered(ctx))
	if a.form != "" {
		h.Set("Content-Type", "application/x-www-form-urlencoded")
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(a.form)), nil }
		req.Body, _ = req.GetBody()
		req.ContentLength = int64(len(a.form))
	}
	return req
}

// hops send a request to the registry and on, wherever redirects lead.
type hops struct {
	home *home
	net  *network
}

// url returns where a is sent first.
func (h hops) url(a ask) *url.URL {
	path := h.home.path + "/v2/"
	if a.repo != "" {
		path += a.repo + "/" + a.path
	}
	return &url.URL{Scheme: h.home.scheme(), Host: h.home.host, Path: path, RawQuery: string(a.query)}
}

// follow sends a with p and follows redirects. The pass stays with the registry's
// own scheme, host and port. Once a redirect has led away, the pass is not shown
// again, even if another redirect leads back: the registry did not choose that path.
func (h hops) follow(ctx context.Context, a ask, p pass) (*answer, error) {
	resp, u, err := h.first(ctx, a, p)
	if err != nil {
		return nil, err
	}
	return h.chase(ctx, a, p, &answer{resp: resp, home: h.home, url: u, asked: oci.Registry})
}

// send sends a to u, and once more below the registry's path if that is where u belongs
// and u itself leads to nothing. It returns the URL that answered.
func (h hops) send(ctx context.Context, a ask, u *url.URL, authorization string) (*http.Response, *url.URL, error) {
	resp, err := h.net.roundTrip(a.at(ctx, u, authorization))
	below := h.home.below(u)
	if err != nil || below == nil {
		return resp, u, err
	}
	ans := &answer{resp: resp, home: h.home, url: u}
	if !ans.is(http.StatusNotFound) && !(ans.resp.StatusCode < 300 && ans.isPage()) {
		return resp, u, nil
	}
	ans.discard()
	resp, err = h.net.roundTrip(a.at(ctx, below, authorization))
	return resp, below, err
}

// chase follows the redirects that begin with ans.
func (h hops) chase(ctx context.Context, a ask, p pass, ans *answer) (*answer, error) {
	if !ans.redirects() { // as most do not
		return ans, nil
	}
	start, seen := ans.url, map[string]bool{ans.url.String(): true}
	for range maxHops {
		next, f := h.next(ans)
		if f != nil {
			return nil, f
		}
		if next == nil {
			return ans, nil
		}
		if seen[next.String()] { // without the cookies that it may want, it would go on so
			break
		}
		seen[next.String()] = true
		if ans.before == nil {
			ans.before = ans.resp.Header
		}
		asked := ans.askedNext(sameOrigin(start, next))
		staying := asked == oci.Registry
		ans.discard()
		// A client can't follow the registry's redirect to itself without the pass.
		if a.handOver && (!staying || p.header == "") {
			return h.handOver(ans, next)
		}
		header := ""
		if staying {
			header = h.home.header(next, p)
		}
		if f := h.net.pauses.holds(hostPort(next)); f != nil {
			return nil, f
		}
		resp, at, err := h.send(ctx, a, next, header)
		if err != nil && a.method == http.MethodHead && asked == oci.Storage && ans.digest() != "" {
			return ans, nil // the redirect has told what a HEAD is for
		}
		if err != nil {
			return nil, err
		}
		ans = &answer{resp: resp, home: h.home, url: at, asked: asked, before: ans.before}
	}
	if next, f := h.next(ans); next == nil && f == nil {
		return ans, nil
	}
	ans.discard()
	return nil, h.home.fail(oci.Unavailable, never, ans.host(), "too many redirects, or in a circle")
}

// next returns where an answer redirects to, nil if it does not.
func (h hops) next(ans *answer) (*url.URL, *failure) {
	if !ans.redirects() {
		return nil, nil
	}
	location := ans.resp.Header.Get("Location")
	to, err := ans.url.Parse(location)
	if location == "" || err != nil || to.Host == "" {
		ans.discard()
		return nil, ans.wrong(oci.Unavailable, never, "a redirect without a usable Location") // the cause quotes the URL
	}
	to.User, to.Fragment, to.RawFragment = nil, "", ""
	to.RawQuery = strings.ReplaceAll(to.RawQuery, " ", "%20") // a space would end the URL in the request
	if to.Scheme == "https" || to.Scheme == "http" && h.home.insecure && ans.url.Scheme != "https" {
		return to, nil
	}
	ans.discard()
	f := h.home.fail(oci.Unavailable, never, shown(to), "a redirect to anything but https is not followed")
	if ans.by() == oci.Middlebox {
		f.By, f.again = oci.Middlebox, shortly
	}
	return nil, f
}

// handOver makes ans the answer that sends the client to u. Here the guard judges
// u as if a proxy resolved the name: the client's resolver does, unseen by us.
func (h hops) handOver(ans *answer, u *url.URL) (*answer, error) {
	if err := h.net.guard.permits(u, true); err != nil {
		return nil, h.home.fail(oci.Denied, never, shown(u), err.Error())
	}
	ans.redirect = u
	return ans, nil
}

// first sends a to the registry itself. An insecure registry may speak TLS or not,
// and only trying shows which. The scheme that worked last is tried first. If it
// fails as the wrong scheme would, the other is tried at once: plain HTTP only if the registry
// never spoke TLS, or answers TLS with plain HTTP. A pass for TLS is not sent in the clear: the
// registry asks again if it needs one.
func (h hops) first(ctx context.Context, a ask, p pass) (*http.Response, *url.URL, error) {
	u, began := h.url(a), time.Now()
	resp, badTLS, err := h.net.roundTripTLS(a.at(ctx, u, h.home.header(u, p)))
	other := *u
	other.Scheme = map[string]string{"http": "https", "https": "http"}[u.Scheme]
	if !h.home.insecure || ctx.Err() != nil || !otherScheme(u, resp, badTLS, err) && !h.otherPort(&other, err, time.Since(began)) {
		if err == nil {
			h.home.met(u.Scheme)
		}
		return resp, u, err
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok { // plain HTTP was the answer to TLS
		h.home.met(other.Scheme)
		resp, err := h.net.roundTrip(a.at(ctx, &other, ""))
		return resp, &other, err
	}
	if u.Scheme == "https" && h.home.secured.Load() {
		return resp, u, err // its TLS hangs or breaks, which does not say that it has none any more
	}
	resp2, err2 := h.net.roundTrip(a.at(ctx, &other, h.home.header(&other, p)))
	if err2 != nil || otherScheme(&other, resp2, false, nil) {
		if err2 == nil {
			(&answer{resp: resp2}).discard()
		}
		return resp, u, err // the scheme that worked before tells more
	}
	if err == nil {
		(&answer{resp: resp}).discard()
	}
	h.home.met(other.Scheme)
	return resp2, &other, nil
}

// otherPort reports whether a round trip by one scheme ended with no connection, and other, by the
// other scheme, has a port of its own that may be open. What took long is not tried, nor what is
// known to be out of reach: the next request may fare better.
func (h hops) otherPort(other *url.URL, err error, took time.Duration) bool {
	f, ok := errors.AsType[*failure](err)
	if !ok || h.home.port != "" || !f.Unreached || took > unreachableBudget {
		return false
	}
	_, dns := errors.AsType[*net.DNSError](f.Err)
	return !dns && f.Kind != oci.Denied && !h.net.isOut(other)
}

// isOut reports whether u is known to be out of reach.
func (n *network) isOut(u *url.URL) bool {
	proxy, err := n.permitted(u)
	return err != nil || n.outages.known(newTrip(proxy, u).place) != nil
}

// otherScheme reports whether a round trip to u ended as if the server spoke the
// other of http and https. TLS servers answer plain HTTP with 400, or hang up.
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
