package cache

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/cespare/xxhash/v2"
)

// resume takes up a part of the blob from the same registry, if there is one.
func (k *sink) resume() {
	if k.written > 0 || k.dir.inUse() == nil || k.listing.waitBriefly() != nil {
		return
	}
	p := k.parts.list.take(func(p *part) bool { return p.name == k.name && p.registry == k.registry })
	if p == nil {
		return
	}
	err := k.takeUp(p)
	if err == nil {
		return
	}
	k.log.Info("interrupted download not resumed", "digest", k.digest.String(), "error", err)
	if transient(err) || k.ctx.Err() != nil {
		k.parts.add(p)
		return
	}
	k.parts.discard(p)
}

// takeUp makes the ingest go on where the part ends.
func (k *sink) takeUp(p *part) error {
	n, f, err := openPart(p.disk, p.tmp, p.note)
	if err != nil {
		return err
	}
	offset := int64(0)
	if n.Digest != k.digest || n.Registry != k.registry {
		err = errMeta // another part's
	} else {
		offset, err = k.content.relive(k.ctx, f, n)
	}
	if err == nil {
		err = f.truncate(offset)
	}
	if err != nil {
		k.content = newDigester(k.digest)
		return errors.Join(err, f.close())
	}
	k.allocator.release(p.registry, p.bytes-min(p.bytes, offset))
	k.disk, k.file, k.tmp, k.reserved, k.written = p.disk, f, p.tmp, offset, offset
	k.progress = progress{size: n.Size, note: p.note, next: offset + partStep}
	k.readers.readFrom(k.source(), offset)
	return nil
}

// relive brings the digester to the end of a part, and returns that offset. A part
// ends before its first chunk that does not match its sum.
func (d *digester) relive(ctx context.Context, f *file, n *note) (int64, error) {
	good, err := d.verify(ctx, f, n)
	if err != nil {
		return 0, err
	}
	if good == n.Offset {
		if restored, err := d.restore(n.State, good); restored {
			return good, err
		}
	}
	if good -= good % chunkSize; good == 0 {
		return 0, errSum
	}
	*d = newDigester(d.digest)
	return good, d.rehash(f, good)
}

// verifyTime is how long a part is checked before a source is asked, because a
// client waits. The bytes beyond are downloaded again.
const verifyTime = 10 * time.Second

// verify compares the part's chunks with their sums, takes the sums over, and
// returns how many bytes are right.
func (d *digester) verify(ctx context.Context, f *file, n *note) (int64, error) {
	buf := buffers.Get().(*[chunkSize]byte)
	defer buffers.Put(buf)
	start := time.Now()
	for off := int64(0); off < n.Offset; off += chunkSize {
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		if time.Since(start) > verifyTime {
			return off, nil
		}
		p := buf[:min(chunkSize, n.Offset-off)]
		if f.readAt(p, off) != nil || xxhash.Sum64(p) != n.sums[off/chunkSize] {
			return off, nil
		}
		d.sums.write(p)
	}
	return n.Offset, nil
}

// rehash reads the first n bytes of f, whole chunks, into the digester.
func (d *digester) rehash(f *file, n int64) error {
	buf := buffers.Get().(*[chunkSize]byte)
	defer buffers.Put(buf)
	for off := int64(0); off < n; off += chunkSize {
		if err := f.readAt(buf[:], off); err != nil {
			return err
		}
		d.write(buf[:])
	}
	return nil
}

// forget drops the part that was taken up.
func (k *sink) forget() {
	if k.progress.size == 0 {
		return
	}
	_ = k.file.close() // nobody wants it
	k.parts.discard(&part{disk: k.disk, tmp: k.tmp, note: k.progress.note, registry: k.registry, bytes: k.reserved})
	k.file, k.tmp, k.reserved, k.aside, k.written, k.progress = nil, "", 0, 0, 0, progress{}
	k.content = newDigester(k.digest)
	k.readers.readFrom(nil, 0)
}

// note writes down how far the ingest is, so that another ingest can go on from
// there. Failing to do so is no harm. Each note has a name of its own: some file
// systems flush a file that is renamed over another, which takes long.
func (k *sink) note() error {
	name := fmt.Sprintf("%s.%d.meta", k.tmp, k.written)
	if name == k.progress.note {
		return nil
	}
	k.progress.next = k.written + max(partStep, k.written/64)
	m := k.meta(k.registry)
	m.Size, m.sums = max(k.size, k.progress.size), k.content.sums.all()
	n := &note{meta: *m, Offset: k.written, Saved: time.Now().Unix()}
	var err error
	if n.State, err = k.content.state(); err != nil {
		return err
	}
	raw, err := n.encode()
	if err != nil {
		return err
	}
	if err := k.disk.writeFile(name, raw); err != nil {
		return err
	}
	k.dropNote()
	k.progress.note = name
	return nil
}

// dropNote removes the note. If it stays, the next start removes it, because its
// file is gone.
func (k *sink) dropNote() {
	if k.progress.note == "" {
		return
	}
	if err := k.disk.remove(k.progress.note); err != nil {
		k.log.Debug("note of an ingest not removed; the next start removes it", "error", err)
	}
	k.progress.note = ""
}

// resumable reports whether another ingest could go on from here.
func (k *sink) resumable() bool {
	size := max(k.size, k.progress.size)
	return !k.ended && k.file != nil && !k.passing && k.written >= partMin && k.written < size
}

// leavePart leaves the bytes that came to the next ingest of the blob.
func (k *sink) leavePart() {
	if !k.resumable() {
		return
	}
	err := k.file.truncate(k.written) // gives up the room set aside
	if err == nil {
		err = k.note()
	}
	if err != nil {
		if !errors.Is(err, os.ErrClosed) && !errors.Is(err, fs.ErrNotExist) {
			k.log.Info("interrupted download can't be resumed later", "digest", k.digest.String(), "error", err)
		}
		return
	}
	k.allocator.release(k.registry, k.reserved-k.written)
	k.reserved, k.progress.ended = k.written, true
}

// part returns the part that leavePart left.
func (k *sink) part() *part {
	return &part{
		disk: k.disk, tmp: k.tmp, note: k.progress.note, name: k.name, registry: k.registry,
		offset: k.written, bytes: k.reserved, saved: time.Now(),
	}
}
