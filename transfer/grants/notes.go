package grants

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/wait"
)

// A kind says what a record is about.
type kind byte

// The kinds. Their numbers stand in files.
const (
	vouched    kind = 'v' // the registry vouched for a digest in a repository
	lost       kind = 'l' // it does not have the digest there any more
	refused    kind = 'r' // it refused a repository
	known      kind = 'k' // it vouched for something in a repository
	delivered  kind = 'd' // it delivered a digest that a private registry had brought
	floor      kind = 'f' // what it vouched for until then does not count
	wasPrivate kind = 'p' // it is private
	wasPublic  kind = 'o' // the operator says that it is public
	damaged    kind = 'x' // of the file: a record can't be read
)

// A record is one fact about a registry.
type record struct {
	kind      kind
	repo, key key
	at        int64 // unix nanoseconds
}

// A file of notes is a line that names the registry, and records of one size.
// They lie in the order in which they happened.
const (
	recordSize = 48
	heading    = "oci-proxy grants 1 "
	suffix     = ".grants"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode appends the record to b.
func (r record) encode(b []byte) []byte {
	n := len(b)
	b = append(b, byte(r.kind))
	b = append(b, r.repo[:]...)
	b = append(b, r.key[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.at))
	b = append(b, 0, 0, 0)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[n:], castagnoli))
}

// decode reads a record. One that is not what was written becomes damaged.
func decode(b []byte) record {
	if len(b) != recordSize || binary.BigEndian.Uint32(b[recordSize-4:]) != crc32.Checksum(b[:recordSize-4], castagnoli) {
		return record{kind: damaged}
	}
	r := record{kind: kind(b[0]), at: int64(binary.BigEndian.Uint64(b[33:]))}
	copy(r.repo[:], b[1:])
	copy(r.key[:], b[17:])
	return r
}

// decodeFile reads a file of notes. A record that can't be read may have taken back
// any grant, or have marked the registry as private (see ledger.read).
func decodeFile(content []byte) (registry string, records []record, ok bool) {
	line, rest, found := bytes.Cut(content, []byte{'\n'})
	registry, named := strings.CutPrefix(string(line), heading)
	if !found || !named {
		return "", nil, false
	}
	for chunk := range slices.Chunk(rest, recordSize) {
		records = append(records, decode(chunk))
	}
	return registry, records, true
}

// encodeFile writes a file of notes.
func encodeFile(registry string, records []record) []byte {
	b := append(make([]byte, 0, len(heading)+len(registry)+1+len(records)*recordSize), heading+registry+"\n"...)
	for _, r := range records {
		b = r.encode(b)
	}
	return b
}

// fileOf is the name of a registry's file.
func fileOf(registry string) string {
	k := keyOf("registry", registry)
	return hex.EncodeToString(k[:]) + suffix
}

const (
	// maxPending bounds what waits to be appended to one file, in bytes. Beyond it the
	// file is written anew.
	maxPending = 1 << 20
	// slack is by how many records a file may be longer than what is known before it is
	// written anew.
	slack = 8 << 10
	// maxFile bounds the records of a file. What is known of one registry always fits;
	// a Folder reads 16 MiB.
	maxFile = 300 << 10
	// writeAgain is how long a write waits that the disk refused.
	writeAgain = 5 * time.Second
)

// notes write the ledger down, and read it at the start. Changes are queued and
// written by a goroutine, so that nobody who asks or grants waits for the disk.
type notes struct {
	ledger *ledger
	log    *slog.Logger
	life   *wait.Life
	wake   chan struct{}

	mu       sync.Mutex    // guards the fields below; never held during I/O
	folder   *cache.Folder // nil: without a disk
	pending  map[string]*pending
	waiting  []chan struct{} // closed when what is pending now is written
	unlisted bool            // the folder could not be listed
	unread   map[string]bool // files that could not be read
}

// pending is what is to be written to one file.
type pending struct {
	lines []byte
	anew  bool // the whole file
	size  int  // records in the file
}

// newNotes returns the notes of a ledger, which tells them of its changes.
func newNotes(l *ledger, log *slog.Logger) *notes {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	n := &notes{ledger: l, log: log, life: wait.NewLife(), wake: make(chan struct{}, 1), pending: map[string]*pending{}, unread: map[string]bool{}}
	l.written = n.add
	return n
}

// take reads what lies in the folder of a cache directory that is taken into use,
// and writes down there from now on. What is known already stays known.
func (n *notes) take(f *cache.Folder) {
	known := n.ledger.names()
	n.mu.Lock()
	n.unlisted, n.unread = false, map[string]bool{}
	n.mu.Unlock()
	old := n.read(f)
	n.mu.Lock()
	for _, name := range append(known, old...) {
		n.of(name).anew = true
	}
	if n.folder != nil { // what became known meanwhile lies in the directory before
		for _, p := range n.pending {
			p.anew = true
		}
	}
	n.folder = f
	n.mu.Unlock()
	n.signal()
}

