package pages

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"math"
	"regexp"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"oci-proxy/transfer/oci"
)

const (
	// block is what a file takes on disk at least, and in what steps, in bytes.
	block = 4 << 10
	// maxNos bounds the answers of one book that are no pages: anybody can ask for tags
	// that are not there.
	maxNos = 1024
	// strangersPart is which part of the bound all registries together may use that
	// nobody configured.
	strangersPart = 4
	// strangersBook is their book.
	strangersBook = "0000000000000000"
	// maxEntries bounds the entries.
	maxEntries = 16 << 10
)

// An entry is a file of the shelf.
type entry struct {
	name, book, key string
	size            int64 // on disk
	isNo            bool
	sum             string    // of what the file says, "" if that is not known
	noted           time.Time // when the registry said so, as the file has it
	readers         int       // of the file; the index guards it
	out             bool      // it is not in the index any more
	writing         bool      // its file is not there yet, so nobody may look for it; the index guards it
}

// newEntry returns the entry of a new file. Each file has a name of its own, so that
// whoever reads or removes one never meets the next.
func newEntry(q oci.Question, stranger, isNo bool) *entry {
	e := &entry{book: strangersBook, key: keyOf(q), isNo: isNo}
	if !stranger {
		sum := sha256.Sum256([]byte(q.Registry))
		e.book = hex.EncodeToString(sum[:8])
	}
	kind := "page"
	if isNo {
		kind = "no"
	}
	var own [4]byte
	_, _ = rand.Read(own[:]) // never fails
	e.name = e.book + "." + e.key + "." + hex.EncodeToString(own[:]) + "." + kind
	return e
}

// names matches the names that newEntry makes.
var names = regexp.MustCompile(`^([0-9a-f]{16})\.([0-9a-f]{32})\.[0-9a-f]{8}\.(page|no)$`)

// parseName returns the entry of a file that is found on disk.
func parseName(name string) (*entry, bool) {
	m := names.FindStringSubmatch(name)
	if m == nil {
		return nil, false
	}
	return &entry{name: name, book: m[1], key: m[2], isNo: m[3] == "no"}, true
}

// A book is the files of one registry, or of all that nobody configured, those first
// that were written the longest ago.
type book struct {
	pages, nos *simplelru.LRU[string, *entry]
	bytes      int64 // with those that are out and still being read
}

// An index knows what lies on the shelf. When there is no room, the book that takes the
// most gives up its oldest pages. So a registry can push out of others' only what is
// more than an equal share.
type index struct {
	bound int64

	mu      sync.Mutex // guards the fields below and what entries say of them; never held during I/O
	books   map[string]*book
	entries map[string]*entry // by key
	used    int64
}

func newIndex(bound int64) *index {
	return &index{bound: bound, books: map[string]*book{}, entries: map[string]*entry{}}
}

// empty reports whether nothing is known.
func (x *index) empty() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.entries) == 0
}

// get returns what is known of a key, a copy, or nil.
func (x *index) get(key string) *entry {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.entries[key]
	if e == nil || e.writing {
		return nil
	}
	own := *e
	return &own
}

// written says that the file of an entry is there.
func (x *index) written(e *entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e.writing = false
}

// usedBytes returns how many bytes are in use.
func (x *index) usedBytes() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.used
}

// put adds an entry in place of the one of its key, old. out are those that make room.
// Nothing changes unless ok. The caller removes the files.
func (x *index) put(e *entry) (old *entry, out []*entry, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	b := x.bookOf(e.book)
	if out, ok = x.makeRoom(e); !ok {
		x.tidy(e.book)
		return nil, out, false
	}
	if old = x.entries[e.key]; old != nil {
		x.take(old)
	}
	x.books[e.book] = b // take may have ended it
	x.add(e)
	if b.nos.Len() > min(maxNos, max(1, int(x.bound/strangersPart/block))) {
		_, eldest, _ := b.nos.GetOldest()
		x.take(eldest)
		out = append(out, eldest)
	}
	return old, out, true
}

// undo takes an entry back whose file could not be written, and puts the one before
// back unless there is a newer one. It returns what has no place any more.
func (x *index) undo(e, old *entry) (gone *entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.entries[e.key] != e {
		return old
	}
	x.take(e)
	if old != nil {
		if old.readers > 0 { // its bytes still count
			x.books[old.book].bytes -= old.size
			x.used -= old.size
		}
		old.out = false
		x.add(old)
	}
	return nil
}

