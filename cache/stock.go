package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// A Stock is a store as its operator sees it: what it holds and knows, what is never
// evicted, and what goes although there is room. Its methods may be called from any
// goroutine; all may read the disk.
type Stock struct {
	shard *shard
	tags  *tagFiles
}

// Stock returns the store's stock.
func (s *Store) Stock() *Stock { return s.stock }

// An Entry is a blob of the shard.
type Entry struct {
	Digest   digest.Digest
	Registry string    // that brought it, "" if that can't be told
	Size     int64     // bytes
	Used     time.Time // when somebody last used it, to a minute; zero if nobody did
	Manifest bool      // it came as a manifest
	Retained bool      // it is never evicted
}

// Entries lists the blobs of the shard, in no order.
func (s *Stock) Entries() []Entry {
	held, shares := (stockroom{s.shard.index}).all()
	out := make([]Entry, len(held))
	for i, one := range held {
		registry := s.shard.opener.origin(one.name, shares[one.share])
		out[i] = Entry{Digest: one.name.digest(), Registry: registry, Size: one.size, Used: one.used(), Manifest: one.manifest, Retained: one.retained}
	}
	return out
}

// Tags lists the tags whose meaning lies on disk. Their times may be a minute too early. Each
// file is read once, until it changes. An error says what can't be read, or is ctx's.
func (s *Stock) Tags(ctx context.Context) ([]Tag, error) {
	d := s.shard.dir.inUse()
	if d == nil {
		return nil, nil
	}
	return s.tags.all(ctx, &d.root)
}

// A Label is what the shard notes beside a blob's content.
type Label struct {
	Digest     digest.Digest
	Registry   string // that brought it
	Repository string // that a manifest came from, "" if that is not known
	MediaType  string // of a manifest, "" for a blob
	Outline    []byte // as Options.Outline made it; nil if there is none
}

// errLarge: a blob is too large to be read whole.
var errLarge = errors.New("it is larger than a manifest may be")

// Label reads what is noted beside a blob. The error is ErrNotFound if the shard does not
// hold it.
func (s *Stock) Label(d digest.Digest) (Label, error) {
	n, err := nameOf(d)
	if err != nil {
		return Label{}, err
	}
	_, _, held := s.shard.index.look(n)
	disk := s.shard.dir.inUse()
	if !held || disk == nil {
		return Label{}, ErrNotFound
	}
	m, err := disk.readMeta(n)
	if err != nil {
		return Label{}, fmt.Errorf("reading what is noted of %s: %w", d, err)
	}
	return m.label(), nil
}

// Content reads a small blob, of MaxManifest bytes at most, without counting as use. All
// of it is verified. The error is ErrNotFound if the shard does not hold it.
func (s *Stock) Content(d digest.Digest) ([]byte, error) {
	n, err := nameOf(d)
	if err != nil {
		return nil, err
	}
	e, _, held := s.shard.index.look(n)
	disk := s.shard.dir.inUse()
	switch {
	case !held || disk == nil:
		return nil, ErrNotFound
	case e.size > MaxManifest:
		return nil, fmt.Errorf("reading %s: %w", d, errLarge)
	}
	content, err := disk.readSmall(n.path(), MaxManifest)
	if err == nil && d.Algorithm().FromBytes(content) != d {
		err = ErrDamaged
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", d, err)
	}
	return content, nil
}

// Remove takes a blob out of the shard, and removes its files. It reports the size of
// what went in bytes, false if the shard does not hold it. Those who read the blob read
// it to its end. If a file can't be removed the blob is not served any more, and its
// bytes count until it can.
func (s *Stock) Remove(ctx context.Context, d digest.Digest) (size int64, removed bool) {
	n, err := nameOf(d)
	disk := s.shard.dir.inUse()
	if err != nil || disk == nil {
		return 0, false
	}
	end, err := s.shard.commits.take(ctx, n.key)
	if err != nil {
		return 0, false
	}
	defer end()
	i, e, p, ok := s.shard.index.acquire(n)
	if !ok {
		return 0, false
	}
	defer s.shard.remover.leave(i, n.path())
	if !s.shard.index.expel(i) {
		return 0, false
	}
	if (stockroom{s.shard.index}).read(i) {
		if m, err := disk.readMeta(n); err == nil && m.Size == e.size {
			p.told.Store(m) // for those who go on reading
		}
	}
	s.shard.remover.noteFailure(s.shard.remover.removeFiles(&disk.root, []int32{i}))
	return e.size, true
}

// Retain keeps content from eviction, in place of what was retained by that name before.
// It is written down, and counts after a restart too. Content that is not held yet counts
// once it is. The error says that it is too much (ErrTooMuch) or could not be written.
func (s *Stock) Retain(r Retention) error { return s.shard.retainer.put(r) }

// Release undoes Retain. It reports whether anything was retained by that name. An error
// says that it could not be written down.
func (s *Stock) Release(name string) (bool, error) { return s.shard.retainer.drop(name) }

// Retained lists what is retained, by name.
func (s *Stock) Retained() []Retention { return s.shard.retainer.list() }
