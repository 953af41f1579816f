package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/wait"
)

const (
	// verifyWork is how long verifying goes on before it rests, and verifyRest how many
	// times as long it rests: pulls have the disk and the processor most of the time.
	verifyWork = 20 * time.Millisecond
	verifyRest = 1
)

// Verify hashes all that the shard holds, and calls each with every blob: err is nil if
// its bytes are what its digest names. What is wrong leaves the shard first. It counts as
// no use. It rests as long as it works, so that pulls suffer little. The error is ctx's.
func (s *Stock) Verify(ctx context.Context, each func(e Entry, err error)) error {
	began := time.Now()
	for _, e := range s.Entries() {
		if err := ctx.Err(); err != nil {
			return err
		}
		pause := func() error {
			worked := time.Since(began)
			if worked < verifyWork {
				return nil
			}
			err := wait.For(ctx, verifyRest*worked)
			began = time.Now()
			return err
		}
		held, err := s.verify(e, pause)
		if stopped := ctx.Err(); stopped != nil {
			return stopped
		}
		if held {
			each(e, err)
		}
		if err := pause(); err != nil {
			return err
		}
	}
	return nil
}

// verify hashes a blob. It reports false if the blob has left the shard meanwhile. A file
// that is not right is read once more: another may have taken its place just then.
func (s *Stock) verify(e Entry, pause func() error) (held bool, err error) {
	n, err := nameOf(e.Digest)
	disk := s.shard.dir.inUse()
	if err != nil || disk == nil {
		return false, nil
	}
	for range 2 {
		now := time.Now()
		id, wrong := hashFile(&disk.root, n, pause)
		if wrong == nil && (stockroom{s.shard.index}).confirm(n, id, now) {
			s.shard.verified.held.note(id.size, true)
			return true, nil
		}
		if err = wrong; err == nil {
			err = damagedBy(errMeta)
		}
	}
	if transient(err) || !errors.Is(err, ErrDamaged) || !s.shard.dir.uses(disk) {
		return false, nil
	}
	i, still, _, ok := s.shard.index.acquire(n)
	if !ok {
		return false, nil
	}
	defer s.shard.remover.leave(i, n.path())
	s.shard.verified.held.note(still.size, false)
	s.shard.remover.expel(&disk.root, i)
	return true, err
}

// hashFile compares a blob's file with its digest, and its meta with its file. It calls
// pause after each piece.
func hashFile(r *root, n name, pause func() error) (id identity, err error) {
	m, err := r.readMeta(n)
	if err != nil {
		return id, damagedBy(err)
	}
	f, err := r.open(n.path())
	if err != nil {
		return id, damagedBy(err)
	}
	defer func() { _ = f.close() }() // only read
	if id, _, err = f.identify(); err != nil {
		return id, damagedBy(err)
	}
	if m.Size != id.size {
		return id, damagedBy(errMeta)
	}
	if err := hashTo(f, id.size, n.digest(), pause); err != nil {
		return id, err
	}
	if now, _, err := f.identify(); err != nil || now != id {
		return id, damagedBy(errors.Join(errMeta, err))
	}
	return id, nil
}

// hashTo reads a file's bytes and compares them with a digest.
func hashTo(f *file, size int64, d digest.Digest, pause func() error) error {
	buf := buffers.Get().(*[chunkSize]byte)
	defer buffers.Put(buf)
	h := d.Algorithm().Hash()
	for off := int64(0); off < size; {
		p := buf[:min(chunkSize, size-off)]
		if err := f.readAt(p, off); err != nil {
			return damagedBy(err)
		}
		_, _ = h.Write(p) // a hash never fails
		off += int64(len(p))
		if err := pause(); err != nil {
			return err
		}
	}
	if got := digest.NewDigest(d.Algorithm(), h); got != d {
		return fmt.Errorf("its bytes have the digest %s: %w", got, ErrDamaged)
	}
	return nil
}

// damagedBy says that a blob's files can't be right because of err.
func damagedBy(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errors.Join(ErrDamaged, errors.New("a file of it is missing"))
	}
	return errors.Join(ErrDamaged, err)
}
