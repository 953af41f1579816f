package cache

import (
	"cmp"
	"errors"
	"strings"
	"time"
)

// A note lies beside a part's file. It is like a blob's meta, with how much of the
// blob is there and the state of its hash.
type note struct {
	meta
	Offset int64  `json:"offset"`
	Saved  int64  `json:"saved"` // unix seconds
	State  []byte `json:"state"`
}

// encode returns n as it is written to disk.
func (n *note) encode() ([]byte, error) { return encodeSums(n, n.sums) }

// decodeNote reads what encode returned, or fails with errMeta.
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

// sweep removes everything from tmp but the parts, and returns those.
func sweep(d *disk) ([]*part, error) {
	files, err := d.list("sweep", "tmp")
	if err != nil {
		return nil, err
	}
	best := map[string]*part{} // by file: the latest whole note
	for _, f := range files {
		note := "tmp/" + f.Name()
		tmp, _, _ := strings.Cut(note, ".")
		if !strings.HasSuffix(note, ".meta") || !f.Type().IsRegular() {
			continue
		}
		if p, err := findPart(d, tmp, note); err == nil && (best[tmp] == nil || p.offset > best[tmp].offset) {
			best[tmp] = p
		}
	}
	var all []*part
	keep := map[string]bool{}
	for _, p := range best {
		if p.cut() == nil { // else nobody knows how many bytes it has
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

// findPart looks at a part and one of its notes.
func findPart(d *disk, tmp, note string) (*part, error) {
	n, f, err := openPart(d, tmp, note)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.close() }() // only looked at
	id, _, err := f.identify()
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

// openPart opens a part's file for going on with it, and reads its note.
func openPart(d *disk, tmp, note string) (*note, *file, error) {
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
	if _, _, err := f.identify(); err != nil {
		return nil, nil, errors.Join(err, f.close())
	}
	return n, f, nil
}
