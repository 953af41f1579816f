package cache

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
)

// smallSize is up to where a blob is kept in memory too: one write from there
// costs less than opening a file and sendfile.
const smallSize = 64 << 10

// isDigest reports whether err says that bytes were not those they should be.
func isDigest(err error) bool { return errors.Is(err, ErrDigest) }

// A memoryBlob is a small blob's content.
type memoryBlob struct {
	content   []byte
	mediaType string
	path      string
}

// Size implements Blob.
func (b *memoryBlob) Size() int64 { return int64(len(b.content)) }

// Verdict implements Blob.
func (b *memoryBlob) Verdict(context.Context) error { return nil }

// Close implements Blob.
func (b *memoryBlob) Close() error { return nil }

// Send implements Blob.
func (b *memoryBlob) Send(_ context.Context, w io.Writer, off, n int64) (int64, error) {
	p := b.content[off:]
	if n >= 0 {
		p = p[:min(n, int64(len(p)))]
	}
	k, err := w.Write(p)
	return int64(k), err
}

// small is the small blobs in memory, least recently used out first. What it
// holds the index holds too.
type small struct {
	mu    sync.Mutex
	bound int64
	bytes int64
	byKey map[key]*list.Element
	order list.List // of *smallEntry, most recently used first
}

type smallEntry struct {
	key  key
	blob *memoryBlob
}

func newSmall(bound int64) *small { return &small{bound: bound, byKey: map[key]*list.Element{}} }

// get returns a blob and counts as use.
func (s *small) get(k key) (*memoryBlob, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	el, ok := s.byKey[k]
	if !ok {
		return nil, false
	}
	s.order.MoveToFront(el)
	return el.Value.(*smallEntry).blob, true
}

// put keeps a blob, and lets others go for it.
func (s *small) put(k key, b *memoryBlob) {
	s.remove(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byKey[k] = s.order.PushFront(&smallEntry{k, b})
	s.bytes += b.Size()
	for s.bytes > s.bound {
		s.removeElement(s.order.Back())
	}
}

// remove lets a blob go.
func (s *small) remove(k key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if el, ok := s.byKey[k]; ok {
		s.removeElement(el)
	}
}

func (s *small) removeElement(el *list.Element) {
	e := s.order.Remove(el).(*smallEntry)
	delete(s.byKey, e.key)
	s.bytes -= e.blob.Size()
}

// Manifest returns the bytes and the media type of a manifest, or ErrNotFound,
// and counts as use. What the shard holds as a blob only is not found.
func (s *Store) Manifest(d digest.Digest) (content []byte, mediaType string, err error) {
	b, err := s.Open(d)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = b.Close() }() // only read
	m, ok := b.(*memoryBlob)
	if !ok {
		if m, err = b.(*fileBlob).content(); err != nil {
			return nil, "", errors.Join(ErrNotFound, err)
		}
	}
	if m.mediaType == "" {
		return nil, "", ErrNotFound
	}
	return m.content, m.mediaType, nil
}

// Put keeps a manifest, or a small blob where mediaType is "". It reports
// whether it was stored; only content that does not match d is an error.
func (s *Store) Put(ctx context.Context, d digest.Digest, registry, mediaType string, content []byte) (stored bool, err error) {
	in, err := s.Ingest(ctx, d, registry, mediaType)
	if err != nil {
		return false, err
	}
	in.SetSize(int64(len(content)))
	if _, err := in.Write(content); err != nil {
		return false, in.fail(fmt.Errorf("keeping a manifest: %w", err))
	}
	if err := in.Commit(); err != nil {
		return false, err
	}
	return in.Stored(), nil
}
