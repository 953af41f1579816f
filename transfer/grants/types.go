package grants

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"
)

// maxTypes bounds the manifests whose type was looked at.
const maxTypes = 4096

// types remember whether large manifests bear out the media type that they are kept
// with. Each is read once: others may ask for it often.
type types struct {
	mu  sync.Mutex // guards lru; never held during I/O
	lru *simplelru.LRU[typed, bool]
}

// typed is a manifest and a media type.
type typed struct {
	digest    digest.Digest
	mediaType string
}

// newTypes returns types that know none.
func newTypes() *types {
	lru, _ := simplelru.NewLRU[typed, bool](maxTypes, nil) // the size is right
	return &types{lru: lru}
}

// agrees reports whether the manifest that the pass opens bears out its media type.
func (t *types) agrees(p *Pass, m cache.Manifest) (bool, error) {
	key := typed{p.ref.Digest, m.MediaType}
	if agrees, known := t.get(key); known {
		return agrees, nil
	}
	content, err := p.Read(m)
	if err != nil {
		return false, err
	}
	agrees := oci.TypeAgrees(m.MediaType, content)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lru.Add(key, agrees)
	return agrees, nil
}

// get returns what is known.
func (t *types) get(key typed) (agrees, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lru.Get(key)
}