// read reads the folder into the ledger. It returns the registries whose notes have
// to be written there anew.
func (n *notes) read(f *cache.Folder) (anew []string) {
	names, err := f.Names()
	if err != nil {
		n.hide("")
		n.log.Error("notes about private content not read: every registry is asked before its content is served", "error", err)
		return nil
	}
	var have []string
	for _, name := range names {
		if !strings.HasSuffix(name, suffix) {
			continue
		}
		switch registry, whole, err := n.readFile(f, name); {
		case err != nil:
			n.hide(name)
			n.log.Error("a note about private content not read: every registry is asked before its content is served", "file", name, "error", err)
		case !whole:
			n.log.Warn("a note about private content is damaged: its registry is asked again", "registry", registry)
			anew = append(anew, registry)
			fallthrough
		default:
			have = append(have, registry)
		}
	}
	if slices.Contains(names, oldRead) {
		return anew
	}
	return append(anew, readOld(f, n.ledger, n.log, have)...)
}

// hide notes that a file can't be read, "" for all.
func (n *notes) hide(file string) {
	n.ledger.goBlind()
	n.mu.Lock()
	defer n.mu.Unlock()
	if file == "" {
		n.unlisted = true
		return
	}
	n.unread[file] = true
}

// show reads a registry's file again before it is written over, if it could not be
// read before. What that vouches for counts no more: it may have been taken back
// since. If the file still can't be read, the registry counts as private from now
// on, because the file may say so.
func (n *notes) show(f *cache.Folder, registry string) {
	file := fileOf(registry)
	n.mu.Lock()
	hidden := n.unlisted || n.unread[file]
	delete(n.unread, file)
	n.mu.Unlock()
	if !hidden {
		return
	}
	_, records, err := load(f, file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		records = []record{{kind: damaged}}
	}
	n.ledger.read(registry, slices.DeleteFunc(records, func(r record) bool { return r.kind == vouched }))
}

// errHeading: a file of notes names no registry, or another than its name does.
var errHeading = errors.New("the file does not begin with the name of its registry")

// load reads the file of that name.
func load(f *cache.Folder, name string) (registry string, records []record, err error) {
	content, err := f.Read(name)
	if err != nil {
		return "", nil, err
	}
	registry, records, ok := decodeFile(content)
	if !ok || fileOf(registry) != name {
		return "", nil, errHeading
	}
	return registry, records, nil
}

// readFile reads a registry's file into the ledger. whole is false if a part of it
// can't be read.
func (n *notes) readFile(f *cache.Folder, name string) (registry string, whole bool, err error) {
	registry, records, err := load(f, name)
	if err != nil {
		return "", false, err
	}
	n.ledger.read(registry, records)
	n.setSize(registry, len(records))
	return registry, !slices.ContainsFunc(records, func(r record) bool { return r.kind == damaged }), nil
}

// of returns what is to be written to a registry's file. The caller holds mu.
func (n *notes) of(registry string) *pending {
	p := n.pending[registry]
	if p == nil {
		p = &pending{}
		n.pending[registry] = p
	}
	return p
}

// add queues a record. The ledger calls it under its lock.
func (n *notes) add(registry string, r record) {
	n.mu.Lock()
	defer n.mu.Unlock()
	defer n.signal()
	p := n.of(registry)
	switch {
	case p.anew:
	case len(p.lines) >= maxPending || n.folder == nil:
		p.lines, p.anew = nil, true
	default:
		p.lines = r.encode(p.lines)
	}
}

// signal wakes the writer.
func (n *notes) signal() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// start begins to write.
func (n *notes) start() {
	n.life.Go(func() {
		ctx, again := n.life.Context(), time.Duration(0)
		for wait.Until(ctx, n.wake, again) == nil {
			again = 0
			if !n.write() {
				again = writeAgain
			}
		}
	})
}

// close writes what is left and ends the writer.
func (n *notes) close() {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	n.life.Close(now)
	n.write()
}

// sync waits until all that was noted before is written, for d at most.
func (n *notes) sync(d time.Duration) {
	done := make(chan struct{})
	n.mu.Lock()
	n.waiting = append(n.waiting, done)
	n.mu.Unlock()
	n.signal()
	_ = wait.Until(n.life.Context(), done, d) // it counts in any case
}

// write writes all that is pending, and reports false if the disk refused some. One
// goroutine at a time calls it: the writer, and after its end close.
func (n *notes) write() (done bool) {
	n.mu.Lock()
	folder, waiting := n.folder, n.waiting
	n.waiting = nil
	batch := map[string]pending{}
	for name, p := range n.pending {
		if folder != nil && (p.anew || len(p.lines) > 0) {
			batch[name] = *p
			p.lines, p.anew = nil, false
		}
	}
	n.mu.Unlock()
	done = true
	for name, p := range batch {
		if err := n.writeFile(folder, name, p); err != nil {
			done = false
			n.log.Debug("note about private content not written", "registry", name, "error", err)
			n.mu.Lock()
			n.of(name).anew = true
			n.mu.Unlock()
		}
	}
	for _, written := range waiting {
		close(written)
	}
	return done
}

// writeFile appends to a registry's file, or writes it anew.
func (n *notes) writeFile(folder *cache.Folder, name string, p pending) error {
	size := p.size + len(p.lines)/recordSize
	if p.size > 0 && !p.anew && size <= min(2*n.ledger.size(name)+slack, maxFile) {
		n.setSize(name, size)
		return folder.Append(fileOf(name), p.lines)
	}
	n.show(folder, name)
	records := n.ledger.records(name)
	n.setSize(name, len(records))
	return folder.Write(fileOf(name), encodeFile(name, records))
}

// setSize notes how many records a file has.
func (n *notes) setSize(name string, size int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.of(name).size = size
}
