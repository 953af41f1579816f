package cache

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"os"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// An Ingest is a blob on its way in: one writer, any number of followers, who
// read what has arrived while the rest is still coming.
//
// With room and a disk the bytes go to a file in tmp, and every follower reads
// that file. Without (the blob is larger than the bound, all is being read, the
// disk is full or broken) they pass through a window in memory: see window.go.
// It may change from the one to the other at any byte, never back.
type Ingest struct {
	store     *Store
	ctx       context.Context
	name      name
	digest    digest.Digest
	registry  string
	mediaType string
	hash      hash.Hash
	sums      summer
	small     []byte // the content, while it is small

	mu        sync.Mutex
	grown     signal // bytes came, the size is known, or it has ended
	moved     signal // a follower read on, came or left
	begun     bool
	size      int64 // -1: not known
	written   int64
	disk      *disk
	file      *os.File
	tmp       string
	onDisk    int64 // how many of the bytes written are in file
	reserved  int64
	passing   bool // no bytes go to the file any more
	window    window
	followers map[*follower]struct{}
	state     state
	err       error // with failed: why
	slot      int32 // with stored: where in the index
	stored    bool
}

// A state says whether an ingest's bytes are known to be right.
type state int

const (
	arriving state = iota
	right
	failed
)

// growth is the step in which room is reserved for a blob of unknown size.
const growth = 4 << 20

// Ingest begins the way in of the blob that d names, which must be valid, from
// a registry; mediaType is that of a manifest, "" for a blob. It does not fail:
// without disk or room the blob passes through memory. ctx ends waiting for
// readers. End it by Commit or Abort.
func (s *Store) Ingest(ctx context.Context, d digest.Digest, registry, mediaType string) (*Ingest, error) {
	n, err := nameOf(d)
	if err != nil {
		return nil, err
	}
	return &Ingest{
		store: s, ctx: ctx, name: n, digest: d, registry: registry, mediaType: mediaType,
		hash: d.Algorithm().Hash(), size: -1, slot: none, followers: map[*follower]struct{}{},
	}, nil
}

// SetSize tells the blob's size in bytes before the first Write, -1 if it is
// not known, and makes room for it. Followers wait for it.
func (in *Ingest) SetSize(n int64) {
	in.openFile(max(n, 0))
	in.mu.Lock()
	defer in.mu.Unlock()
	in.size, in.begun = n, true
	in.grown.fire()
}

// openFile reserves n bytes and creates the file, or else makes the ingest
// pass through memory.
func (in *Ingest) openFile(n int64) {
	d := in.store.disk.Load()
	if d == nil {
		in.pass(nil)
		return
	}
	if err := in.store.makeRoom(d, in.registry, n); err != nil {
		in.pass(nil) // a store that is too small or too busy is healthy
		return
	}
	f, tmp, err := d.temp()
	in.mu.Lock()
	in.disk, in.reserved = d, n
	if err == nil {
		in.file, in.tmp = f, tmp
	}
	in.mu.Unlock()
	if err == nil && n > 0 {
		err = d.allocate(f, n)
	}
	if err != nil {
		in.pass(err)
	}
}

// pass goes on without the disk. err, if there is one, is what the disk said.
func (in *Ingest) pass(err error) {
	if err != nil {
		in.store.noteHealth(err)
		in.store.log.Warn("blob goes on without the cache", "digest", in.digest.String(), "error", err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.passing = true
	in.window.base = in.onDisk
	if in.reserved > in.onDisk {
		in.store.index.release(in.registry, in.reserved-in.onDisk)
		in.reserved = in.onDisk
	}
}

// Offset returns how many bytes have come: where the next source continues.
func (in *Ingest) Offset() int64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.written
}

// Size returns the size told, -1 if none was.
func (in *Ingest) Size() int64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.size
}

// Begun reports whether SetSize was called.
func (in *Ingest) Begun() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.begun
}

// Write takes the next bytes. It fails if they are more than were announced,
// or with ErrAbandoned if nothing keeps them and nobody has read for a while;
// never because of the disk.
func (in *Ingest) Write(p []byte) (int, error) {
	if size := in.Size(); size >= 0 && in.written+int64(len(p)) > size {
		return 0, fmt.Errorf("more than the %d bytes announced: %w", size, ErrDigest)
	}
	_, _ = in.hash.Write(p) // a hash never fails
	in.sums.write(p)
	if in.written+int64(len(p)) <= smallSize {
		in.small = append(in.small, p...)
	} else {
		in.small = nil
	}
	if !in.passing { // only the writer changes it
		in.toFile(p)
	}
	if in.passing {
		if err := in.toWindow(p); err != nil {
			return 0, err
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.written += int64(len(p))
	if !in.passing {
		in.onDisk = in.written
	}
	in.grown.reach(in.written)
	return len(p), nil
}

// toFile writes p to the file, or else switches to passing.
func (in *Ingest) toFile(p []byte) {
	if missing := in.written + int64(len(p)) - in.reserved; missing > 0 {
		n := max(missing, growth)
		if err := in.store.makeRoom(in.disk, in.registry, n); err != nil {
			in.pass(nil)
			return
		}
		in.mu.Lock()
		in.reserved += n
		in.mu.Unlock()
	}
	if err := in.disk.write(in.file, p); err != nil {
		in.pass(err)
	}
}

// Commit ends the ingest: if the bytes are those that the digest names, its
// followers get the rest, and if they are all on disk the blob enters the
// shard. It returns ErrDigest, or io.ErrUnexpectedEOF if bytes are missing, and
// then its followers get the same.
func (in *Ingest) Commit() error {
	in.sums.flush()
	if size := in.Size(); size >= 0 && in.written != size {
		return in.fail(io.ErrUnexpectedEOF)
	}
	if got := digest.NewDigest(in.digest.Algorithm(), in.hash); got != in.digest {
		return in.fail(fmt.Errorf("%w: want %s, got %s", ErrDigest, in.digest, got))
	}
	if !in.passing && in.file != nil {
		in.enter()
	}
	in.end(right, nil)
	return nil
}

// Abort ends the ingest because of err, which its followers get.
func (in *Ingest) Abort(err error) { _ = in.fail(err) }

// fail ends the ingest because of err and returns it.
func (in *Ingest) fail(err error) error {
	in.end(failed, err)
	return err
}

// Keeping reports whether the blob entered the shard or, as far as can be seen
// by now, will.
func (in *Ingest) Keeping() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.stored || in.state == arriving && in.file != nil && !in.passing
}

// Stored reports whether the blob entered the shard.
func (in *Ingest) Stored() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.stored
}

