package grants

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/pages"
)

// keep is what may be done with a store by anybody: all but opening what it
// holds, which takes a Pass.
type keep interface {
	// Known returns what memory knows of a blob; sure says that the disk knows no more.
	Known(d digest.Digest) (h cache.Held, ok, sure bool)
	// Stat returns the size of a blob that the store holds.
	Stat(d digest.Digest) (size int64, ok bool)
	// Ingest begins to take a blob in.
	Ingest(ctx context.Context, d digest.Digest, registry, mediaType string) (*cache.Ingest, error)
	// HasRoomBeside reports whether a blob of a registry has room beside what is this node's.
	HasRoomBeside(registry string, size int64) bool
	// Put takes a manifest in.
	Put(ctx context.Context, d digest.Digest, registry, mediaType string, content []byte) (stored bool, err error)
	// PutOf is Put that notes the manifest's repository.
	PutOf(ctx context.Context, d digest.Digest, registry, repository, mediaType string, content []byte) (stored bool, err error)
	// Origin returns the registry that brought a blob.
	Origin(d digest.Digest) (registry string, ok bool)
	// MediaType returns the media type of a manifest that the store holds.
	MediaType(d digest.Digest) string

	Tag(key string) (cache.Tag, bool)
	SetTag(t cache.Tag)
	ForgetTag(key string)

	Blobs() []cache.Held
	Newest(most int) []cache.Held
	Stats() map[string]cache.Stats
	Size() int64
	Bound() int64
	SetBounds(bound int64, shares map[string]int64)
	Free() (bytes int64, ok bool)
	Verified() (incoming, held cache.Verified)
	Health() error
	Listed(ctx context.Context) error
}

// A Shard is a store, and the ledger of who may have what it holds.
type Shard struct {
	keep
	// Pages keeps the last answers to questions about repositories. Whether one may be
	// served is for Grants to say: see Stands.
	Pages  *pages.Shelf
	store  *cache.Store
	ledger *ledger
	notes  *notes
	types  *types
	stock  *Stock
}

// OpenShard opens the store in dir, as cache.Open does, and reads the ledger that
// lies in it before anything is served. Close it.
func OpenShard(dir string, opts cache.Options) *Shard {
	s := &Shard{ledger: newLedger(), types: newTypes(), Pages: pages.New(opts.Log, opts.Bound)}
	s.notes = newNotes(s.ledger, opts.Log)
	opts.Taken = func(f cache.Folders) {
		s.notes.take(f.Notes)
		s.Pages.Take(f.Pages)
	}
	known := newOutlines()
	opts.Outline, opts.Outlined = oci.Abridge, known.learn
	s.store = cache.Open(dir, opts)
	s.keep = s.store
	s.stock = &Stock{stockroom: s.store.Stock(), store: s.store.Stock(), shard: s, outlines: known}
	s.notes.start()
	s.notes.life.Go(func() { s.stock.readAll(s.notes.life.Context()) })
	return s
}

// Close writes what the ledger has not written yet, and closes the store.
func (s *Shard) Close() error {
	s.notes.close()
	return s.store.Close()
}

// MarkPrivate notes, for as long as the cache directory lives, that the registry
// is private: its content came by a login, or may have.
// stranger says that nobody configured it.
func (s *Shard) MarkPrivate(registry string, stranger bool) { s.ledger.markPrivate(registry, stranger) }

// MarkPublic takes MarkPrivate back: the operator says that the registry is public.
func (s *Shard) MarkPublic(registry string) { s.ledger.markPublic(registry) }

// MarkedPrivate reports whether the registry was ever marked as private. It does
// no I/O.
func (s *Shard) MarkedPrivate(registry string) bool { return s.ledger.marked(registry) }

// A Pass lets its bearer open one blob or manifest of the shard. Only Grants
// gives one.
type Pass struct {
	shard  *Shard
	ref    oci.Ref
	origin string // the registry that brought it
	size   int64
	at     time.Time
}

// Size returns the size of the content in bytes.
func (p *Pass) Size() int64 { return p.size }

// At returns when a private registry vouched for the content, zero for a public one.
func (p *Pass) At() time.Time { return p.at }

// Blob opens the content as a blob. An error means that the shard does not have
// it any more, or can't read it.
func (p *Pass) Blob() (cache.Blob, error) { return p.shard.store.Open(p.ref.Digest) }

// Manifest returns what the shard knows of the content as a manifest. An error means
// that the shard does not have it as one.
func (p *Pass) Manifest() (cache.Manifest, error) {
	m, err := p.shard.store.Manifest(p.ref.Digest)
	if err != nil || p.origin == p.ref.Registry {
		return m, err
	}
	agrees, err := p.shard.types.agrees(p, m)
	if err != nil || !agrees {
		return cache.Manifest{}, errors.Join(cache.ErrNotFound, err) // the type is another registry's word
	}
	return m, nil
}

// Read returns all bytes of a manifest.
func (p *Pass) Read(m cache.Manifest) ([]byte, error) {
	if m.Content != nil || m.Size == 0 {
		return m.Content, nil
	}
	b, err := p.Blob()
	if err != nil {
		return nil, err
	}
	defer func() { _ = b.Close() }() // only read
	if b.Size() != m.Size {
		return nil, cache.ErrNotFound // another one is there by now
	}
	all := bytes.NewBuffer(make([]byte, 0, m.Size))
	if _, err := b.Send(context.Background(), all, 0, m.Size); err != nil {
		return nil, fmt.Errorf("reading a manifest: %w", err)
	}
	return all.Bytes(), nil
}
