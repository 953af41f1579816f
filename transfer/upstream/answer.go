package upstream

import (
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

// An answer is what a request led to.
type answer struct {
	resp     *http.Response
	home     *home       // of the registry that the request was for
	url      *url.URL    // that answered
	asked    oci.Party   // who is at that URL: the registry, its token server, or where a redirect led
	heard    bool        // the body of an error was read: oci and said are known
	oci      bool        // it is an error in the form that registries share
	said     string      // the message in it
	before   http.Header // of the registry's redirect, nil without one
	redirect *url.URL    // where the registry sends the client (handOver); resp is closed
}

// host returns the host:port that answered, or to which a redirect is handed over.
func (a *answer) host() string {
	if a.redirect != nil {
		return shown(a.redirect)
	}
	return shown(a.url)
}

// location returns the URL of a redirect that is handed over, "" if there is none.
func (a *answer) location() string {
	if a.redirect == nil {
		return ""
	}
	return a.redirect.String()
}

// discard reads the little that may be left of an answer that is not needed, so
// that its connection can be used again, and closes it.
func (a *answer) discard() {
	limit := endsIn(leftoverTime, a.resp.Body)
	_, _ = io.CopyN(io.Discard, a.resp.Body, maxErrorBytes) // an error only costs the connection
	limit.Stop()
	_ = a.resp.Body.Close()
}

// endsIn closes a body after that time unless the timer is stopped, and so ends a Read of it: a
// header may announce a body that never comes.
func endsIn(d time.Duration, body io.Closer) *time.Timer {
	return time.AfterFunc(d, func() { _ = body.Close() }) // its reader sees that
}

// header returns a header field of the answer, or that of the registry's redirect
// if the host it led to does not set it.
func (a *answer) header(name string) string {
	if v := a.resp.Header.Get(name); v != "" || a.before == nil {
		return v
	}
	return a.before.Get(name)
}

// is reports whether the answer has one of these statuses.
func (a *answer) is(statuses ...int) bool {
	return slices.Contains(statuses, a.resp.StatusCode)
}

// redirects reports whether the answer sends the client elsewhere.
func (a *answer) redirects() bool {
	return a.is(http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect)
}

// challenged reports whether another pass may change the answer. A 401 says so
// always, a 403 if the pass may have expired since (ECR, NGC) or if it asks for one.
func (a *answer) challenged(p pass) bool {
	if a.redirect != nil || a.asked != oci.Registry {
		return false
	}
	switch a.resp.StatusCode {
	case http.StatusUnauthorized:
		return p.header != "" || len(challengesOf(a.resp.Header)) > 0
	case http.StatusForbidden:
		return p.cached || p.header == "" && a.resp.Header.Get("WWW-Authenticate") != ""
	}
	return false
}

// turnsAway reports whether the registry refuses a bare request without a challenge:
// some say so, some pretend to have nothing, and some give guests a small quota.
func (a *answer) turnsAway() bool {
	return a.redirect == nil && a.asked == oci.Registry &&
		a.is(http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusTooManyRequests)
}

// bareType returns the answer's media type without parameters.
func (a *answer) bareType() string {
	kind, _, _ := mime.ParseMediaType(a.resp.Header.Get("Content-Type"))
	return kind
}

// isPage reports whether the answer is a page for people. Networks that want a
// login first, and gateways in trouble, answer everything with a page.
func (a *answer) isPage() bool { return strings.Contains(a.bareType(), "html") }

// mediaType returns the Content-Type. Storage often does not know the type of
// what it holds. Then the registry's redirect tells it, unless it means the page
// that comes with the redirect.
func (a *answer) mediaType() string {
	last := a.resp.Header.Get("Content-Type")
	if a.before == nil || last != "" && last != "application/octet-stream" && last != "binary/octet-stream" {
		return last
	}
	if first := a.before.Get("Content-Type"); strings.HasPrefix(first, "application/vnd.") {
		return first
	}
	return last
}

// digest returns the digest that the answer names, "" if it names no valid one.
func (a *answer) digest() digest.Digest {
	d, err := digest.Parse(strings.TrimSpace(a.header("Docker-Content-Digest")))
	if err != nil || !checkable(d) {
		return ""
	}
	return d
}

// checkable reports whether this program can compute digests of d's algorithm.
func checkable(d digest.Digest) bool {
	return d.Algorithm() == digest.SHA256 || d.Algorithm() == digest.SHA512
}

// identity reports whether the body is sent as it is, not compressed on its way.
func (a *answer) identity() bool {
	coding := strings.TrimSpace(a.resp.Header.Get("Content-Encoding"))
	return coding == "" || strings.EqualFold(coding, "identity")
}

// isWhole reports whether the answer is the whole of what was asked for. Something on the
// way that changed the answer may have made a 203 of it (RFC 9110 section 15.3.4): a
// digest tells whether the content is right all the same.
func (a *answer) isWhole() bool { return a.is(http.StatusOK, http.StatusNonAuthoritativeInfo) }

// isMarked reports whether the answer, or the registry's redirect to it, has the header of
// the registry API.
func (a *answer) isMarked() bool { return a.header("Docker-Distribution-Api-Version") != "" }

// coding is what is wrong with an answer that is not identity.
func (a *answer) coding() string {
	return fmt.Sprintf("it was sent with Content-Encoding %s, though none was asked for", printable(a.resp.Header.Get("Content-Encoding")))
}
