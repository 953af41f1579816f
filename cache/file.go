package cache

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
)

// segment is how many bytes of a file are checked, then sent at once.
const segment = 1 << 20

// racy is how young a change of a file may be for another change to leave the
// same time stamp: clocks of file systems tick every few milliseconds.
const racy = 100 * time.Millisecond

// A fileBlob is a complete blob, read from its file. Chunks are checked
// against their sums before they leave for the first time, again once the file
// has changed, and again after Options.Verify; what is known of them is shared
// by all who read the blob at the time, and kept in the index once all are right.
type fileBlob struct {
	store  *Store
	disk   *disk
	name   name
	slot   int32
	pin    *pin
	file   *os.File
	size   int64
	closed bool
}

// checks are what is known of the chunks of one blob.
type checks struct {
	mu    sync.Mutex
	meta  *meta
	id    identity
	since time.Time
	right []bool
	left  int
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
	err := b.file.Close() // first: a file that is gone holds its bytes until then
	b.store.leave(b.slot, b.name.path())
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
		if err := b.check(off, step); err != nil {
			return off - start, err
		}
		k, err := b.disk.send(w, b.file, off, step)
		off += k
		if err != nil {
			if k < step && unreadable(b.disk, b.file, off) {
				err = b.damaged(err)
			}
			return off - start, err
		}
	}
	return off - start, nil
}

// damaged takes the blob out of the shard: whoever reads it goes on elsewhere,
// and must not come back here.
func (b *fileBlob) damaged(err error) error {
	b.store.expel(b.disk, b.slot)
	return errors.Join(ErrDamaged, err)
}

// lost says that a blob can't be opened, and takes it out of the shard if that
// is the blob's fault.
func (b *fileBlob) lost(err error) error {
	if !transient(err) {
		b.store.expel(b.disk, b.slot)
	}
	return errors.Join(ErrNotFound, err)
}

// prepare reads what checking needs, so that Send opens no file as a rule.
func (b *fileBlob) prepare() error {
	id, _, err := b.disk.identify(b.file)
	if err == nil && id.size != b.size {
		err = errMeta
	}
	now := time.Now()
	if err != nil || b.size <= smallSize || b.store.trusted(b.slot, id, now) {
		return err
	}
	_, err = b.begin(id, now)
	return err
}

