package cache

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/cespare/xxhash/v2"
)

// segment is how many bytes of a file are checked, then sent at once.
const segment = 1 << 20

// racy is how young a change of a file may be for another change to leave the
// same time stamp: clocks of file systems tick every few milliseconds.
const racy = 100 * time.Millisecond

// A fileBlob is a complete blob, read from its file. Chunks are checked against
// their sums before they leave for the first time, again once the file has
// changed, and again after Options.Verify. What is known of them is shared by
// all who read the blob at the time, and kept in the index once all are right.
type fileBlob struct {
	remover *remover
	verify  time.Duration
	counts  *judged
	name    name
	slot    int32
	pin     *pin
	file    *file
	size    int64
	closed  bool
}

// openFile opens the file. If the file is not as it should be, the blob leaves the
// shard.
func (b *fileBlob) openFile(d *root) (err error) {
	if b.file, err = d.open(b.name.path()); err != nil {
		return b.lost(d, err)
	}
	if err := b.prepare(); err != nil {
		return errors.Join(b.lost(d, err), b.file.close())
	}
	return nil
}

// prepare reads the meta if Send will need it, so that Send rarely opens a file.
func (b *fileBlob) prepare() error {
	id, _, err := b.file.identify()
	if err == nil && id.size != b.size {
		err = errMeta
	}
	now := time.Now()
	if err != nil || b.size <= smallSize || b.trusted(id, now) {
		return err
	}
	_, err = b.checks(id, now)
	return err
}

// Size implements Blob.
func (b *fileBlob) Size() int64 { return b.size }

// Verdict implements Blob: a blob of the shard is right.
func (b *fileBlob) Verdict(context.Context) error { return nil }

// Close implements Blob.
func (b *fileBlob) Close() error {
	if b.closed {
		return nil
	}
	b.closed = true
	err := b.file.close() // first: a removed file holds its bytes until then
	b.remover.leave(b.slot, b.name.path())
	return err
}

// Send implements Blob.
func (b *fileBlob) Send(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	end := min(endOf(off, n), b.size)
	start := off
	for off < end {
		if err := ctx.Err(); err != nil {
			return off - start, err
		}
		step := min(end-off, segment-off%segment)
		if err := b.check(ctx, off, step); err != nil {
			return off - start, err
		}
		k, err := b.file.send(w, off, step)
		off += k
		if err != nil {
			if k < step && !b.file.readable(off) {
				err = b.damaged(err)
			}
			return off - start, err
		}
	}
	return off - start, nil
}

// damaged takes the blob out of the shard: its readers go on with another source,
// and must not come back here.
func (b *fileBlob) damaged(err error) error {
	b.remover.expel(b.file.root, b.slot)
	return errors.Join(ErrDamaged, err)
}

// lost says that a blob can't be opened, and takes it out of the shard if that
// is the blob's fault.
func (b *fileBlob) lost(d *root, err error) error {
	if !transient(err) {
		b.remover.expel(d, b.slot)
	}
	return errors.Join(ErrNotFound, err)
}

// check makes sure that the chunks which hold [off, off+n) are right.
func (b *fileBlob) check(ctx context.Context, off, n int64) error {
	id, _, err := b.file.identify()
	if err != nil {
		return b.damaged(err)
	}
	now := time.Now()
	if b.trusted(id, now) {
		return nil
	}
	c, err := b.checks(id, now)
	if err != nil {
		return b.damaged(err)
	}
	settled := now.UnixNano()-id.mtime > int64(racy)
	for i := off / chunkSize; i*chunkSize < off+n; i++ {
		err := c.once(ctx, i, settled, func() error { return b.checkChunk(c.meta, i) })
		if err != nil {
			return err
		}
	}
	if c.complete() {
		b.remover.index.right(b.slot, id, c.since)
	}
	return nil
}

// trusted reports whether all chunks were found right in a file of this
// identity, not too long ago.
func (b *fileBlob) trusted(id identity, now time.Time) bool {
	return b.remover.index.trusted(b.slot, id, now.Add(-b.verify))
}

// checks returns which chunks are known to be right. It begins anew if the file has
// changed since, or if that was too long ago.
func (b *fileBlob) checks(id identity, now time.Time) (*checks, error) {
	c := b.pin.checks.Load()
	if c != nil && c.id == id && now.Sub(c.since) < b.verify {
		return c, nil
	}
	m, err := b.meta()
	if err != nil {
		return nil, err
	}
	c = newChecks(m, id, now)
	b.pin.checks.Store(c)
	return c, nil
}

// meta reads the meta beside the blob.
func (b *fileBlob) meta() (*meta, error) {
	if m := b.pin.told.Load(); m != nil {
		return m, nil
	}
	m, err := b.file.root.readMeta(b.name)
	if err == nil && m.Size != b.size {
		err = errMeta
	}
	return m, err
}

// checkChunk reads chunk i and compares its sum.
func (b *fileBlob) checkChunk(m *meta, i int64) error {
	buf := buffers.Get().(*[chunkSize]byte)
	defer buffers.Put(buf)
	p := buf[:min(chunkSize, m.Size-i*chunkSize)]
	if err := b.file.readAt(p, i*chunkSize); err != nil {
		return b.damaged(err)
	}
	same := xxhash.Sum64(p) == m.sums[i]
	b.counts.note(int64(len(p)), same)
	if !same {
		return b.damaged(errSum)
	}
	return nil
}

// errSum: a chunk has changed.
var errSum = errors.New("chunk does not match its sum")

// MaxManifest is how many bytes a manifest has at most. Anything larger is not
// taken for one.
const MaxManifest = 4 << 20

// manifest checks the whole blob if it is a manifest. Clients may ask for any digest
// as one.
func (b *fileBlob) manifest() (m Manifest, err error) {
	if b.size > MaxManifest {
		return m, ErrNotFound
	}
	told, err := b.meta()
	if err != nil {
		return m, b.lost(b.file.root, err)
	}
	if told.MediaType == "" {
		return m, ErrNotFound
	}
	if err := b.check(context.Background(), 0, b.size); err != nil {
		return m, errors.Join(ErrNotFound, err)
	}
	return Manifest{MediaType: told.MediaType, Size: b.size}, nil
}

// content reads the whole blob, checked, into memory.
func (b *fileBlob) content() (*memoryBlob, error) {
	m, err := b.meta()
	if err != nil {
		return nil, b.lost(b.file.root, err)
	}
	p := make([]byte, b.size)
	if err := b.file.readAt(p, 0); err != nil {
		return nil, b.lost(b.file.root, err)
	}
	for i, sum := range m.sums {
		chunk := p[int64(i)*chunkSize : min(b.size, int64(i+1)*chunkSize)]
		same := xxhash.Sum64(chunk) == sum
		b.counts.note(int64(len(chunk)), same)
		if !same {
			return nil, b.lost(b.file.root, errSum)
		}
	}
	return &memoryBlob{content: p, mediaType: m.MediaType}, nil
}
