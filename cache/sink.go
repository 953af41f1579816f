package cache

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"slices"
)

// growth is the step in which room is reserved for a blob of unknown size.
const growth = 4 << 20

// leadSize is how many bytes, at most, readers get of a large blob before room is set aside for it: more than
// net/http keeps in its buffers, so that they leave at once. All that follows leaves by sendfile.
const leadSize = 16 << 10

// A sink is the side of an ingest that its writer has: where the bytes go, to a
// file in tmp and then to the shard, or past the disk to the followers. Only the
// writer uses it, so it has no lock. It tells the stream what readers have to know.
type sink struct {
	*shard
	label
	ctx     context.Context
	readers *stream
	replica bool // another node's to keep, or nobody asked for it
	unasked bool // with replica: nobody asked for it
	own     bool // with replica: it is this node's to keep
	doubted bool // its size may be made up

	content digester
	noted   []byte // the outline of what came; nil: none
	size    int64  // -1: not known
	written int64
	gathers bool // it is small: its bytes are in memory until they are right
	passing bool // no bytes go to the file any more
	ended   bool
	stored  bool
	slot    int32 // the blob's slot in the index, where it is pinned

	disk     *disk
	file     *file
	tmp      string
	reserved int64
	aside    int64 // bytes to be set aside for the file once readers have the first ones; 0: none
	progress progress
}

// A progress is what an ingest knows of its note and of the part that it took up.
type progress struct {
	size  int64  // of the blob, as the part that was taken up has it; 0: there was no part
	note  string // the note's file; "": there is none
	next  int64  // the number of bytes at which the next note is due
	ended bool   // the ingest ended and left a part
}

// agrees reports whether a blob of n bytes, -1 if that is not known, can go on
// where the part that was taken up ends.
func (p *progress) agrees(n int64) bool { return p.size == 0 || n < 0 || n == p.size }

func newSink(ctx context.Context, s *shard, l label, readers *stream) *sink {
	return &sink{shard: s, label: l, ctx: ctx, readers: readers, content: newDigester(l.digest), size: -1, slot: none}
}

// begin makes room for a blob of n bytes, -1 if that is not known. It returns the
// size; if n is not known that is the size in the part that was taken up.
func (k *sink) begin(n int64) int64 {
	if n < 0 && k.progress.size > 0 {
		n = k.progress.size
	}
	k.gathers = n >= 0 && n <= smallSize && k.file == nil
	k.openFile(max(n, 0))
	k.size, k.content.size = n, n
	return n
}

// openFile reserves n bytes and creates the file, if one is needed by now. If it can't, the
// ingest passes through memory.
func (k *sink) openFile(n int64) {
	d := k.dir.inUse()
	if d == nil {
		k.pass(nil)
		return
	}
	if k.file != nil {
		d = k.disk
	}
	if k.doubted {
		if !k.allocator.holds(k.registry, n) || k.replica && !k.allocator.hasRoomBeside(k.registry, n-k.reserved) {
			k.pass(nil)
			return
		}
		n = min(n, k.reserved+growth)
	}
	if err := k.makeRoom(d, n-k.reserved); err != nil {
		k.pass(nil) // a store that is too small or too busy is healthy
		return
	}
	k.disk, k.reserved = d, n
	if k.gathers {
		k.readers.gather(nil)
		return
	}
	k.progress.next = k.written + partStep
	err := retryFull(k, d, n-k.written, func() error { return k.create(n) })
	if err != nil {
		k.pass(err)
	}
}

// makeRoom makes room for n more bytes.
func (k *sink) makeRoom(d *disk, n int64) error {
	if k.replica {
		return k.allocator.makeRoomBeside(d, k.registry, n)
	}
	return k.allocator.makeRoom(d, k.registry, n)
}

// retryFull does something with the disk, and does it again once room is made if the disk is
// full. What nobody asked for makes no room.
func retryFull(k *sink, d *disk, n int64, do func() error) error {
	if !k.unasked {
		return k.allocator.retryFull(d, k.registry, n, do)
	}
	if err := do(); !full(err) {
		return err
	}
	return errNoRoom
}

// create creates the file, if it is not there, and sets n bytes aside for it. Where files are in
// memory that takes as long as writing them, so readers who wait for a large blob get its first
// bytes before, unless the disk is full by what it says.
func (k *sink) create(n int64) error {
	if k.file == nil {
		f, tmp, err := k.disk.temp()
		if err != nil {
			return err
		}
		k.file, k.tmp = f, tmp
		k.readers.readFrom(k.source(), 0)
	}
	if n == 0 {
		return nil
	}
	if n > growth && k.readers.awaited() {
		if free, err := k.disk.free(); err == nil && free >= n {
			k.aside = n
			return nil
		}
	}
	return k.file.allocate(n)
}

