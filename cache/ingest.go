package cache

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"os"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
)

// An Ingest is a blob on its way in: one writer, any number of followers, who
// read what has arrived while the rest is still coming.
//
// With room and a disk the bytes go to a file in tmp, and every follower reads
// that file. Without (the blob is larger than the bound, all is being read, the
// disk is full or broken) they pass through a window in memory: see window.go.
// It may change from the one to the other at any byte, never back.
//
// SetSize, Write, Commit and Abort are the writer's: one at a time.
type Ingest struct {
	store     *Store
	ctx       context.Context
	name      name
	digest    digest.Digest
	registry  string
	mediaType string
	replica   bool
	doubted   bool // nobody takes its size on trust
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
	partSize  int64  // of the blob, as a part that was taken up has it; 0: there was none
	noted     string // the note of how far it is, beside the file; "": there is none
	noteAt    int64  // when the next is due
	parted    bool   // it has ended and left a part
	passing   bool   // no bytes go to the file any more
	window    window
	followers map[*follower]struct{}
	followed  bool // there was a follower
	state     state
	err       error // with failed: why
	slot      int32 // where in the index it is, and pinned, while it is followed
	stored    bool
	disposed  bool // it can't be followed any more
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

// Replica says, before the first byte, that the blob is another node's to keep.
// It is kept where there is room, and the first to go, until it is read here
// again.
func (in *Ingest) Replica() { in.replica = true }

// Doubt says, before the first byte, that the size which will be told may be
// made up: room is made as the bytes come, so that others' blobs go for what is
// there, not for what is announced.
func (in *Ingest) Doubt() { in.doubted = true }

// SetSize tells the blob's size in bytes before the first Write, -1 if it is
// not known, and makes room for it. Followers wait for it. Only the first call
// counts.
func (in *Ingest) SetSize(n int64) {
	if in.Begun() {
		return
	}
	if n = max(n, -1); !in.Agrees(n) {
		in.Forget()
	}
	if n < 0 && in.partSize > 0 {
		n = in.partSize
	}
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
	if in.file != nil {
		d = in.disk
	}
	if in.doubted {
		if !in.store.index.holds(in.registry, n) {
			in.pass(nil)
			return
		}
		n = min(n, in.reserved+growth)
	}
	if err := in.store.makeRoom(d, in.registry, n-in.reserved); err != nil {
		in.pass(nil) // a store that is too small or too busy is healthy
		return
	}
	in.mu.Lock()
	in.disk, in.reserved = d, n
	in.mu.Unlock()
	in.noteAt = in.written + partStep
	err := in.create(n)
	if full(err) && in.store.squeeze(d, in.registry, n-in.written) {
		err = in.create(n)
	}
	if err != nil {
		in.pass(err)
	}
}

// create creates the file, if it is not there, and sets n bytes aside for it.
func (in *Ingest) create(n int64) error {
	if in.file == nil {
		f, tmp, err := in.disk.temp()
		if err != nil {
			return err
		}
		in.mu.Lock()
		in.file, in.tmp = f, tmp
		in.mu.Unlock()
	}
	if n == 0 {
		return nil
	}
	return in.disk.allocate(in.file, n)
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
	if in.reserved <= in.onDisk {
		return
	}
	if in.file != nil && in.disk.truncate(in.file, in.onDisk) != nil {
		return // it may hold what was set aside: that goes on counting
	}
	in.store.index.release(in.registry, in.reserved-in.onDisk)
	in.reserved = in.onDisk
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

// Sendable returns how many of the blob's first bytes its readers can get by
// now, all but what is held back.
func (in *Ingest) Sendable() int64 {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.state == right {
		return in.written
	}
	if !in.begun {
		return 0
	}
	return max(in.written-HoldBack, 0)
}

// Begun reports whether SetSize was called.
func (in *Ingest) Begun() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.begun
}

// Write takes the next bytes. It fails with ErrDigest if they are more than
// were announced, with ErrAbandoned if nothing keeps them and nobody has read
// for a while, and at the ingest's context's end; never because of the disk.
func (in *Ingest) Write(p []byte) (int, error) {
	if !in.Begun() {
		in.SetSize(-1)
	}
	if size := in.Size(); size >= 0 && int64(len(p)) > size-in.written {
		return 0, fmt.Errorf("more than the %d bytes announced: %w", size, ErrDigest)
	}
	n := 0
	for q := range slices.Chunk(p, batch) { // followers of a window see one while the next waits for place
		if err := in.take(q); err != nil {
			return n, err
		}
		n += len(q)
	}
	return n, nil
}

// take takes the next bytes, all or none.
func (in *Ingest) take(p []byte) error {
	if !in.passing { // only the writer changes it
		in.toFile(p)
	}
	if in.passing {
		if err := in.toWindow(p); err != nil {
			return err
		}
	}
	_, _ = in.hash.Write(p) // a hash never fails
	in.sums.write(p)
	if in.written+int64(len(p)) <= smallSize {
		in.small = append(in.small, p...)
	} else {
		in.small = nil
	}
	in.came(len(p))
	if in.written >= in.noteAt && in.resumable() {
		if err := in.note(); err != nil {
			in.store.log.Debug("not noted how far a blob is", "digest", in.digest.String(), "error", err)
		}
	}
	return nil
}

// came tells the followers of n bytes more.
func (in *Ingest) came(n int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.written += int64(n)
	if !in.passing {
		in.onDisk = in.written
	}
	in.grown.reach(in.written)
}

// toFile writes p to the file, or else switches to passing.
func (in *Ingest) toFile(p []byte) {
	if missing := in.written + int64(len(p)) - in.reserved; missing > 0 && !in.grow(missing) {
		in.pass(nil)
		return
	}
	if in.store.disk.Load() != in.disk { // the file is another's by now
		in.pass(nil)
		return
	}
	err := in.disk.write(in.file, p, in.written)
	if full(err) && in.store.squeeze(in.disk, in.registry, int64(len(p))) {
		err = in.disk.write(in.file, p, in.written)
	}
	if err != nil {
		in.pass(err)
	}
}

// grow reserves more, at least n bytes, for a blob of unknown size.
func (in *Ingest) grow(n int64) bool {
	step := max(n, growth)
	err := in.store.makeRoom(in.disk, in.registry, step)
	if err != nil && step > n {
		step = n
		err = in.store.makeRoom(in.disk, in.registry, step)
	}
	if err != nil {
		return false
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.reserved += step
	return true
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

// Follow returns the blob as it arrives. It waits until the size has been told
// and bytes can be sent (those of a blob no longer than HoldBack only once it is
// known to be right), so that a failure before the first byte is an error here. A blob that has come in
// meanwhile is opened in the shard; ErrNotFound says that it came and was not
// kept. Close the blob.
func (in *Ingest) Follow(ctx context.Context) (Blob, error) {
	f := &follower{in: in, patience: patience}
	if !in.join(f) {
		if in.err != nil {
			return nil, in.err
		}
		return in.store.Open(in.digest)
	}
	sendable := func() bool {
		return in.state != arriving || in.begun && (in.size > HoldBack || in.size < 0 && in.written > HoldBack)
	}
	if err := in.wait(ctx, HoldBack+1, sendable); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// join adds a follower. It reports false if the ingest is over and done with.
func (in *Ingest) join(f *follower) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.disposed {
		return false
	}
	in.followers[f] = struct{}{}
	in.followed = true
	in.moved.fire()
	return true
}

// wait waits until ok or until the ingest has failed or ctx ends. ok is called
// with mu held whenever the ingest has changed or mark bytes have come.
func (in *Ingest) wait(ctx context.Context, mark int64, ok func() bool) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.state != failed && !ok() {
		c := in.grown.wait(mark)
		in.mu.Unlock()
		err := pause(ctx, c, 0)
		in.mu.Lock()
		if err != nil {
			return err
		}
	}
	return in.err
}
