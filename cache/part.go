package cache

import (
	"cmp"
	"context"
	"encoding"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
)

const (
	// partMin is how many bytes make a part worth keeping.
	partMin = 1 << 20
	// partStep is after how many bytes, at least, an ingest notes how far it
	// is: what a kill costs. Notes grow with the blob, so steps do too.
	partStep = 4 << 20
	// partAge is for how long a part is kept.
	partAge = 24 * time.Hour
)

// A part is a download that broke off: a file in tmp, and a note beside it that
// says what is needed to go on. It counts as a blob on its way in does.
type part struct {
	disk     *disk
	tmp      string
	name     name
	registry string
	size     int64 // of the whole blob
	bytes    int64 // that the file holds, and that count
	saved    time.Time
}

// A note is what lies beside a part's file: as a blob's meta, with what of the
// blob is there and the state of its hash.
type note struct {
	meta
	Offset int64  `json:"offset"`
	Saved  int64  `json:"saved"` // unix seconds
	State  []byte `json:"state"`
}

// encode writes a note as it stands on disk.
func (n *note) encode() ([]byte, error) { return encodeSums(n, n.sums) }

// decodeNote reads what encode wrote, or says errMeta.
func decodeNote(b []byte) (*note, error) {
	n := new(note)
	sums, err := decodeSums(b, n)
	switch {
	case err != nil:
		return nil, err
	case n.Version != metaVersion || n.Chunk != chunkSize || n.Offset <= 0 || n.Offset >= n.Size || int64(len(sums)) != chunks(n.Offset):
		return nil, errMeta
	}
	n.sums = sums
	return n, nil
}

// parts are those nobody has taken up yet, the oldest first.
type parts struct {
	mu  sync.Mutex
	all []*part
}

// add adds a part. Of two of one blob from one registry the longer stays; the
// other is returned.
func (p *parts) add(one *part) (less *part) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := slices.IndexFunc(p.all, func(o *part) bool { return o.name == one.name && o.registry == one.registry })
	if at >= 0 {
		if less = p.all[at]; less.bytes > one.bytes {
			return one
		}
		p.all = slices.Delete(p.all, at, at+1)
	}
	p.all = append(p.all, one)
	slices.SortStableFunc(p.all, func(a, b *part) int { return a.saved.Compare(b.saved) })
	return less
}

// take takes out the oldest part that fits, nil if there is none.
func (p *parts) take(fits func(*part) bool) *part {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := slices.IndexFunc(p.all, fits)
	if at < 0 {
		return nil
	}
	one := p.all[at]
	p.all = slices.Delete(p.all, at, at+1)
	return one
}

// registries are those that parts came from.
func (p *parts) registries() (all []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.all {
		all = append(all, one.registry)
	}
	return all
}

// sweep removes from tmp what is no part, and returns the parts.
func (d *disk) sweep() ([]*part, error) {
	files, err := d.list("sweep", "tmp")
	if err != nil {
		return nil, err
	}
	var all []*part
	keep := map[string]bool{}
	for _, f := range files {
		tmp, isNote := strings.CutSuffix("tmp/"+f.Name(), ".meta")
		if !isNote || !f.Type().IsRegular() {
			continue
		}
		if p, err := d.findPart(tmp); err == nil {
			all = append(all, p)
			keep[tmp], keep[tmp+".meta"] = true, true
		}
	}
	var errs []error
	for _, f := range files {
		if tmp := "tmp/" + f.Name(); !keep[tmp] {
			errs = append(errs, d.removeAll(tmp))
		}
	}
	return all, errors.Join(errs...)
}

// findPart looks at a part's note and cuts its file to what the note knows of.
func (d *disk) findPart(tmp string) (*part, error) {
	n, f, err := d.openPart(tmp)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only cut
	id, _, err := d.identify(f)
	if err != nil {
		return nil, err
	}
	if id.size > n.Offset {
		err = d.truncate(f, n.Offset)
	}
	one, nameErr := nameOf(n.Digest)
	p := &part{
		disk: d, tmp: tmp, name: one, registry: n.Registry, size: n.Size,
		bytes: min(id.size, n.Offset), saved: time.Unix(n.Saved, 0),
	}
	if p.stale(time.Now()) {
		err = cmp.Or(err, errMeta)
	}
	return p, errors.Join(err, nameErr)
}

// stale reports whether a part is too old to be kept, or from the future.
func (p *part) stale(now time.Time) bool { return now.Sub(p.saved).Abs() > partAge }

