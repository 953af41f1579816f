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
	Tags(ctx context.Context) ([]cache.Tag, error)
	// Retain, Release and Retained keep content from eviction.
	Retain(r cache.Retention) error
	Release(name string) (bool, error)
	Retained() []cache.Retention
	// Remove takes a blob out of the shard.
	Remove(ctx context.Context, d digest.Digest) (size int64, removed bool)
	// Place says anew which blobs are another node's to keep.
	Place(spare func(registry string, d digest.Digest) bool)
	// Watch calls hear for each blob that has entered the shard or left it.
	Watch(hear func(d digest.Digest))
	// Each calls see for each blob that the shard holds.
	Each(see func(registry string, d digest.Digest))
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
	looked     bool   // the config was looked at
}

// outlineOf returns the outline of a manifest, whole or abridged, and what is noted of it.
func outlineOf(l cache.Label, manifest []byte) Outline {
	return Outline{Repository: l.Repository, MediaType: oci.ShownType(l.MediaType), Lists: oci.Outline(manifest)}
}

// Outline returns what the manifest that d names lists. It is remembered within bounds, and
// else lies beside the manifest. One that has none there, because it is large or was kept by
// an earlier version, is read. The error is cache.ErrNotFound if the shard does not hold it.
func (s *Stock) Outline(d digest.Digest) (Outline, error) {
	o, known := s.outlines.get(d)
	if !known {
		l, err := s.store.Label(d)
		if err != nil {
			return Outline{}, err
		}
		manifest := l.Outline
		if manifest == nil {
			if manifest, err = s.store.Content(d); err != nil {
				return Outline{}, err
			}
		}
		o = outlineOf(l, manifest)
	}
	if complete := s.platform(&o); complete || !known {
		s.outlines.put(d, o)
	}
	return o, nil
}

const (
	// readWork is how long manifests are read at a start before that rests, and readRest how
	// many times as long it rests.
	readWork = 5 * time.Millisecond
	readRest = 9
)

// readAll reads the tags while the blobs are being listed, then the manifests of the shard
// that lie there without an outline, so that the first question about them is answered as
// fast as the next. It stops when no more can be remembered.
func (s *Stock) readAll(ctx context.Context) {
	_, _ = s.Tags(ctx) // who asks for them hears why they can't be read
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
	if o.Platform, o.looked = s.outlines.platform(o.Lists[0].Digest); o.looked {
		return true
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
	// maxOutlines bounds the manifests that are remembered, and as many configs; maxListed
	// bounds what the manifests list: some 130 bytes each.
	maxOutlines = 32 << 10
	maxListed   = 256 << 10
)

// outlines remember manifests, and the platforms that configs name.
type outlines struct {
	mu        sync.Mutex // guards the fields below; never held during I/O
	lru       *simplelru.LRU[digest.Digest, Outline]
	listed    int
	platforms *simplelru.LRU[digest.Digest, string]
}

func newOutlines() *outlines {
	o := &outlines{}
	o.lru, _ = simplelru.NewLRU(maxOutlines, func(_ digest.Digest, one Outline) { o.listed -= len(one.Lists) }) // the size is right
	o.platforms, _ = simplelru.NewLRU[digest.Digest, string](maxOutlines, nil)
	return o
}

// learn remembers what is noted of a manifest, or of a blob that may be a config.
func (o *outlines) learn(l cache.Label) {
	if l.MediaType != "" {
		o.put(l.Digest, outlineOf(l, l.Outline))
		return
	}
	platform := oci.ConfigPlatform(l.Outline)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.platforms.Add(l.Digest, platform)
}

// platform returns the platform that a config names, "" if it names none, and reports
// whether it is known.
func (o *outlines) platform(config digest.Digest) (string, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.platforms.Get(config)
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
