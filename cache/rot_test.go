package cache

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"oci-proxy/transfer/testkit"
)

// rots are what happens to files.
var rots = []func(r *rand.Rand, b []byte) []byte{
	func(r *rand.Rand, b []byte) []byte { b[r.IntN(len(b))] ^= 1 << r.IntN(8); return b },
	func(r *rand.Rand, b []byte) []byte { b[r.IntN(len(b))] ^= byte(1 + r.IntN(255)); return b },
	func(r *rand.Rand, b []byte) []byte { return noise(r, b, 512) },
	func(r *rand.Rand, b []byte) []byte { return noise(r, b, 4096) },
	func(r *rand.Rand, b []byte) []byte { return b[:r.IntN(len(b))] },
	func(r *rand.Rand, b []byte) []byte { clear(b[r.IntN(len(b)):]); return b },
	func(*rand.Rand, []byte) []byte { return nil },
	func(r *rand.Rand, b []byte) []byte { return append(b, make([]byte, 1+r.IntN(5000))...) },
	func(r *rand.Rand, b []byte) []byte { return append(b, b[:r.IntN(len(b))]...) },
}

// noise overwrites a sector.
func noise(r *rand.Rand, b []byte, n int) []byte {
	at := r.IntN(len(b)) / n * n
	for i := at; i < min(at+n, len(b)); i++ {
		b[i] = byte(r.Uint32())
	}
	return b
}

// A rotten is a store whose files rot while it runs and between two runs.
type rotten struct {
	t     *testing.T
	r     *rand.Rand
	dir   string
	s     *Store
	blobs []sample
	part  sample

	silent, wrong int // changes that neither size nor time shows, and how often they were served
}

const rotTag = "rot"

// fileAt is a file that the store may read: of a blob, a meta, a tag, a part, a
// note.
func (x *rotten) fileAt() string {
	b := x.blobs[x.r.IntN(len(x.blobs))].path(x.dir)
	switch x.r.IntN(8) {
	case 0:
		tags, _ := filepath.Glob(x.dir + "/tags/*/*/*")
		tags = append(tags, filepath.Join(x.dir, placesKey))
		return tags[x.r.IntN(len(tags))]
	case 1, 2:
		parts, _ := filepath.Glob(x.dir + "/tmp/*")
		if len(parts) > 0 {
			return parts[x.r.IntN(len(parts))]
		}
		return b
	case 3, 4:
		return b + ".meta"
	}
	return b
}

// trial lets a file rot, and then asks for everything.
func (x *rotten) trial() {
	closed := x.r.IntN(4) == 0
	if closed {
		x.stop()
	}
	file := x.fileAt()
	was, err := os.Stat(file)
	if err == nil && x.r.IntN(10) == 0 { // swapped with another
		err = swapFiles(x.dir, file, x.fileAt())
	} else if err == nil {
		err = x.rot(file, was)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		x.t.Fatal(err)
	}
	if closed {
		x.s = Open(x.dir, Options{Memory: 1})
	}
	x.ask()
}

// rot damages a file. Now and then neither size nor time shows it.
func (x *rotten) rot(file string, was os.FileInfo) error {
	raw, err := os.ReadFile(file)
	if err != nil || len(raw) == 0 {
		return err
	}
	bad := rots[x.r.IntN(len(rots))](x.r, bytes.Clone(raw))
	if bytes.Equal(bad, raw) {
		return nil
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(bad, 0)
	err = errors.Join(err, f.Truncate(int64(len(bad))), f.Close())
	if x.r.IntN(5) == 0 && err == nil {
		if len(bad) == len(raw) {
			x.silent++
		}
		err = os.Chtimes(file, time.Time{}, was.ModTime())
	}
	return err
}

// swapFiles gives each of two files the other's name.
func swapFiles(dir, a, b string) error {
	if a == b {
		return nil
	}
	return firstOf(os.Rename(a, dir+"/swap"), os.Rename(b, a), os.Rename(dir+"/swap", b))
}

// ask asks for the blobs, the tag and the part, and brings in again what is gone.
func (x *rotten) ask() {
	for _, b := range x.blobs {
		got, err := read(x.t, x.s, b)
		switch {
		case err == nil && same(got, b.content) != nil:
			x.served(b)
		case err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrDamaged):
			x.t.Fatal(err)
		case err != nil:
			if err := x.s.Listed(x.t.Context()); err != nil { // this takes long on a slow machine
				x.t.Fatal(err)
			}
			keep(x.t, x.s, b)
			want(x.t, x.s, b)
		}
	}
	if tag, ok := x.s.Tag(rotTag); !ok || tag.Digest != x.part.digest {
		if ok {
			x.t.Fatalf("the tag means %s", tag.Digest)
		}
		x.s.SetTag(Tag{Key: rotTag, Digest: x.part.digest})
	}
	x.goOn()
}