// enter moves the file and its meta into the shard.
func (in *Ingest) enter() {
	s := in.store
	m := &meta{Version: metaVersion, Size: in.written, Chunk: chunkSize, Registry: in.registry, MediaType: in.mediaType, sums: in.sums.sums}
	raw, err := m.encode()
	if err == nil {
		err = in.place(raw)
	}
	s.noteHealth(err)
	if err != nil {
		s.log.Warn("blob not kept", "digest", in.digest.String(), "error", err)
		return
	}
	if in.small != nil {
		s.small.put(in.name.key, &memoryBlob{content: in.small, mediaType: in.mediaType, path: in.name.path()})
	}
}

// place gives the file its name and the index its entry. A blob that the shard
// has already keeps its file; only what is said of it is written anew.
func (in *Ingest) place(meta []byte) error {
	s, path := in.store, in.name.path()
	s.index.await(in.name.key)
	s.committing.Lock()
	defer s.committing.Unlock()
	if e, held := s.index.look(in.name.key); held && e.size == in.written {
		if in.mediaType == "" {
			return nil
		}
		return in.disk.writeFile(path+".meta", meta)
	}
	// The meta goes first, so that a blob is never there without it.
	if err := in.disk.writeFile(path+".meta", meta); err != nil {
		return fmt.Errorf("writing a blob's meta: %w", err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.disk.rename(in.tmp, path); err != nil {
		return fmt.Errorf("moving a blob into the shard: %w", err)
	}
	in.tmp = ""
	if in.reserved > in.written {
		s.index.release(in.registry, in.reserved-in.written)
		in.reserved = in.written
	}
	slot, ok := s.index.insert(in.name, in.registry, in.written, identity{}, len(in.followers), true)
	if ok {
		in.slot, in.stored, in.reserved = slot, true, 0
	}
	return nil
}

// end sets the verdict and wakes who waits for it.
func (in *Ingest) end(st state, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.state, in.err, in.begun = st, err, true
	in.grown.fire()
	in.dispose()
}

// dispose gives back file and room once the ingest has ended and nobody
// follows it any more. The caller holds mu.
func (in *Ingest) dispose() {
	if in.state == arriving {
		return
	}
	if in.tmp != "" {
		if err := in.disk.remove(in.tmp); err != nil {
			in.store.log.Debug("leftover stays until the next start", "error", err)
		}
		in.tmp = ""
	}
	if len(in.followers) > 0 {
		return
	}
	if in.file != nil {
		_ = in.file.Close() // what counts was verified before
		in.file = nil
	}
	if in.reserved > 0 {
		in.store.index.release(in.registry, in.reserved)
		in.reserved = 0
	}
	in.window = window{}
}

// Follow returns the blob as it arrives. It waits until the size has been told
// (and, for a blob no longer than HoldBack, until it is known to be right), so
// that a failure before the first byte is an error here. Close the blob.
func (in *Ingest) Follow(ctx context.Context) (Blob, error) {
	f := &follower{in: in, patience: patience}
	in.mu.Lock()
	if in.state != arriving && in.file == nil {
		in.mu.Unlock()
		return nil, errors.Join(ErrNotFound, in.err) // ended and disposed of
	}
	in.followers[f] = struct{}{}
	if in.stored {
		in.store.index.acquire(in.name.key)
	}
	in.moved.fire()
	in.mu.Unlock()
	if err := in.wait(ctx, func() bool { return in.state != arriving || in.begun && (in.size < 0 || in.size > HoldBack) }); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// wait waits until ok, which is called with mu held, or until the ingest has
// failed or ctx ends.
func (in *Ingest) wait(ctx context.Context, ok func() bool) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.state != failed && !ok() {
		c := in.grown.wait(math.MaxInt64)
		in.mu.Unlock()
		err := pause(ctx, c, 0)
		in.mu.Lock()
		if err != nil {
			return err
		}
	}
	return in.err
}

// A signal wakes all who wait for it. It is used under a mutex.
type signal struct {
	c    chan struct{}
	mark int64
}

// wait returns what is closed at the next fire, or at a reach of mark or more.
func (s *signal) wait(mark int64) <-chan struct{} {
	if s.c == nil {
		s.c, s.mark = make(chan struct{}), math.MaxInt64
	}
	s.mark = min(s.mark, mark)
	return s.c
}

// fire wakes all.
func (s *signal) fire() {
	if s.c != nil {
		close(s.c)
		s.c = nil
	}
}

// reach wakes all if somebody waits for n or less.
func (s *signal) reach(n int64) {
	if s.c != nil && n >= s.mark {
		s.fire()
	}
}

// pause waits for c, for ctx's end, or (if d is not 0) for at most d.
func pause(ctx context.Context, c <-chan struct{}, d time.Duration) error {
	var timeout <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		timeout = t.C
	}
	select {
	case <-c:
	case <-timeout:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}