// check makes sure that the chunks which hold [off, off+n) are right.
func (b *fileBlob) check(off, n int64) error {
	id, _, err := b.disk.identify(b.file)
	if err != nil {
		return b.damaged(err)
	}
	now := time.Now()
	if b.store.trusted(b.slot, id, now) {
		return nil
	}
	c, err := b.begin(id, now)
	if err != nil {
		return b.damaged(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := off / chunkSize; i*chunkSize < off+n; i++ {
		if c.right[i] {
			continue
		}
		if err := b.checkChunk(c.meta, i); err != nil {
			return b.damaged(err)
		}
		if now.UnixNano()-id.mtime > int64(racy) {
			c.right[i] = true
			c.left--
		}
	}
	if c.left == 0 {
		b.store.index.right(b.slot, id, c.since)
	}
	return nil
}

// trusted reports whether all of slot's chunks were found right in a file of
// this identity, not too long ago.
func (s *Store) trusted(slot int32, id identity, now time.Time) bool {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	e := &s.index.entries[slot]
	return e.checked != 0 && e.id == id && now.UnixNano()-e.checked < int64(s.opts.Verify)
}

// begin returns the checks of the blob, new ones if the file is another or
// they are too old.
func (b *fileBlob) begin(id identity, now time.Time) (*checks, error) {
	x := b.store.index
	x.mu.Lock()
	c := b.pin.checks
	x.mu.Unlock()
	if c != nil && c.id == id && now.Sub(c.since) < b.store.opts.Verify {
		return c, nil
	}
	m, err := b.meta()
	if err != nil {
		return nil, err
	}
	c = &checks{meta: m, id: id, since: now, right: make([]bool, len(m.sums)), left: len(m.sums)}
	x.mu.Lock()
	b.pin.checks = c
	x.mu.Unlock()
	return c, nil
}

// meta reads what lies beside the blob.
func (b *fileBlob) meta() (*meta, error) {
	m, err := readMeta(b.disk, b.name)
	if err == nil && m.Size != b.size {
		err = errMeta
	}
	return m, err
}

// buffers are chunks for reading and copying.
var buffers = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// checkChunk reads chunk i and compares its sum.
func (b *fileBlob) checkChunk(m *meta, i int64) error {
	buf := buffers.Get().(*[chunkSize]byte)
	defer buffers.Put(buf)
	p := buf[:min(chunkSize, m.Size-i*chunkSize)]
	if err := b.disk.readAt(b.file, p, i*chunkSize); err != nil {
		return err
	}
	if xxhash.Sum64(p) != m.sums[i] {
		return errSum
	}
	return nil
}

// errSum: a chunk is not what it was.
var errSum = errors.New("chunk does not match its sum")

// MaxManifest bounds a manifest, in bytes. What is larger is none.
const MaxManifest = 4 << 20

// manifest reads the whole blob into memory if it is a manifest: any digest
// can be asked for as one.
func (b *fileBlob) manifest() (*memoryBlob, error) {
	if b.size > MaxManifest {
		return nil, ErrNotFound
	}
	m, err := b.meta()
	if err != nil {
		return nil, b.lost(err)
	}
	if m.MediaType == "" {
		return nil, ErrNotFound
	}
	return b.content()
}

// content reads the whole blob, checked, into memory.
func (b *fileBlob) content() (*memoryBlob, error) {
	m, err := b.meta()
	if err != nil {
		return nil, b.lost(err)
	}
	p := make([]byte, b.size)
	if err := b.disk.readAt(b.file, p, 0); err != nil {
		return nil, b.lost(err)
	}
	for i, sum := range m.sums {
		if xxhash.Sum64(p[int64(i)*chunkSize:min(b.size, int64(i+1)*chunkSize)]) != sum {
			return nil, b.lost(errSum)
		}
	}
	return &memoryBlob{content: p, mediaType: m.MediaType, path: b.name.path()}, nil
}

// Salvage returns the bytes of a blob that Send called damaged, up to the
// first chunk that is, so that they need not come from elsewhere again. It
// returns nil for other blobs. The blob must stay open while it is read.
func Salvage(b Blob) io.Reader {
	fb, ok := b.(*fileBlob)
	if !ok {
		return nil
	}
	fb.store.index.mu.Lock()
	c := fb.pin.checks
	fb.store.index.mu.Unlock()
	if c == nil {
		return nil
	}
	return &salvage{disk: fb.disk, file: fb.file, meta: c.meta}
}

// A salvage reads a file chunk by chunk until one is not right.
type salvage struct {
	disk  *disk
	file  *os.File
	meta  *meta
	chunk int64
	rest  []byte
	buf   [chunkSize]byte
}

// Read implements io.Reader. The end of what is right is an unexpected EOF.
func (s *salvage) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		if s.chunk >= int64(len(s.meta.sums)) {
			return 0, io.EOF
		}
		q := s.buf[:min(chunkSize, s.meta.Size-s.chunk*chunkSize)]
		if err := s.disk.readAt(s.file, q, s.chunk*chunkSize); err != nil || xxhash.Sum64(q) != s.meta.sums[s.chunk] {
			return 0, io.ErrUnexpectedEOF
		}
		s.chunk++
		s.rest = q
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// sendFile writes n bytes of f at off to w, by the kernel if w can.
func sendFile(w io.Writer, f *os.File, off, n int64) (int64, error) {
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	src := &io.LimitedReader{R: f, N: n}
	if rf, ok := w.(io.ReaderFrom); ok {
		k, err := rf.ReadFrom(src)
		if err == nil && k < n {
			err = io.ErrUnexpectedEOF
		}
		return k, err
	}
	return copyFile(w, src, n)
}

// copyFile writes the n bytes of src to w.
func copyFile(w io.Writer, src io.Reader, n int64) (int64, error) {
	buf := buffers.Get().(*[chunkSize]byte)
	defer buffers.Put(buf)
	k, err := io.CopyBuffer(w, src, buf[:])
	if err == nil && k < n {
		err = io.ErrUnexpectedEOF
	}
	return k, err
}

// unreadable reports whether f can't be read at off. It tells a bad disk from
// a client that has gone.
func unreadable(d *disk, f *os.File, off int64) bool {
	var b [1]byte
	return d.readAt(f, b[:], off) != nil
}
