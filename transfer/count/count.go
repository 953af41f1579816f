// Package count counts, for each registry, what clients were served and what that
// took.
package count

import (
	"io"
	"maps"
	"sync"
	"sync/atomic"

	"oci-proxy/transfer/oci"
)

// Counters are the figures of one registry.
type Counters struct {
	Hits, PeerHits, Misses            atomic.Int64 // requests of clients, by where the content came from
	HitBytes, PeerHitBytes, MissBytes atomic.Int64 // bytes sent to clients, likewise
	FromUpstreamBytes, FromPeersBytes atomic.Int64 // bytes of blobs received
	FromArchiveBytes                  atomic.Int64 // bytes of blobs received from the archive's bucket
	ToPeers, ToPeersBytes             atomic.Int64 // blobs sent to other nodes, and their bytes
	PeersPassed                       atomic.Int64 // peers that were passed over because they could not help
	Resumes                           atomic.Int64 // downloads that were taken up again
}

// Request counts a client's request that was served from there.
func (c *Counters) Request(from oci.Origin) {
	[...]*atomic.Int64{oci.Miss: &c.Misses, oci.Hit: &c.Hits, oci.PeerHit: &c.PeerHits}[from].Add(1)
}

// Sent is where bytes are counted that go to a client.
func (c *Counters) Sent(from oci.Origin) *atomic.Int64 {
	return [...]*atomic.Int64{oci.Miss: &c.MissBytes, oci.Hit: &c.HitBytes, oci.PeerHit: &c.PeerHitBytes}[from]
}

// maxRegistries bounds the registries that are counted apart. All others are
// counted together, under "": clients make up names, and whoever owns a domain
// answers to any name below it. What a node counts has to fit into one answer.
const maxRegistries = 512

// A Book holds the Counters of each registry that has delivered something. The
// zero value is ready to use.
type Book struct {
	mu         sync.Mutex // guards the fields below; never held during I/O
	byRegistry map[string]*Counters
}

// Of returns a registry's Counters.
func (b *Book) Of(registry string) *Counters {
	b.mu.Lock()
	defer b.mu.Unlock()
	one, ok := b.byRegistry[registry]
	if !ok && len(b.byRegistry) >= maxRegistries {
		registry = ""
		one, ok = b.byRegistry[registry]
	}
	if !ok {
		if b.byRegistry == nil {
			b.byRegistry = map[string]*Counters{}
		}
		one = new(Counters)
		b.byRegistry[registry] = one
	}
	return one
}

// All returns the live Counters of each registry.
func (b *Book) All() map[string]*Counters {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.byRegistry)
}

// Reader returns r with what is read from it added to n.
func Reader(r io.Reader, n *atomic.Int64) io.Reader { return &reader{r, n} }

// Writer returns w with what is written to it added to n, piece by piece. It has a
// ReadFrom, which uses that of w.
func Writer(w io.Writer, n *atomic.Int64) io.Writer { return &writer{w, n} }

// A writer counts what is written.
type writer struct {
	to io.Writer
	n  *atomic.Int64
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	n, err := w.to.Write(p)
	w.n.Add(int64(n))
	return n, err
}

// ReadFrom implements io.ReaderFrom. The kernel copies a file only if src reaches the
// connection as it is.
func (w *writer) ReadFrom(src io.Reader) (int64, error) {
	to, ok := w.to.(io.ReaderFrom)
	if !ok {
		return io.Copy(struct{ io.Writer }{w}, src) // its Write counts
	}
	n, err := to.ReadFrom(src)
	w.n.Add(n)
	return n, err
}

// A reader counts what is read.
type reader struct {
	io.Reader
	n *atomic.Int64
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.n.Add(int64(n))
	return n, err
}
