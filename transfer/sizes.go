package transfer

import (
	"oci-proxy/transfer/oci"
	"sync"

	"github.com/opencontainers/go-digest"
)

// maxSizes bounds the sizes that are remembered.
const maxSizes = 1 << 15

// sizes are those of blobs as manifests tell them. They keep a peer from telling
// a client another one, and from sending without end. A manifest is anybody's
// word, so that for it no registry is doubted, and no peer blamed.
type sizes struct {
	mu sync.Mutex
	of map[content]int64 // -1: manifests disagree
}

// doubtful is the size of what manifests disagree about.
const doubtful = -1

// learn notes the sizes that a manifest of the registry tells, once.
func (s *sizes) learn(registry string, d digest.Digest, mediaType string, manifest []byte) {
	if s.get(registry, d) >= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(content{registry, d}, int64(len(manifest)))
	for _, p := range oci.Parts(mediaType, manifest) {
		if p.Size > 0 {
			s.note(content{registry, p.Digest}, p.Size)
		}
	}
}

// note is called with mu held.
func (s *sizes) note(c content, size int64) {
	if s.of == nil || len(s.of) >= maxSizes {
		s.of = map[content]int64{} // what is forgotten is believed
	}
	if old, known := s.of[c]; known && old != size {
		size = doubtful
	}
	s.of[c] = size
}

// get is the size of the blob, -1 if it is not known.
func (s *sizes) get(registry string, d digest.Digest) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if size, ok := s.of[content{registry, d}]; ok {
		return size
	}
	return -1
}
