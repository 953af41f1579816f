package pages

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

const (
	// small is how many bytes of a draft lie in memory and are not claimed. Most pages
	// have fewer, and never wait for the large ones.
	small = 32 << 10
	// step is how many bytes are claimed at a time.
	step = pieceSize
)

// A Draft is a page on its way in. It implements oci.Sink. Its methods belong to one
// goroutine at a time.
type Draft struct {
	ctx              context.Context // bounds the wait for bytes
	shelf            *Shelf
	place            *place // nil: without a disk
	question         oci.Question
	stranger         bool
	hash             hash.Hash
	size             int64
	memory           sheaf
	file             *cache.Draft // nil: it lies in memory
	noDisk           bool         // the disk has failed it
	inMemory, onDisk *wait.Claim
	claimed          int64
	waited           time.Duration // for bytes
	finished         bool
}

var _ oci.Sink = (*Draft)(nil)

// Reset implements oci.Sink.
func (d *Draft) Reset() {
	d.let()
	d.hash.Reset()
	d.size, d.memory, d.file, d.claimed = 0, sheaf{}, nil, 0
}

// Write implements io.Writer. It waits for its turn if others hold the bytes, and then
// fails with wait.ErrFull.
func (d *Draft) Write(p []byte) (int, error) {
	if d.size+int64(len(p)) > small && d.file == nil && d.place != nil && !d.noDisk {
		d.spill()
	}
	if err := d.claim(int64(len(p))); err != nil {
		return 0, err
	}
	if err := d.store(p); err != nil {
		return 0, err
	}
	_, _ = d.hash.Write(p) // never fails
	d.size += int64(len(p))
	return len(p), nil
}

// claim claims n more bytes, all but the first few of the page.
func (d *Draft) claim(n int64) error {
	more := d.size + n - small - d.claimed
	if more <= 0 {
		return nil
	}
	c := d.inMemory
	if d.file != nil {
		c = d.onDisk
	}
	more = (more + step - 1) / step * step
	if err := d.grow(c, more); err != nil {
		return err
	}
	d.claimed += more
	return nil
}

// grow claims n more bytes. A draft waits for patience at most altogether.
func (d *Draft) grow(c *wait.Claim, n int64) error {
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(d.ctx, patience-d.waited, wait.ErrFull)
	defer cancel()
	err := c.Grow(ctx, n)
	d.waited += time.Since(began)
	if err != nil {
		return fmt.Errorf("taking in a list: %w", err)
	}
	return nil
}

// store puts bytes at the end.
func (d *Draft) store(p []byte) error {
	if d.file != nil {
		_, err := d.file.Write(p)
		if err == nil {
			return nil
		}
		if err := d.unspill(err); err != nil {
			return err
		}
	}
	_, err := d.memory.Write(p)
	return err
}

// spill moves the draft to a file. It stays in memory if the disk fails.
func (d *Draft) spill() {
	f, err := d.place.folder.Draft()
	if err == nil {
		if _, err = io.Copy(f, io.NewSectionReader(&d.memory, 0, d.size)); err != nil {
			err = errors.Join(err, f.Close())
		}
	}
	if err != nil {
		d.shelf.log.Debug("a list does not go to the disk", "error", err)
		d.noDisk = true
		return
	}
	d.file, d.memory = f, sheaf{}
}

// unspill moves the draft back to memory, because the disk failed with why.
func (d *Draft) unspill(why error) error {
	d.shelf.log.Debug("a list does not go to the disk", "error", why)
	d.noDisk = true
	if err := d.grow(d.inMemory, d.claimed); err != nil {
		return err
	}
	d.memory = sheaf{}
	if _, err := io.Copy(&d.memory, io.NewSectionReader(d.file, 0, d.size)); err != nil || d.memory.size != d.size {
		return fmt.Errorf("a list was lost on a disk that fails: %w", errors.Join(why, err))
	}
	_ = d.file.Close() // it is of no more use
	d.file = nil
	d.onDisk.Release()
	return nil
}

// Reader returns a reader of what was written so far.
func (d *Draft) Reader() io.Reader { return io.NewSectionReader(d.body(), 0, d.size) }

// body is where the bytes lie.
func (d *Draft) body() io.ReaderAt {
	if d.file != nil {
		return d.file
	}
	return &d.memory
}

// Close gives the draft up. After Finish it does nothing.
func (d *Draft) Close() error {
	if !d.finished {
		d.let()
	}
	return nil
}

// let lets the bytes go.
func (d *Draft) let() {
	if d.file != nil {
		_ = d.file.Close() // a draft that is not removed goes at the next start
	}
	d.inMemory.Release()
	d.onDisk.Release()
}

// Finish makes a page of the draft, which w describes but for its size and sum, and
// keeps it on the shelf as the last word, if there is room. stored reports that. Close
// the Sheet.
func (d *Draft) Finish(w Word) (s *Sheet, stored bool) {
	d.finished = true
	w.Size, w.Sum = d.size, hex.EncodeToString(d.hash.Sum(nil))
	if s := d.same(w); s != nil {
		d.let()
		return s, true
	}
	body := d.body()
	name := d.question.Key() + " " + w.Sum
	if theirs, leave, ok := d.shelf.unkept.join(name); ok {
		d.let()
		return newSheet(w, theirs, leave), false
	}
	if d.place == nil {
		return newSheet(w, body, d.shelf.unkept.add(name, body, d.let)), false
	}
	e := newEntry(d.question, d.stranger, false)
	e.sum, e.noted = w.Sum, w.Told
	line := encode(d.question.Key(), w)
	e.size = d.place.index.weight(w.Size + int64(len(line)))
	if !d.shelf.keep(d.place, e, func() error { return d.write(e.name, line) }) {
		return newSheet(w, body, d.shelf.unkept.add(name, body, d.let)), false
	}
	if d.file == nil {
		return newSheet(w, body, d.let), true
	}
	d.onDisk.Release() // the shelf counts them now
	leave := d.place.index.readOf(e)
	return newSheet(w, body, func() { d.let(); leave() }), true
}

// same returns the page that is kept if it is the same and was written only now, so
// that those who read it share one file.
func (d *Draft) same(w Word) *Sheet {
	if d.place == nil {
		return nil
	}
	e := d.place.index.get(keyOf(d.question))
	if e == nil || e.isNo || e.sum != w.Sum || w.Told.Sub(e.noted) >= again {
		return nil
	}
	s, ok := d.shelf.Open(d.question)
	if !ok {
		return nil
	}
	if s.Sum != w.Sum || s.Page.MediaType != w.Page.MediaType || s.Page.Filters != w.Page.Filters || s.Page.Next != w.Page.Next {
		s.end()
		return nil
	}
	s.Word = w
	return s
}

// errNoDisk: the disk has failed the draft.
var errNoDisk = errors.New("the disk failed before")

// write gives the draft its name on the shelf.
func (d *Draft) write(name string, line []byte) error {
	switch {
	case d.noDisk:
		return errNoDisk
	case d.file == nil:
		whole, err := io.ReadAll(d.Reader())
		if err != nil {
			return fmt.Errorf("keeping a list: %w", err)
		}
		return d.place.folder.Write(name, append(whole, line...))
	default:
		if _, err := d.file.Write(line); err != nil {
			return err
		}
		return d.file.Keep(name)
	}
}
