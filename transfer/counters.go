package transfer

import (
	"io"
	"maps"
	"oci-proxy/transfer/oci"
	"sync"
	"sync/atomic"
)

// Counters are what one registry's clients were served, and what that took.
type Counters struct {
	Hits, PeerHits, Misses             atomic.Int64 // requests of clients
	HitBytes, PeerHitBytes, MissBytes  atomic.Int64 // bytes sent to clients
	FromUpstreamBytes, FromPeersBytes  atomic.Int64 // bytes of blobs received
	ToPeers, ToPeersBytes, PeersPassed atomic.Int64 // blobs sent to peers, their bytes, peers that failed
}

// counters are the counters of each registry that has delivered something.
type counters struct {
	mu         sync.Mutex
	byRegistry map[string]*Counters
}

// maxCounted bounds the registries that are counted apart. Those beyond are
// counted together, under "": clients make up names, and whoever has a domain
// answers to any below it. What a node counts has to fit into one answer.
const maxCounted = 512

// of returns a registry's counters.
func (c *counters) of(registry string) *Counters {
	c.mu.Lock()
	defer c.mu.Unlock()
	one, ok := c.byRegistry[registry]
	if !ok && len(c.byRegistry) >= maxCounted {
		registry = ""
		one, ok = c.byRegistry[registry]
	}
	if !ok {
		if c.byRegistry == nil {
			c.byRegistry = map[string]*Counters{}
		}
		one = new(Counters)
		c.byRegistry[registry] = one
	}
	return one
}

// count counts a request.
func (c *counters) count(registry string, from oci.Origin) {
	one := c.of(registry)
	[...]*atomic.Int64{oci.Miss: &one.Misses, oci.Hit: &one.Hits, oci.PeerHit: &one.PeerHits}[from].Add(1)
}

// Sent counts bytes that went to a client.
func (f *Fetcher) Sent(registry string, from oci.Origin, n int64) {
	one := f.counters.of(registry)
	[...]*atomic.Int64{oci.Miss: &one.MissBytes, oci.Hit: &one.HitBytes, oci.PeerHit: &one.PeerHitBytes}[from].Add(n)
}

// counted counts what comes from src.
func (f *Fetcher) counted(registry string, src source, r io.Reader) io.Reader {
	one := f.counters.of(registry)
	switch {
	case src.here:
		return r
	case src.peer != nil:
		return &counter{r, &one.FromPeersBytes}
	default:
		return &counter{r, &one.FromUpstreamBytes}
	}
}

// A counter counts what is read.
type counter struct {
	io.Reader
	n *atomic.Int64
}

// Read implements io.Reader.
func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// Counters returns the live counters of each registry that has delivered something.
func (f *Fetcher) Counters() map[string]*Counters {
	f.counters.mu.Lock()
	defer f.counters.mu.Unlock()
	return maps.Clone(f.counters.byRegistry)
}
