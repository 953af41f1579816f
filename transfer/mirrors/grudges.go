package mirrors

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

// maxGrudges bounds what is remembered: clients make up names and digests.
const maxGrudges = 2048

// A grudge is what a host did wrong: it sent wrong bytes for a digest, or did not have
// something of a repository.
type grudge struct {
	host       string // "": some host
	digest     digest.Digest
	repository string
}

// grudges remember what hosts did wrong, for a while.
type grudges struct {
	mu    sync.Mutex // guards the fields below; never held during I/O
	until *simplelru.LRU[grudge, time.Time]
}

func newGrudges() *grudges {
	until, err := simplelru.NewLRU[grudge, time.Time](maxGrudges, nil)
	if err != nil {
		panic(err) // it only refuses a size below 1
	}
	return &grudges{until: until}
}

// note remembers a grudge for that time.
func (g *grudges) note(one grudge, d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.until.Add(one, time.Now().Add(d))
}

// holds reports whether a grudge is remembered.
func (g *grudges) holds(one grudge) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	until, ok := g.until.Get(one)
	return ok && time.Now().Before(until)
}

// lie notes that a host sent wrong bytes for ref's digest.
func (g *grudges) lie(host string, ref oci.Ref) {
	g.note(grudge{host: host, digest: ref.Digest}, lieFor)
	g.note(grudge{digest: ref.Digest}, lieFor)
}

// lied reports whether a host sent wrong bytes for ref's digest.
func (g *grudges) lied(host string, ref oci.Ref) bool {
	return ref.Digest != "" && g.holds(grudge{host: host, digest: ref.Digest})
}

// disputed reports whether any host sent wrong bytes for ref's digest.
func (g *grudges) disputed(ref oci.Ref) bool { return g.lied("", ref) }

// lack notes that a host did not have something of ref's repository, or refused it.
func (g *grudges) lack(host string, ref oci.Ref) {
	g.note(grudge{host: host, repository: ref.Repository}, lackFor)
}

// lacks reports whether a host did not have something of ref's repository.
func (g *grudges) lacks(host string, ref oci.Ref) bool {
	return g.holds(grudge{host: host, repository: ref.Repository})
}
