package flight

import (
	"errors"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/trace"
)

// A Ticket is a request for a blob, and says which flights it may board.
type Ticket struct {
	grants.Request
	ForMember bool         // another member asks: this node gets the blob from the registry itself
	Terms     mesh.Terms   // by which that member asks,
	Asker     string       // and its id
	Caller    oci.Caller   // for whom it is got
	Trace     trace.Parent // what a flight that it begins belongs to
	Damaged   cache.Blob   // a copy from the shard; what is right of it need not come again
	Parts     Parts        // what of the blob is wanted, nil for the whole

	not    *Flight // not this one: the request has fallen out of it
	own    bool    // only a flight for the same repository
	looked uint64  // how many flights had landed when the shard was looked at
	told   bool    // that the blob had landed
	left   <-chan struct{}
}

// Parts returns the spans of a blob of that size that a request wants, none if it wants
// the whole. rest is the length of a span for which the request named no end, else 0.
type Parts func(size int64) (spans []oci.Span, rest int64)

// NewTicket returns a Ticket for a client. What a private registry delivers for one
// repository is not for those who ask for another.
func NewTicket(q grants.Request) *Ticket { return &Ticket{Request: q, own: q.Private} }

// Avoid keeps the ticket from boarding fl again, if there is such a flight.
func (t *Ticket) Avoid(fl *Flight) { t.not = fl }

// Failed notes that fl failed the ticket. It reports whether fl was for another
// repository. Such an answer says nothing about the ticket's, so from now on only a
// flight for its own repository will do.
func (t *Ticket) Failed(fl *Flight) (strange bool) {
	strange = fl.Ref() != t.Ref
	t.not, t.own = fl, t.own || strange
	return strange
}

// Host returns the host that delivered to the flight that failed the ticket, "" if
// none did.
func (t *Ticket) Host() string {
	if t.not == nil {
		return ""
	}
	return t.not.Host()
}

// Wrong says why, if err is that the flight that failed the ticket brought other bytes
// than the digest names; else it returns err.
func (t *Ticket) Wrong(err error) error {
	if _, told := oci.AsError(err); told || t.not == nil || !errors.Is(err, cache.ErrDigest) {
		return err
	}
	return &oci.Error{Kind: oci.Corrupt, Registry: t.Registry, Host: t.Host(), Reason: t.not.wrongBytes(), Err: err}
}

// mayBoard reports whether the ticket is good for fl.
func (t *Ticket) mayBoard(fl *Flight) bool {
	return fl != t.not && (!t.own || fl.Ref() == t.Ref)
}
