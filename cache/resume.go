package cache

import (
	"context"
	"encoding"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Resume takes up what an earlier download of the blob from the same registry
// left, before a restart or in this life, and returns where to go on: Offset.
// It reads those bytes and compares them with the sums noted when they came;
// from the first chunk that differs on they are dropped. Nobody gets any of
// them before SetSize tells that a source agrees on the size. Call it first.
func (in *Ingest) Resume() int64 {
	s := in.store
	if in.Begun() || in.Offset() > 0 || s.disk.Load() == nil || s.waitListed() != nil {
		return in.Offset()
	}
	p := s.parts.take(func(p *part) bool { return p.name == in.name && p.registry == in.registry })
	if p == nil {
		return 0
	}
	if err := in.takeUp(p); err != nil {
		s.log.Info("part not taken up", "digest", in.digest.String(), "error", err)
		if transient(err) || in.ctx.Err() != nil {
			s.addPart(p)
			return 0
		}
		s.discard(p)
	}
	return in.Offset()
}

// takeUp makes the ingest go on where the part ends.
func (in *Ingest) takeUp(p *part) error {
	n, f, err := p.disk.openPart(p.tmp, p.note)
	if err != nil {
		return err
	}
	offset := int64(0)
	if n.Digest != in.digest || n.Registry != in.registry {
		err = errMeta // another part's
	} else {
		offset, err = in.relive(p.disk, f, n)
	}
	if err == nil {
		err = p.disk.truncate(f, offset)
	}
	if err != nil {
		in.anew()
		return errors.Join(err, f.Close())
	}
	in.store.index.release(p.registry, p.bytes-min(p.bytes, offset))
	in.mu.Lock()
	defer in.mu.Unlock()
	in.disk, in.file, in.tmp, in.reserved = p.disk, f, p.tmp, offset
	in.written, in.onDisk, in.partSize, in.noted = offset, offset, n.Size, p.note
	in.noteAt = offset + partStep
	return nil
}

// anew forgets what was hashed and summed.
func (in *Ingest) anew() { in.hash, in.sums = in.digest.Algorithm().Hash(), summer{} }

// relive brings hash and sums to where the part ends, and returns where that
// is: at the first chunk that is not what it was.
func (in *Ingest) relive(d *disk, f *os.File, n *note) (int64, error) {
	good, err := in.verify(d, f, n)
	if err != nil {
		return 0, err
	}
	if h, ok := in.hash.(encoding.BinaryUnmarshaler); ok && good == n.Offset {
		return good, h.UnmarshalBinary(n.State)
	}
	if good -= good % chunkSize; good == 0 {
		return 0, errSum
	}
	return good, in.rehash(d, f, good)
}

// verifyTime is how long a part is read before a source is asked: a client
// waits. What is beyond comes again.
const verifyTime = 10 * time.Second

// verify compares the part's chunks with their sums, which it takes over, and
// returns how many bytes are right.
func (in *Ingest) verify(d *disk, f *os.File, n *note) (int64, error) {
	buf := buffers.Get().(*[chunkSize]byte)
	defer buffers.Put(buf)
	start := time.Now()
	for off := int64(0); off < n.Offset; off += chunkSize {
		if err := context.Cause(in.ctx); err != nil {
			return 0, err
		}
		if time.Since(start) > verifyTime {
			return off, nil
		}
		p := buf[:min(chunkSize, n.Offset-off)]
		if d.readAt(f, p, off) != nil || xxhash.Sum64(p) != n.sums[off/chunkSize] {
			return off, nil
		}
		in.sums.write(p)
	}
	return n.Offset, nil
}

// rehash hashes the first n bytes of f.
func (in *Ingest) rehash(d *disk, f *os.File, n int64) error {
	buf := buffers.Get().(*[chunkSize]byte)
	defer buffers.Put(buf)
	for off := int64(0); off < n; off += chunkSize {
		if err := d.readAt(f, buf[:], off); err != nil {
			return err
		}
		_, _ = in.hash.Write(buf[:]) // a hash never fails
	}
	return nil
}

// Agrees reports whether a source that says that the blob has n bytes, -1 if it
// does not know, can go on where Resume ended.
func (in *Ingest) Agrees(n int64) bool { return in.partSize == 0 || n < 0 || n == in.partSize }

// Forget drops what Resume took up, before SetSize: no source goes on from
// there.
func (in *Ingest) Forget() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.begun || in.partSize == 0 {
		return
	}
	_ = in.file.Close() // nobody wants it
	in.store.discard(&part{disk: in.disk, tmp: in.tmp, note: in.noted, registry: in.registry, bytes: in.reserved})
	in.file, in.tmp, in.reserved = nil, "", 0
	in.written, in.onDisk, in.partSize, in.noted, in.noteAt = 0, 0, 0, "", 0
	in.anew()
}

// note notes how far the ingest is, so that another can go on from there. That
// it can't be noted is no harm. Each note has a name of its own: a file system
// may write out at once what is renamed over another file, which takes long.
func (in *Ingest) note() error {
	name := fmt.Sprintf("%s.%d.meta", in.tmp, in.written)
	if name == in.noted {
		return nil
	}
	m := in.meta(in.registry)
	m.Size, m.sums = max(in.size, in.partSize), in.sums.all()
	n := &note{meta: *m, Offset: in.written, Saved: time.Now().Unix()}
	in.noteAt = in.written + max(partStep, in.written/64)
	h, ok := in.hash.(encoding.BinaryMarshaler)
	if !ok {
		return errors.ErrUnsupported
	}
	var err error
	if n.State, err = h.MarshalBinary(); err != nil {
		return err
	}
	raw, err := n.encode()
	if err != nil {
		return err
	}
	if err := in.disk.writeFile(name, raw); err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.dropNote()
	in.noted = name
	return nil
}

// resumable reports whether another ingest could go on from here.
func (in *Ingest) resumable() bool {
	if in.state != arriving { // the writer ended it: the rest is no longer its own
		return false
	}
	size := max(in.size, in.partSize)
	return in.file != nil && !in.passing && in.written >= partMin && in.written < size
}

// leavePart leaves the bytes that came for the next ingest. The writer calls it.
func (in *Ingest) leavePart() {
	if !in.resumable() {
		return
	}
	err := in.disk.truncate(in.file, in.written) // what was set aside goes
	if err == nil {
		err = in.note()
	}
	if err != nil {
		if !errors.Is(err, os.ErrClosed) && !errors.Is(err, fs.ErrNotExist) {
			in.store.log.Info("part not kept", "digest", in.digest.String(), "error", err)
		}
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.store.index.release(in.registry, in.reserved-in.written)
	in.reserved, in.parted = in.written, true
}

// hand gives a part that was left to the store. The caller holds mu.
func (in *Ingest) hand() {
	p := &part{
		disk: in.disk, tmp: in.tmp, note: in.noted, name: in.name, registry: in.registry,
		offset: in.written, bytes: in.reserved, saved: time.Now(),
	}
	if in.store.disk.Load() != in.disk { // the next start finds it
		in.store.index.release(p.registry, p.bytes)
		return
	}
	in.store.addPart(p)
}
