package oci

import (
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

// String returns the origin as it stands in logs.
func (o Origin) String() string { return [...]string{"miss", "hit", "peer"}[o] }

// A Way says how an answer came about, for the log, the counters and Cache-Status.
type Provenance struct {
	Origin    Origin
	Collapsed bool   // it joined a download or a check that somebody else began
	Stored    bool   // it was, or is being, kept in the shard
	Checked   bool   // a tag that we knew was checked with upstream
	Stale     *Error // upstream failed so, and what we last knew had to do
	Host      string // the host that delivered, "" for a hit; a peer's name
	Via       string // the members of Cache-Status of the nodes passed, nearest upstream first
	// At is when the registry told what a tag means, or that a private one's
	// repository has the content: no node counts from a later time because it
	// heard that from another. Zero: it was asked for this answer, or need not be.
	At time.Time
}

// CacheStatus tells how the answer came about (RFC 9211): a member for each
// node passed, the one nearest upstream first. name is what this node calls
// itself, tag says that a tag was asked for.
func (w Provenance) CacheStatus(name string, tag bool) string {
	s := token(name) + w.status(tag)
	if w.Via != "" {
		return w.Via + ", " + s
	}
	return s
}

// status is this node's part, without its name.
func (w Provenance) status(tag bool) string {
	s := ""
	switch {
	case w.Stale != nil:
		s += "; fwd=stale"
		if w.Stale.Status != 0 {
			s += "; fwd-status=" + strconv.Itoa(w.Stale.Status)
		}
		s += "; detail=stale-if-error"
	case w.Origin == Hit:
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

// token writes a name as a member of a structured list is named: as it is if
// it is a token, else as a string (RFC 9651 section 3.3.3 and 3.3.4).
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

// quoted writes a string of a structured field. It holds visible ASCII only.
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

// A Found manifest is what a client gets: with Bytes for a GET, without for a HEAD.
type Found struct {
	Manifest
	Provenance
	Size int64
}

// A Sized blob is what a HEAD tells.
type Sized struct {
	Provenance
	Size     int64  // -1: not known
	Redirect string // set where the registry's redirect goes to the client
}
