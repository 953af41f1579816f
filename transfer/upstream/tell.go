package upstream

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"oci-proxy/transfer/oci"
)

// A Leg is how far a request came.
type Leg int

// The legs, in order.
const (
	LookUp  Leg = iota // of the host's name; of the proxy's, if there is one
	Connect            // TCP, and a proxy's CONNECT
	Secure             // the TLS handshake with the host
	Answer             // there was a connection
)

// stepOf is the step of a dial that each leg begins with.
var stepOf = [...]int32{LookUp: lookingUp, Connect: connecting, Secure: securing}

// legOf is the leg that a step of a dial is part of.
func legOf(step int32) Leg {
	switch step {
	case connecting:
		return Connect
	case securing:
		return Secure
	default:
		return LookUp
	}
}

// A Trip is what one request to a registry, or to where it leads, came to. It holds no
// path, no query and no credential.
type Trip struct {
	To        oci.Party // who was asked: Registry, TokenServer, or Storage for any other host
	Method    string
	Host      string           // host[:port]
	Plain     bool             // without TLS
	Proxy     string           // host[:port] of the proxy that was taken, "" for none
	Addresses []netip.Addr     // what the name that was looked up means; nil if none was
	Remote    netip.Addr       // the other end of the connection
	Leg       Leg              // the last one that was begun
	Took      [4]time.Duration // each leg, 0 if there was none
	TLS       string           // its version, "" if there was none
	Expires   time.Time        // the certificate of the host
	Status    int              // of the answer, 0 if there was none
	Location  string           // host[:port] where the answer redirects to, "" if it does not
	Quota     Quota            // what the answer says of the rate limit
	Err       error            // why there is no answer, an *oci.Error; nil if there is one
}

type hearKey struct{}

// Told returns ctx for requests of which hear hears, one by one, each when its answer has
// begun or it has failed. hear must return at once. What is asked for several callers at a
// time, such as a token, is told to one of them.
func Told(ctx context.Context, hear func(Trip)) context.Context {
	return context.WithValue(ctx, hearKey{}, hear)
}

// tell tells whoever wants to hear of a round trip. err is a *failure, if there is one.
func (n *network) tell(req *http.Request, t *trip, resp *http.Response, err *failure, began time.Time) {
	hear, ok := req.Context().Value(hearKey{}).(func(Trip))
	if !ok {
		return
	}
	out := Trip{To: oci.Storage, Method: req.Method, Host: shown(req.URL), Plain: t.plain, Remote: t.remote, Leg: legOf(t.step.Load())}
	switch kind, _ := req.Context().Value(kindKey{}).(string); {
	case kind == "token":
		out.To = oci.TokenServer
	case n.home.isOwn(req.URL):
		out.To = oci.Registry
	}
	if t.proxy != nil {
		out.Proxy = shown(t.proxy)
	}
	if ips := t.means.Load(); ips != nil {
		out.Addresses = *ips
	}
	out.Took = t.took(began, time.Now())
	if t.connected && !t.since.IsZero() {
		out.Leg = Answer
	}
	if err != nil {
		out.Err = err.cause
	} else {
		out.hears(resp, req.URL)
	}
	hear(out)
}

// took returns how long each leg took of a trip between two times, 0 for those that there
// were none of.
func (t *trip) took(began, ended time.Time) (all [4]time.Duration) {
	ends := ended
	for leg := Answer; leg >= LookUp; leg-- {
		at := began
		switch {
		case leg == Answer && t.connected:
			at = t.since
		case leg == Answer:
			at = time.Time{}
		case leg > LookUp:
			at = time.Unix(0, t.begun[stepOf[leg]].Load())
		}
		if at.Before(began) || at.After(ends) {
			continue // there was none
		}
		all[leg], ends = ends.Sub(at), at
	}
	return all
}

// hears adds what an answer to a request to u tells.
func (t *Trip) hears(resp *http.Response, u *url.URL) {
	t.Status = resp.StatusCode
	if quota, ok := quotaOf(resp.Header, time.Now()); ok {
		t.Quota = quota
	}
	if to, err := u.Parse(resp.Header.Get("Location")); err == nil && (&answer{resp: resp}).redirects() {
		t.Location = shown(to)
	}
	if resp.TLS != nil {
		t.TLS = tls.VersionName(resp.TLS.Version)
		if len(resp.TLS.PeerCertificates) > 0 {
			t.Expires = resp.TLS.PeerCertificates[0].NotAfter
		}
	}
}
