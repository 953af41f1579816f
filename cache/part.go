package cache

import (
	"cmp"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
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
	note     string
	name     name
	registry string
	offset   int64 // that the note tells
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
	best := map[string]*part{} // of two notes of one file the later, if it is whole
	for _, f := range files {
		note := "tmp/" + f.Name()
		tmp, _, _ := strings.Cut(note, ".")
		if !strings.HasSuffix(note, ".meta") || !f.Type().IsRegular() {
			continue
		}
		if p, err := d.findPart(tmp, note); err == nil && (best[tmp] == nil || p.offset > best[tmp].offset) {
			best[tmp] = p
		}
	}
	var all []*part
	keep := map[string]bool{}
	for _, p := range best {
		if p.cut() == nil { // else its bytes could not be counted
			all = append(all, p)
			keep[p.tmp], keep[p.note] = true, true
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

// cut cuts a part's file to what its note knows of.
func (p *part) cut() error {
	f, err := p.disk.edit(p.tmp)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only cut
	return p.disk.truncate(f, p.bytes)
}

// findPart looks at a part and one of its notes.
func (d *disk) findPart(tmp, note string) (*part, error) {
	n, f, err := d.openPart(tmp, note)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only looked at
	id, _, err := d.identify(f)
	if err != nil {
		return nil, err
	}
	one, nameErr := nameOf(n.Digest)
	p := &part{
		disk: d, tmp: tmp, note: note, name: one, registry: n.Registry, offset: n.Offset,
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
func (d *disk) openPart(tmp, note string) (*note, *os.File, error) {
	raw, err := d.read(note)
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
	err := errors.Join(p.disk.remove(p.note), p.disk.remove(p.tmp))
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