// drop takes a key's entry out if it has that name, "" for any.
func (x *index) drop(key, name string) *entry {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.entries[key]
	if e == nil || name != "" && e.name != name {
		return nil
	}
	x.take(e)
	return e
}

// read notes that a key's file of that name is being read, and returns what ends that.
// Until then its bytes count, and it makes no room for others.
func (x *index) read(key, name string) (leave func()) {
	x.mu.Lock()
	e := x.entries[key]
	x.mu.Unlock()
	if e == nil || e.name != name {
		return func() {}
	}
	return x.readOf(e)
}

// readOf is read for an entry, which may be out by now.
func (x *index) readOf(e *entry) (leave func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e.out && e.readers == 0 {
		x.bookOf(e.book).bytes += e.size
		x.used += e.size
	}
	e.readers++
	return func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		if e.readers--; e.readers == 0 && e.out {
			x.forget(e)
		}
	}
}

// weight is how many bytes a file of that size counts for: what it takes on disk, and
// so much at least that there are never too many files.
func (x *index) weight(size int64) int64 {
	return max((size+block-1)/block*block, block, x.bound/maxEntries)
}

// The caller of the methods below holds mu.

// bookOf returns a book.
func (x *index) bookOf(name string) *book {
	b := x.books[name]
	if b == nil {
		b = &book{}
		b.pages, _ = simplelru.NewLRU[string, *entry](math.MaxInt, nil) // the sizes are right; bytes bound them
		b.nos, _ = simplelru.NewLRU[string, *entry](math.MaxInt, nil)
		x.books[name] = b
	}
	return b
}

// list is the part of its book that an entry stands in.
func (b *book) list(e *entry) *simplelru.LRU[string, *entry] {
	if e.isNo {
		return b.nos
	}
	return b.pages
}

// add adds an entry.
func (x *index) add(e *entry) {
	b := x.bookOf(e.book)
	b.list(e).Add(e.key, e)
	x.entries[e.key] = e
	b.bytes += e.size
	x.used += e.size
}

// take takes an entry out. Its bytes count until nobody reads it.
func (x *index) take(e *entry) {
	x.bookOf(e.book).list(e).Remove(e.key)
	delete(x.entries, e.key)
	e.out = true
	if e.readers == 0 {
		x.forget(e)
	}
}

// forget no longer counts an entry that is out.
func (x *index) forget(e *entry) {
	x.bookOf(e.book).bytes -= e.size
	x.used -= e.size
	x.tidy(e.book)
}

// tidy ends a book that has nothing in it.
func (x *index) tidy(name string) {
	if b := x.books[name]; b != nil && b.bytes == 0 && b.pages.Len() == 0 && b.nos.Len() == 0 {
		delete(x.books, name)
	}
}

// makeRoom takes out what has to go for e to fit.
func (x *index) makeRoom(e *entry) (out []*entry, ok bool) {
	mine := x.bookOf(e.book)
	for {
		need := e.size
		if old := x.entries[e.key]; old != nil && old.readers == 0 {
			need -= old.size
		}
		from := mine
		switch {
		case e.book == strangersBook && mine.bytes+need > x.bound/strangersPart:
		case x.used+need <= x.bound:
			return out, true
		default:
			from = x.largest(mine, need)
		}
		eldest := from.eldest(e.key)
		if eldest == nil {
			return out, false
		}
		x.take(eldest)
		x.books[e.book] = mine
		out = append(out, eldest)
	}
}

// largest returns the book that takes the most, if one more of mine's comes.
func (x *index) largest(mine *book, need int64) *book {
	from, bytes := mine, mine.bytes+need
	for _, b := range x.books {
		if b.bytes > bytes {
			from, bytes = b, b.bytes
		}
	}
	return from
}

// eldest returns the entry that goes first: a page, or if there is none an answer that is
// no page. What is being read stays, since that would make no room, and so does what is
// about to be replaced.
func (b *book) eldest(except string) *entry {
	for _, in := range []*simplelru.LRU[string, *entry]{b.pages, b.nos} {
		if _, e, ok := in.GetOldest(); ok && e.readers == 0 && e.key != except {
			return e
		}
		for _, e := range in.Values() {
			if e.readers == 0 && e.key != except {
				return e
			}
		}
	}
	return nil
}
