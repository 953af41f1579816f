package gate

import (
	"context"
	"math/rand/v2"
	"net/http"

	"oci-proxy/transfer/oci"
)

// A Visitor is what the gate learns of who sent a request, for the log.
type Visitor struct {
	// User is whose login was right, "" for none. A name beside a wrong password may be a
	// password in the wrong field, so it is not kept.
	User string
}

// A VisitorKey is the key of a context's *Visitor, see WithVisitor.
type VisitorKey struct{}

// WithVisitor returns ctx for a request whose sender the gate notes in v.
func WithVisitor(ctx context.Context, v *Visitor) context.Context {
	return context.WithValue(ctx, VisitorKey{}, v)
}

// noteUser notes whose login was right.
func noteUser(r *http.Request, user string) {
	if v, ok := r.Context().Value(VisitorKey{}).(*Visitor); ok {
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
	return newID()
}

// newID returns an id that no other request has. It is no secret: whoever may see it learns nothing.
func newID() string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	var text [26]byte // as many as 128 bits take
	high, low := rand.Uint64(), rand.Uint64()
	for i := range text {
		text[i] = letters[low%32]
		low = low>>5 | high<<59
		high >>= 5
	}
	return string(text[:])
}