// openPart opens a part's file for going on, and reads its note.
func (d *disk) openPart(tmp string) (*note, *os.File, error) {
	raw, err := d.read(tmp + ".meta")
	if err != nil {
		return nil, nil, err
	}
	n, err := decodeNote(raw)
	if err != nil {
		return nil, nil, err
	}
	f, err := d.edit(tmp)
	if err != nil {
		return nil, nil, err
	}
	if _, _, err := d.identify(f); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return n, f, nil
}

// adoptParts counts parts that were found at start.
func (s *Store) adoptParts(all []*part) {
	for _, p := range all {
		s.index.hold(p.registry, p.bytes)
		s.addPart(p)
	}
}

// addPart keeps a part for whoever asks for its blob next. Its bytes are
// reserved already.
func (s *Store) addPart(p *part) {
	if less := s.parts.add(p); less != nil {
		s.discard(less)
	}
}

// discard removes a part.
func (s *Store) discard(p *part) {
	err := errors.Join(p.disk.remove(p.tmp+".meta"), p.disk.remove(p.tmp))
	if err != nil && !errors.Is(err, os.ErrClosed) {
		s.strays.add(stray{p.disk, p.tmp, p.registry, p.bytes})
		return
	}
	s.index.release(p.registry, p.bytes)
}

// yield drops parts where n more bytes of a registry need room: those that are
// older than the blob that would have to go.
func (s *Store) yield(registry string, n int64) (dropped bool) {
	for {
		lack := s.index.lack(registry, n)
		if !lack.any {
			return dropped
		}
		p := s.parts.take(func(p *part) bool {
			return p.saved.Unix() <= lack.used && (!lack.own || p.registry == registry)
		})
		if p == nil {
			return dropped
		}
		s.discard(p)
		dropped = true
	}
}

// expire drops the parts that are too old.
func (s *Store) expire(now time.Time) {
	for {
		p := s.parts.take(func(p *part) bool { return p.stale(now) })
		if p == nil {
			return
		}
		s.discard(p)
	}
}

// supersede drops the parts of a blob that is in the shard.
func (s *Store) supersede(n name) {
	for {
		p := s.parts.take(func(p *part) bool { return p.name == n })
		if p == nil {
			return
		}
		s.discard(p)
	}
}

// Resume takes up what an earlier download of the blob from the same registry
// left, before a restart or in this life, and returns where to go on: Offset.
// It reads those bytes and compares them with the sums noted when they came;
// from the first chunk that differs on they are dropped. Nobody gets any of
// them before SetSize tells that a source agrees on the size. Call it first.
func (in *Ingest) Resume() int64 {
	s := in.store
	if in.Begun() || in.Offset() > 0 || s.waitListed() != nil {
		return in.Offset()
	}
	p := s.parts.take(func(p *part) bool { return p.name == in.name && p.registry == in.registry })
	if p == nil {
		return 0
	}
	if err := in.takeUp(p); err != nil {
		s.log.Info("part not taken up", "digest", in.digest.String(), "error", err)
		if transient(err) {
			s.addPart(p)
			return 0
		}
		s.discard(p)
	}
	return in.Offset()
}

// takeUp makes the ingest go on where the part ends.
func (in *Ingest) takeUp(p *part) error {
	n, f, err := p.disk.openPart(p.tmp)
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
	in.written, in.onDisk, in.partSize, in.noted = offset, offset, n.Size, true
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

// verify compares the part's chunks with their sums, which it takes over, and
// returns how many bytes are right.
func (in *Ingest) verify(d *disk, f *os.File, n *note) (int64, error) {
	buf := buffers.Get().(*[chunkSize]byte)
	defer buffers.Put(buf)
	for off := int64(0); off < n.Offset; off += chunkSize {
		if err := context.Cause(in.ctx); err != nil {
			return 0, err
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
	in.store.discard(&part{disk: in.disk, tmp: in.tmp, registry: in.registry, bytes: in.reserved})
	in.file, in.tmp, in.reserved = nil, "", 0
	in.written, in.onDisk, in.partSize, in.noted, in.noteAt = 0, 0, 0, false, 0
	in.anew()
}

// note notes how far the ingest is, so that another can go on from there. That
// it can't be noted is no harm.
func (in *Ingest) note() error {
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
	in.noted = true
	return in.disk.writeFile(in.tmp+".meta", raw)
}

// resumable reports whether another ingest could go on from here.
func (in *Ingest) resumable() bool {
	size := max(in.size, in.partSize)
	return in.file != nil && !in.passing && in.state == arriving && in.written >= partMin && in.written < size
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
		disk: in.disk, tmp: in.tmp, name: in.name, registry: in.registry,
		size: max(in.size, in.partSize), bytes: in.reserved, saved: time.Now(),
	}
	if in.store.disk.Load() != in.disk { // the next start finds it
		in.store.index.release(p.registry, p.bytes)
		return
	}
	in.store.addPart(p)
}
