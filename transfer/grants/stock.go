package grants

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// stockroom is what may be done with a cache.Stock: all but reading what it holds.
type stockroom interface {
	// Entries lists the blobs that the shard holds.
	Entries() []cache.Entry
	// Tags lists the tags that it knows.
	Tags() ([]cache.Tag, error)
	// Retain, Release and Retained keep content from eviction.
	Retain(r cache.Retention) error
	Release(name string) (bool, error)
	Retained() []cache.Retention
	// Remove takes a blob out of the shard.
	Remove(ctx context.Context, d digest.Digest) (size int64, removed bool)
	// Place says anew which blobs are another node's to keep.
	Place(spare func(registry string, d digest.Digest) bool)
	// Verify hashes all that the shard holds.
	Verify(ctx context.Context, each func(e cache.Entry, err error)) error
}

// A Stock is a shard as the operator sees it. It tells what is there and what belongs
// together, but gives no content.
type Stock struct {
	stockroom
	store    *cache.Stock
	shard    *Shard
	outlines *outlines
}

// Stock returns the shard's.
func (s *Shard) Stock() *Stock { return s.stock }

// An Outline is what is known of a manifest that the shard holds. Nobody changes it.
type Outline struct {
	Repository string // that it came from, "" if that is not known
	MediaType  string // as it is shown
	Lists      []oci.Listed
	Platform   string // as its config says; "" if that is not known, or not held
	looked     bool   // the config was read
}

// Outline returns what the manifest that d names lists. Each is read once, and remembered
// within bounds. The error is cache.ErrNotFound if the shard does not hold it.
func (s *Stock) Outline(d digest.Digest) (Outline, error) {
	o, known := s.outlines.get(d)
	if !known {
		doc, err := s.store.Read(d)
		if err != nil {
			return Outline{}, err
		}
		o = Outline{Repository: doc.Repository, MediaType: oci.ShownType(doc.MediaType), Lists: oci.Outline(doc.Content)}
	}
	if complete := s.platform(&o); complete || !known {
		s.outlines.put(d, o)
	}
	return o, nil
}

// atOnce is up to which size what a manifest lists is looked at when it comes, in bytes.
// Larger ones are rare, and are looked at when somebody wants to know.
const atOnce = 256 << 10

// PutOf takes a manifest of a repository in, as cache.Store.PutOf does, and remembers what
// it lists.
func (s *Shard) PutOf(ctx context.Context, d digest.Digest, registry, repository, mediaType string, content []byte) (stored bool, err error) {
	stored, err = s.store.PutOf(ctx, d, registry, repository, mediaType, content)
	if _, known := s.stock.outlines.get(d); stored && !known && mediaType != "" && len(content) <= atOnce {
		s.stock.outlines.put(d, Outline{Repository: repository, MediaType: oci.ShownType(mediaType), Lists: oci.Outline(content)})
	}
	return stored, err
}

const (
	// readWork is how long manifests are read at a start before that rests, and readRest how
	// many times as long it rests.
	readWork = 5 * time.Millisecond
	readRest = 9
)

// readAll reads the manifests that the shard holds, so that the first question about them
// is answered as fast as the next. It stops when no more can be remembered.
func (s *Stock) readAll(ctx context.Context) {
	if s.shard.Listed(ctx) != nil {
		return
	}
	began := time.Now()
	for _, e := range s.Entries() {
		if !e.Manifest {
			continue
		}
		if s.outlines.full() {
			return
		}
		_, _ = s.Outline(e.Digest) // who asks for it hears why it can't be read
		if worked := time.Since(began); worked >= readWork {
			if wait.For(ctx, readRest*worked) != nil {
				return
			}
			began = time.Now()
		}
	}
}

// platform fills in the platform of an image if it is not known yet. It reports whether
// it did: the config may come after the manifest.
func (s *Stock) platform(o *Outline) bool {
	if o.looked || len(o.Lists) == 0 || !o.Lists[0].Config {
		return false
	}
	if _, held := s.shard.Stat(o.Lists[0].Digest); !held {
		return false
	}
	if config, err := s.store.Content(o.Lists[0].Digest); err == nil {
		o.Platform, o.looked = oci.ConfigPlatform(config), true
	}
	return o.looked
}

// Forget forgets what a repository's tag means by any Accept list, whose keys these are,
// and what its registry said of it.
func (s *Stock) Forget(ref oci.Ref, keys []string) {
	for _, key := range keys {
		s.shard.ForgetTag(key)
	}
	s.shard.ledger.lose(ref, oci.ManifestResource)
}

const (
	// maxOutlines bounds the manifests that are remembered, and maxListed what they list:
	// some 130 bytes each.
	maxOutlines = 32 << 10
	maxListed   = 256 << 10
)

// outlines remember manifests.
type outlines struct {
	mu     sync.Mutex // guards the fields below; never held during I/O
	lru    *simplelru.LRU[digest.Digest, Outline]
	listed int
}

func newOutlines() *outlines {
	o := &outlines{}
	o.lru, _ = simplelru.NewLRU(maxOutlines, func(_ digest.Digest, one Outline) { o.listed -= len(one.Lists) }) // the size is right
	return o
}

// full reports whether one more would push out another.
func (o *outlines) full() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lru.Len() >= maxOutlines || o.listed >= maxListed*9/10
}

// get returns what is known of a manifest.
func (o *outlines) get(d digest.Digest) (Outline, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lru.Get(d)
}

// put remembers a manifest. The least recently asked for make room.
func (o *outlines) put(d digest.Digest, one Outline) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lru.Remove(d)
	o.lru.Add(d, one)
	for o.listed += len(one.Lists); o.listed > maxListed; {
		if _, _, ok := o.lru.RemoveOldest(); !ok {
			return
		}
	}
}
