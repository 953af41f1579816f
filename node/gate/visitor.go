package gate

import (
	"context"
	"crypto/rand"
	"net/http"

	"oci-proxy/transfer/oci"
)

// A Visitor is what the gate learns of who sent a request, for the log.
type Visitor struct {
	// User is whose login was right, "" for none. A name beside a wrong password may be a
	// password in the wrong field, so it is not kept.
	User string
}

type visitorKey struct{}

// WithVisitor returns ctx for a request whose sender the gate notes in v.
func WithVisitor(ctx context.Context, v *Visitor) context.Context {
	return context.WithValue(ctx, visitorKey{}, v)
}

// noteUser notes whose login was right.
func noteUser(r *http.Request, user string) {
	if v, ok := r.Context().Value(visitorKey{}).(*Visitor); ok {
		v.User = user
	}
}

// RequestIDHeader names a request in its answer, in logs, and where a trusted proxy has named
// it in the request.
const RequestIDHeader = "X-Request-Id"

// RequestID returns the id of a request: the one that a proxy in trusted_proxies gave it, or a
// new one. Anybody else could make requests look like one another.
func (g *Gate) RequestID(r *http.Request) string {
	given := r.Header[RequestIDHeader]
	if len(given) == 1 && oci.IsRequestID(given[0]) && g.FromBalancer(r) {
		return given[0]
	}
	return rand.Text()
}