// served is called for wrong bytes. Only a silent change may be served, and only
// until the interval of Options.Verify is over.
func (x *rotten) served(b sample) {
	x.wrong++
	n, err := nameOf(b.digest)
	if err != nil {
		x.t.Fatal(err)
	}
	i := x.s.shard.index
	i.mu.Lock()
	slot := i.table.slots[n.key.prefix()]
	_, trusted := i.table.checks[slot]
	delete(i.table.checks, slot)
	i.mu.Unlock()
	if !trusted {
		x.t.Fatalf("wrong bytes of %s that had not been checked", b.digest)
	}
	if got, err := read(x.t, x.s, b); err == nil && same(got, b.content) != nil {
		x.t.Fatalf("wrong bytes of %s after the interval", b.digest)
	}
	if _, ok := x.s.Stat(b.digest); !ok {
		keep(x.t, x.s, b)
	}
	want(x.t, x.s, b)
}

// goOn takes the part up, brings in the rest to see that it is right, and leaves a
// new part.
func (x *rotten) goOn() {
	if x.r.IntN(10) > 0 {
		return
	}
	in := begin(x.t, x.s, x.part)
	in.Resume()
	in.SetSize(int64(len(x.part.content)))
	if _, err := in.Write(x.part.content[in.Offset():]); err != nil {
		x.t.Fatal(err)
	}
	if err := in.Commit(); err != nil {
		x.t.Fatal("a part was not what it was:", err)
	}
	want(x.t, x.s, x.part)
	n, err := nameOf(x.part.digest)
	if err != nil {
		x.t.Fatal(err)
	}
	i, _, _, ok := x.s.shard.index.acquire(n)
	if !ok {
		x.t.Fatal("not kept")
	}
	x.s.shard.remover.expel(&x.s.shard.dir.inUse().root, i)
	x.s.shard.remover.leave(i, n.path())
	breakOff(x.t, x.s, x.part, partMin+x.r.IntN(1000))
}

// stop ends the store.
func (x *rotten) stop() {
	if err := x.s.Close(); err != nil {
		x.t.Fatal(err)
	}
}

// Files rot in every way; with LONG_TESTS=1 100,000 times. No wrong byte is served
// but for silent changes within the interval, as documented.
func TestRotIsNeverServedAndHeals(t *testing.T) {
	t.Parallel()
	const workers = 4
	var trials, silent, wrong atomic.Int64
	t.Cleanup(func() {
		t.Logf("%d trials; rot that nothing shows: %d, served within the interval: %d", trials.Load(), silent.Load(), wrong.Load())
	})
	for w := range workers {
		t.Run(strconv.Itoa(w), func(t *testing.T) {
			t.Parallel()
			x := &rotten{
				t: t, r: rand.New(rand.NewPCG(uint64(w), 7)), dir: t.TempDir(), part: newSample(610, partMin+5000),
				blobs: []sample{newSample(601, 900), newSample(602, smallSize+5), newSample(603, chunkSize+100)},
			}
			x.s = Open(x.dir, Options{Memory: 1})
			defer func() { _ = x.s.Close() }()
			x.ask()
			breakOff(t, x.s, x.part, partMin+100)
			for range testkit.Times(2000, 100_000) / workers {
				x.trial()
				trials.Add(1)
			}
			silent.Add(int64(x.silent))
			wrong.Add(int64(x.wrong))
		})
	}
}
