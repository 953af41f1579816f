package flight

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

// maxSizes bounds the sizes that are remembered. A size that is forgotten is
// believed from whoever tells it.
const maxSizes = 1 << 15

// unknown is the size of a blob that no manifest tells, or that manifests disagree
// about.
const unknown = -1

// Sizes are the sizes of blobs as manifests tell them. They keep a peer from telling
// a client another size, and from sending without end. Anybody can write a manifest, so
// for its sake a registry is doubted once at most and no peer blamed.
type Sizes struct {
	mu     sync.Mutex // guards the fields below; never held during I/O
	of     *simplelru.LRU[oci.Content, int64]
	learnt *simplelru.LRU[oci.Content, struct{}] // manifests whose parts are noted
}

// NewSizes returns Sizes that know none.
func NewSizes() *Sizes {
	of, _ := simplelru.NewLRU[oci.Content, int64](maxSizes, nil) // the sizes are right
	learnt, _ := simplelru.NewLRU[oci.Content, struct{}](maxSizes, nil)
	return &Sizes{of: of, learnt: learnt}
}

// Learn notes what a manifest of the registry tells, and its own size, once. That an
// index told the manifest's size does not count: it did not tell those of its layers.
func (s *Sizes) Learn(registry string, d digest.Digest, mediaType string, manifest []byte) {
	c := oci.Content{Registry: registry, Digest: d}
	if s.Learnt(c) {
		return
	}
	parts := oci.Parts(mediaType, manifest)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.learnt.Add(c, struct{}{})
	s.note(c, int64(len(manifest)))
	for _, p := range parts {
		if p.Size > 0 {
			s.note(oci.Content{Registry: registry, Digest: p.Digest}, p.Size)
		}
	}
}

// Learnt reports whether it is noted what a manifest tells.
func (s *Sizes) Learnt(c oci.Content) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.learnt.Get(c)
	return ok
}

// note is called with mu held.
func (s *Sizes) note(c oci.Content, size int64) {
	if old, known := s.of.Get(c); known && old != size {
		size = unknown
	}
	s.of.Add(c, size)
}

// Get returns the size of the content in bytes, -1 if it is not known.
func (s *Sizes) Get(c oci.Content) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if size, ok := s.of.Get(c); ok {
		return size
	}
	return unknown
}
