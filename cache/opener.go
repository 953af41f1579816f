package cache

import (
	"context"
	"time"
)

// An opener opens blobs of the shard.
type opener struct {
	dir      *directory
	listing  *listing
	index    *index
	small    *small
	remover  *remover
	commits  *turns[key]
	verify   time.Duration
	verified *verified
}

// open returns the blob that n names, or ErrNotFound, and counts as use.
func (o *opener) open(n name) (Blob, error) {
	if b, ok := o.fromMemory(n); ok {
		return b, nil
	}
	return o.fromDisk(n)
}

// fromMemory opens a small blob that memory holds and the index knows.
func (o *opener) fromMemory(n name) (*memoryBlob, bool) {
	b, ok := o.small.get(n)
	if !ok {
		return nil, false
	}
	held, note := o.index.use(n, time.Now())
	if !held {
		o.small.remove(n)
		return nil, false
	}
	if note {
		o.dir.noteUse(n.path(), time.Now())
	}
	return b, true
}

// fromDisk opens a blob's file. Until the directory is listed it also tries a
// digest that the index does not know.
func (o *opener) fromDisk(n name) (Blob, error) {
	d := o.dir.inUse()
	if d == nil {
		return nil, ErrNotFound
	}
	i, e, p, ok := o.index.acquire(n)
	if !ok {
		o.adopt(d, n)
		i, e, p, ok = o.index.acquire(n)
	}
	if !ok {
		return nil, ErrNotFound
	}
	b := &fileBlob{remover: o.remover, verify: o.verify, counts: &o.verified.held, name: n, slot: i, pin: p, size: e.size}
	if err := b.openFile(&d.root); err != nil {
		o.remover.leave(i, n.path())
		return nil, err
	}
	if b.size > smallSize {
		return b, nil
	}
	return o.remember(b, n)
}

// remember reads a small blob whole, checked, and keeps it in memory.
func (o *opener) remember(b *fileBlob, n name) (Blob, error) {
	defer func() { _ = b.Close() }() // only read
	m, err := b.content()
	if err != nil {
		return nil, err
	}
	o.small.put(n, m)
	return m, nil
}

// adopt puts a blob into the index that the listing has not reached yet.
func (o *opener) adopt(d *disk, n name) {
	if o.listing.ended() {
		return
	}
	end, err := o.commits.take(context.Background(), n.key)
	if err != nil {
		return
	}
	defer end()
	if f, _, err := findBlob(d, n); err == nil {
		o.index.append(f)
	}
}

// find returns a blob's size and the name of its share. Until the directory is
// listed it also looks on the disk.
func (o *opener) find(n name) (e entry, share string, ok bool) {
	if e, share, ok = o.index.look(n); ok {
		return e, share, true
	}
	if d := o.dir.inUse(); d != nil {
		o.adopt(d, n)
	}
	return o.index.look(n)
}

// origin returns the registry that brought n, whose share has that name. A share is
// named after its registry. Only the share of all others is not; then the meta
// tells, if it can be read.
func (o *opener) origin(n name, share string) string {
	d := o.dir.inUse()
	if share != "" || d == nil {
		return share
	}
	m, err := d.readMeta(n)
	if err != nil {
		return ""
	}
	return m.Registry
}

// readMeta reads the meta beside a blob, or fails with errMeta.
func (r *root) readMeta(n name) (*meta, error) {
	raw, err := r.read(n.path() + ".meta")
	if err != nil {
		return nil, err
	}
	return metaOf(raw, n)
}

// metaOf decodes the meta of the blob that n names, or fails with errMeta.
func metaOf(raw []byte, n name) (*meta, error) {
	m, err := decodeMeta(raw)
	if err == nil && m.Digest != n.digest() {
		err = errMeta // another blob's
	}
	return m, err
}

// manifest looks at a manifest. It does not find what the shard holds only as a blob.
func (o *opener) manifest(n name) (m Manifest, err error) {
	b, err := o.open(n)
	if err != nil {
		return m, err
	}
	defer func() { _ = b.Close() }() // only read
	if small, ok := b.(*memoryBlob); ok {
		m = Manifest{MediaType: small.mediaType, Size: small.Size(), Content: small.content}
	} else if m, err = b.(*fileBlob).manifest(); err != nil {
		return m, err
	}
	if m.MediaType == "" {
		return Manifest{}, ErrNotFound
	}
	return m, nil
}
