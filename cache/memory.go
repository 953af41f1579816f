package cache

import (
	"container/list"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
)

// smallSize is up to where a blob is kept in memory too: one write from there
// costs less than opening a file and sendfile.
const smallSize = 64 << 10

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
	end := min(endOf(off, n), b.Size())
	if off >= end {
		return 0, nil
	}
	k, err := w.Write(b.content[off:end])
	return int64(k), err
}

// small is the small blobs in memory, least recently used out first. What it
// holds the index holds too.
type small struct {
	mu     sync.Mutex
	bound  int64
	bytes  int64
	byName map[name]*list.Element
	order  list.List // of *smallEntry, most recently used first
}

type smallEntry struct {
	name name
	blob *memoryBlob
}

// overhead is what an entry costs beside its content, roughly, so that a great
// many tiny blobs keep within the bound too.
const overhead = 512

// cost is what the entry counts.
func (e *smallEntry) cost() int64 { return e.blob.Size() + overhead }

func newSmall(bound int64) *small { return &small{bound: bound, byName: map[name]*list.Element{}} }

// get returns a blob and counts as use.
func (s *small) get(n name) (*memoryBlob, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	el, ok := s.byName[n]
	if !ok {
		return nil, false
	}
	s.order.MoveToFront(el)
	return el.Value.(*smallEntry).blob, true
}

// put keeps a blob, and lets others go for it. One that is known to be a
// manifest stays one.
func (s *small) put(n name, b *memoryBlob) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if el, ok := s.byName[n]; ok {
		if b.mediaType == "" {
			return
		}
		s.removeElement(el)
	}
	e := &smallEntry{n, b}
	s.byName[n] = s.order.PushFront(e)
	s.bytes += e.cost()
	for s.bytes > s.bound {
		s.removeElement(s.order.Back())
	}
}

// remove lets a blob go.
func (s *small) remove(n name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if el, ok := s.byName[n]; ok {
		s.removeElement(el)
	}
}

// clear lets all go.
func (s *small) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.order.Len() > 0 {
		s.removeElement(s.order.Back())
	}
}

func (s *small) removeElement(el *list.Element) {
	e := s.order.Remove(el).(*smallEntry)
	delete(s.byName, e.name)
	s.bytes -= e.cost()
}

// Manifest returns the bytes, which are not to be changed, and the media type
// of a manifest, or ErrNotFound, and counts as use. What the shard holds as a
// blob only is not found.
func (s *Store) Manifest(d digest.Digest) (content []byte, mediaType string, err error) {
	b, err := s.Open(d)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = b.Close() }() // only read
	m, ok := b.(*memoryBlob)
	if !ok {
		if m, err = b.(*fileBlob).manifest(); err != nil {
			return nil, "", err
		}
	}
	if m.mediaType == "" {
		return nil, "", ErrNotFound
	}
	return m.content, m.mediaType, nil
}

// Put keeps a manifest, or a small blob where mediaType is "". It reports
// whether the shard has it now; only content that is not d's is an error.
func (s *Store) Put(ctx context.Context, d digest.Digest, registry, mediaType string, content []byte) (stored bool, err error) {
	in, err := s.Ingest(ctx, d, registry, mediaType)
	if err != nil {
		return false, err
	}
	if got := d.Algorithm().FromBytes(content); got != d {
		return false, in.fail(fmt.Errorf("keeping a manifest: %w: want %s, got %s", ErrDigest, d, got))
	}
	if _, known, err := s.Manifest(d); err == nil && known == mediaType {
		in.Abort(nil)
		return true, nil
	}
	in.followed = true // nobody will
	in.SetSize(int64(len(content)))
	if !in.Keeping() {
		in.Abort(errNoRoom)
		return false, nil
	}
	if _, err := in.Write(content); err != nil {
		in.Abort(err)
		return false, nil // the disk failed, and memory is for those who read along
	}
	if err := in.Commit(); err != nil {
		return false, err
	}
	return in.Stored(), nil
}