// lead hands the first bytes of p to the readers, sets room aside for the whole blob, and then
// writes those bytes. It returns how many they are. On a full disk room is made as if nothing had
// come yet: for all of the blob or for nothing, and then the blob passes through memory.
func lead(k *sink, p []byte) int {
	n, from := k.aside, k.written
	k.aside = 0
	var first []byte
	if from == 0 { // else they have the bytes that were taken up
		first = p[:min(len(p), leadSize)]
		k.readers.lead(bytes.Clone(first))
		k.take(first)
		runtime.Gosched() // where there is one processor, they would wait for it
	}
	if err := retryFull(k, k.disk, n-from, func() error { return k.file.allocate(n) }); err != nil {
		k.pass(err)
	} else {
		k.toFile(first, from)
	}
	return len(first)
}

// source returns the file in which followers find the bytes.
func (k *sink) source() *source { return &source{k.file, []string{k.tmp, k.name.path()}} }

// pass goes on without the disk. err is the disk's error, if there was one.
func (k *sink) pass(err error) {
	if err != nil && !errors.Is(err, errNoRoom) {
		k.dir.note(err)
		k.log.Warn("disk failed: blob is served without being cached", "digest", k.digest.String(), "error", err)
	}
	k.passing, k.gathers = true, false
	k.readers.pass()
	if k.reserved <= k.written {
		return
	}
	if k.file != nil && k.file.truncate(k.written) != nil {
		return // the file may still hold the room set aside, so it goes on counting
	}
	k.allocator.release(k.registry, k.reserved-k.written)
	k.reserved = k.written
}

// write takes the next bytes, and returns how many it took. Followers can read a block
// while the next waits for place in the window.
func (k *sink) write(p []byte) (n int, err error) {
	if k.aside > 0 && !k.passing {
		n = lead(k, p)
		p = p[n:]
	}
	if !k.passing && !k.gathers {
		k.toFile(p, k.written)
	}
	if !k.passing {
		k.take(p)
		return n + len(p), nil
	}
	for q := range slices.Chunk(p, blockSize) {
		if err := k.readers.toWindow(q); err != nil {
			return n, err
		}
		k.take(q)
		n += len(q)
	}
	return n, nil
}

// take counts bytes that are where followers find them.
func (k *sink) take(p []byte) {
	k.content.write(p)
	k.written += int64(len(p))
	if k.gathers {
		k.readers.gather(k.content.small)
	}
	k.readers.came(len(p))
	if k.written >= k.progress.next && k.resumable() {
		if err := k.note(); err != nil {
			k.log.Debug("progress of a blob not noted", "digest", k.digest.String(), "error", err)
		}
	}
}

// toFile writes p to the file at off. If it can't, it switches to passing.
func (k *sink) toFile(p []byte, off int64) {
	if missing := off + int64(len(p)) - k.reserved; missing > 0 && !k.grow(missing) {
		k.pass(nil)
		return
	}
	if !k.dir.uses(k.disk) { // the directory was lost, and the file with it
		k.pass(nil)
		return
	}
	err := retryFull(k, k.disk, int64(len(p)), func() error { return k.file.write(p, off) })
	if err != nil {
		k.pass(err)
	}
}

// grow reserves more, at least n bytes, for a blob of unknown size.
func (k *sink) grow(n int64) bool {
	step := max(n, growth)
	err := k.makeRoom(k.disk, step)
	if err != nil && step > n {
		step = n
		err = k.makeRoom(k.disk, step)
	}
	if err != nil {
		return false
	}
	k.reserved += step
	return true
}

// end ends the writing. A file that is neither in the shard nor a part loses its
// name. end returns what has to be given back once nobody reads it any more.
func (k *sink) end() *remains {
	k.ended = true
	r := &remains{shard: k.shard, disk: k.disk, file: k.file, registry: k.registry, reserved: k.reserved, slot: k.slot, path: k.name.path()}
	switch {
	case k.progress.ended:
		r.part = k.part()
	case k.tmp != "":
		k.dropNote()
		r.tmp = k.tmp
		r.removeTmp()
	}
	return r
}

// remains are what an ingest still has after its end: a file that followers read,
// and the room that it counts.
type remains struct {
	*shard
	disk     *disk
	file     *file
	tmp      string // its name, while it has one
	registry string
	reserved int64
	part     *part  // what it leaves for another ingest
	slot     int32  // the blob's slot in the index, where it is pinned
	path     string // of the blob in that slot
}

// removeTmp removes the file's name in tmp.
func (r *remains) removeTmp() {
	if r.tmp != "" && removedAnyhow(r.disk.remove(r.tmp)) {
		r.tmp = ""
	}
}

// giveBack closes the file and gives back its room.
func (r *remains) giveBack() {
	r.removeTmp()
	if r.file != nil {
		_ = r.file.close() // its bytes were verified before
	}
	switch {
	case r.part != nil && r.dir.uses(r.disk):
		r.parts.add(r.part)
	case r.tmp != "":
		r.strays.add(stray{r.disk, r.tmp, r.registry, r.reserved})
	case r.reserved > 0: // also that of a part in a lost directory
		r.allocator.release(r.registry, r.reserved)
	}
	if r.slot != none {
		r.remover.leave(r.slot, r.path)
	}
}
