package oci

import (
	"context"
	"io"
	"strconv"
	"strings"
	"time"
)

// An Origin says where an answer's bytes came from.
type Origin int

// The origins.
const (
	Miss    Origin = iota // from upstream
	Hit                   // from the shard
	PeerHit               // from another node's shard
)

// String returns the origin as logs show it.
func (o Origin) String() string { return [...]string{"miss", "hit", "peer"}[o] }

// A Provenance says how an answer came about, for the log, the counters and
// Cache-Status.
type Provenance struct {
	Origin    Origin
	Collapsed bool   // it joined a download or a check that another request began
	Stored    bool   // it was, or is being, kept in the shard
	Checked   bool   // a known tag was checked with upstream
	Stale     *Error // upstream failed in this way, and stale content was served
	Host      string // the host that delivered, a peer's name, or "" for a hit
	Via       string // the Cache-Status of the nodes it passed, the nearest to upstream first
	// At is when the registry said what a tag means or, if it is private, that the
	// repository has the content. A node that hears it from another counts from this
	// time and no later one. Zero: the registry was asked for this answer, or need
	// not be.
	At time.Time
}

// Marked reports whether the answer is marked as stale. That an offline registry is not
// asked is what its operator wants.
func (w Provenance) Marked() bool { return w.Stale != nil && w.Stale.Kind != Offline }

// CacheStatus returns the header of that name (RFC 9211): a member for each node that
// the answer passed, the nearest to upstream first. name is this node's, and tag says
// that the request was for a tag.
func (w Provenance) CacheStatus(name string, tag bool) string {
	s := token(name) + w.status(tag)
	if w.Via != "" {
		return w.Via + ", " + s
	}
	return s
}

// status returns this node's member without its name.
func (w Provenance) status(tag bool) string {
	s := ""
	switch {
	case w.Marked():
		s += "; fwd=stale"
		if w.Stale.Status != 0 {
			s += "; fwd-status=" + strconv.Itoa(w.Stale.Status)
		}
		s += "; detail=stale-if-error"
	case w.Origin == Hit || w.Stale != nil:
		return "; hit"
	case tag && w.Checked:
		s += "; fwd=stale"
	default:
		s += "; fwd=uri-miss"
	}
	if w.Stored {
		s += "; stored"
	}
	if w.Collapsed {
		s += "; collapsed"
	}
	return s
}

// token returns a name as a structured field has it: as it is if it is a token, else
// quoted (RFC 9651 section 3.3.3 and 3.3.4).
func token(name string) string {
	for i, c := range []byte(name) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if letter || c == '*' || i > 0 && (c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~:/", c) >= 0) {
			continue
		}
		return quoted(name)
	}
	if name == "" {
		return quoted(name)
	}
	return name
}

// quoted returns s as a string of a structured field, which holds visible ASCII only.
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			b.WriteByte('?')
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// A Found is a manifest for a client. For a GET its bytes are in Body or in Bytes,
// for a HEAD they need be in neither. Close it.
type Found struct {
	Manifest
	Provenance
	Size int64
	// Open opens the bytes of a manifest that are not in Bytes, because the shard has it
	// and it is large. nil: they are in Bytes.
	Open func() (Body, error)
	Body Body // opened; nil: it was not
}

// A Body is an open manifest. Its methods are those of cache.Blob.
type Body interface {
	Send(ctx context.Context, w io.Writer, off, n int64) (int64, error)
	Close() error
}

// Send writes the bytes [off, off+n) to w and returns how many it wrote.
func (f *Found) Send(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	if f.Body != nil {
		return f.Body.Send(ctx, w, off, n)
	}
	k, err := w.Write(f.Bytes[off : off+n])
	return int64(k), err
}

// Close lets the bytes go.
func (f *Found) Close() error {
	if f.Body == nil {
		return nil
	}
	return f.Body.Close()
}

// A Sized is a blob as a HEAD describes it.
type Sized struct {
	Provenance
	Size     int64  // -1: not known
	Redirect string // set if the registry's redirect goes to the client
}
