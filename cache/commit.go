package cache

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/opencontainers/go-digest"
)

// Commit ends the ingest: if the bytes are those that the digest names, its
// followers get the rest, and if they are all on disk the blob enters the
// shard. A blob that did not, and that nobody has followed yet, waits a few
// seconds for its first follower. Commit returns ErrDigest, or
// io.ErrUnexpectedEOF if bytes are missing, and then its followers get the
// same. After Commit, Abort does nothing.
func (in *Ingest) Commit() error {
	if size := in.Size(); size >= 0 && in.written != size {
		return in.fail(io.ErrUnexpectedEOF)
	}
	if got := digest.NewDigest(in.digest.Algorithm(), in.hash); got != in.digest {
		return in.fail(fmt.Errorf("%w: want %s, got %s", ErrDigest, in.digest, got))
	}
	if in.file != nil && !in.passing && in.state == arriving { // only the writer changes them
		in.sums.flush()
		in.enter()
	}
	in.end(right, nil)
	return nil
}

// Wrong reports whether all that was announced has come and is not what the
// digest names, so that Commit will fail with ErrDigest.
func (in *Ingest) Wrong() bool {
	size := in.Size()
	return (size < 0 || in.written == size) && digest.NewDigest(in.digest.Algorithm(), in.hash) != in.digest
}

// Abort ends the ingest because of err, which its followers get; nil stands
// for ErrAbandoned.
func (in *Ingest) Abort(err error) { _ = in.fail(cmp.Or(err, ErrAbandoned)) }

// fail ends the ingest because of err and returns it.
func (in *Ingest) fail(err error) error {
	if !errors.Is(err, ErrDigest) {
		in.leavePart()
	}
	in.end(failed, err)
	return err
}

// enter moves the file and its meta into the shard. If that fails the blob is
// not kept, and nobody but the log and Health needs to know.
func (in *Ingest) enter() {
	s := in.store
	err := in.place()
	if full(err) && s.squeeze(in.disk, in.registry, 0) {
		err = in.place()
	}
	if s.disk.Load() == in.disk {
		s.noteHealth(err)
	}
	if err != nil {
		s.log.Warn("blob not kept", "digest", in.digest.String(), "error", err)
		return
	}
	s.supersede(in.name)
	if in.replica {
		s.noteUse(in.name.path(), unread)
	}
	if in.small != nil || in.written == 0 {
		s.small.put(in.name, &memoryBlob{content: in.small, mediaType: in.mediaType, path: in.name.path()})
	}
}

// unread is when a replica that nobody has read since it came was last used:
// after a restart too it is the first to go.
var unread = time.Unix(0, 0)

// place gives the file its name and the index its entry. A blob that the shard
// has already keeps its file; only what is said of it is written anew.
func (in *Ingest) place() error {
	s, path := in.store, in.name.path()
	s.committing.Lock()
	defer s.committing.Unlock()
	s.index.await(in.name.key) // who removes a file of this name does not commit
	if e, held := s.index.look(in.name); held && e.size == in.written {
		return in.rename()
	}
	raw, err := in.meta(in.registry).encode()
	if err != nil {
		return err
	}
	// The meta goes first, so that a blob is never there without it.
	if err := in.disk.writeFile(path+".meta", raw); err != nil {
		return fmt.Errorf("writing a blob's meta: %w", err)
	}
	in.mu.Lock() // followers open the file by its name
	defer in.mu.Unlock()
	if err := in.disk.rename(in.tmp, path); err != nil {
		return fmt.Errorf("moving a blob into the shard: %w", err)
	}
	in.dropNote()
	used := time.Now()
	if in.replica {
		used = unread
	}
	slot, ok := s.index.insert(in.name, in.registry, in.written, used, in.replica)
	if !ok { // another blob has the key: this one would not be counted
		in.tmp = path
		return errNoRoom
	}
	in.reserved -= in.written
	in.tmp, in.slot, in.stored = "", slot, true
	return nil
}

// rename gives a blob that the shard has already the media type it came with:
// what came as a blob first may turn out to be a manifest.
func (in *Ingest) rename() error {
	in.mu.Lock()
	in.stored = true
	in.mu.Unlock()
	if in.mediaType == "" {
		return nil
	}
	registry := in.registry
	if m, err := readMeta(in.disk, in.name); err == nil {
		if m.MediaType == in.mediaType {
			return nil
		}
		registry = m.Registry // in whose share it is
	}
	raw, err := in.meta(registry).encode()
	if err != nil {
		return err
	}
	if err := in.disk.writeFile(in.name.path()+".meta", raw); err != nil {
		return fmt.Errorf("writing a blob's meta: %w", err)
	}
	return nil
}

// meta is what goes beside the blob.
func (in *Ingest) meta(registry string) *meta {
	return &meta{
		Version: metaVersion, Digest: in.digest, Size: in.written, Chunk: chunkSize,
		Registry: registry, MediaType: in.mediaType, sums: in.sums.sums,
	}
}

// end sets the verdict, once, and wakes who waits for it.
func (in *Ingest) end(st state, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.state != arriving {
		return
	}
	in.state, in.err, in.begun = st, err, true
	if st == right {
		in.size = in.written
	}
	in.grown.fire()
	if st == right && !in.stored {
		in.awaitFirst()
	}
	in.dispose()
}

// awaitFirst waits for the first follower: whoever asked for the blob may be
// slower than the blob. The caller holds mu.
func (in *Ingest) awaitFirst() {
	for deadline := time.Now().Add(abandon); !in.followed; {
		c := in.moved.wait(math.MaxInt64)
		in.mu.Unlock()
		left := time.Until(deadline)
		if left <= 0 || pause(in.ctx, c, left) != nil {
			in.mu.Lock()
			return
		}
		in.mu.Lock()
	}
}

// dropNote removes the note of how far the ingest is. One that stays goes at
// the next start, its file being gone. The caller holds mu.
func (in *Ingest) dropNote() {
	if in.noted == "" {
		return
	}
	if err := in.disk.remove(in.noted); err != nil {
		in.store.log.Debug("note left behind until the next start", "error", err)
	}
	in.noted = ""
}

// dispose gives back file and room once the ingest has ended and nobody
// follows it any more. The caller holds mu.
func (in *Ingest) dispose() {
	if in.state == arriving {
		return
	}
	if in.tmp != "" && !in.parted {
		in.dropNote()
		if err := in.disk.remove(in.tmp); err == nil {
			in.tmp = ""
		}
	}
	if len(in.followers) > 0 || in.disposed {
		return // they read the file, named or not: its bytes count
	}
	if in.file != nil {
		_ = in.file.Close() // what counts was verified before
		in.file = nil
	}
	switch {
	case in.parted:
		in.hand()
	case in.tmp != "":
		in.store.strays.add(stray{in.disk, in.tmp, in.registry, in.reserved})
	case in.reserved > 0:
		in.store.index.release(in.registry, in.reserved)
	}
	in.tmp, in.reserved = "", 0
	if in.slot != none {
		in.store.leave(in.slot, in.name.path())
		in.slot = none
	}
	in.window, in.disposed = window{}, true
}
