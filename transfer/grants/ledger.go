package grants

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

// A key stands for a name. Nobody can make up two names with one key.
type key [16]byte

// keyOf returns the key of a name of that many words. No word holds a space.
func keyOf(words ...string) (k key) {
	h := sha256.New()
	for _, w := range words {
		h.Write([]byte(w))
		h.Write([]byte{' '})
	}
	copy(k[:], h.Sum(nil))
	return k
}

// strangers is the book of the registries that nobody configured.
const strangers = ""

// maxMarked bounds the registries that are marked as private. Beyond it no mark
// is made: an old one never goes for a new one, because names can be made up.
const maxMarked = 4096

// A ledger remembers what registries vouched for and took back, in memory, so that
// a question about a grant never waits for the disk. Each registry has a book of
// its own, with bounds of its own.
type ledger struct {
	written func(book string, r record) // told of each change, under mu: does no I/O

	mu     sync.Mutex // guards the fields below; never held during I/O
	books  map[string]*book
	public map[string]bool // registries that the operator says are public
	marks  map[string]bool // registries marked as private
	blind  bool            // some notes can't be read: any registry may be private
}

// newLedger returns an empty one.
func newLedger() *ledger {
	return &ledger{written: func(string, record) {}, books: map[string]*book{}, public: map[string]bool{}, marks: map[string]bool{}}
}

// book returns the book of that name. The caller holds mu. Names are those of
// private registries, which only operators and other members make private, and
// strangers.
func (l *ledger) book(name string) *book {
	b := l.books[name]
	if b == nil {
		b = newBook()
		l.books[name] = b
	}
	return b
}

// note applies a change and has it written down if it changed anything.
func (l *ledger) note(name string, r record) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.apply(name, r)
}

// apply is note for a caller that holds mu.
func (l *ledger) apply(name string, r record) bool {
	changed := l.book(name).apply(r)
	if changed {
		l.written(name, r)
	}
	return changed
}

// vouch notes that ref's registry, which is private, vouched for it then.
func (l *ledger) vouch(ref oci.Ref, as oci.Resource, then time.Time, stranger bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mark(ref.Registry, stranger) {
		l.apply(ref.Registry, record{kind: vouched, repo: repoKey(ref), key: contentKey(ref.Digest, as), at: then.UnixNano()})
	}
}

// lose notes that ref's registry does not have it, and reports whether it had
// vouched for it.
func (l *ledger) lose(ref oci.Ref, as oci.Resource) bool {
	return l.note(ref.Registry, record{kind: lost, repo: repoKey(ref), key: contentKey(ref.Digest, as), at: time.Now().UnixNano()})
}

// refuse notes that ref's registry refused the repository, and reports whether it
// had ever vouched for anything there.
func (l *ledger) refuse(ref oci.Ref) bool {
	return l.note(ref.Registry, record{kind: refused, repo: repoKey(ref), at: time.Now().UnixNano()})
}

// deliver notes that ref's registry delivered the bytes of ref's digest.
func (l *ledger) deliver(ref oci.Ref, stranger bool) {
	l.note(bookOf(ref, stranger), record{kind: delivered, key: deliveredKey(ref), at: time.Now().UnixNano()})
}

// delivered reports whether ref's registry delivered the bytes of ref's digest.
func (l *ledger) delivered(ref oci.Ref, stranger bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range []string{bookOf(ref, stranger), strangers} { // earlier versions had one book for all
		if b := l.books[name]; b != nil {
			if _, ok := b.delivered.Get(deliveredKey(ref)); ok {
				return true
			}
		}
	}
	return false
}

// vouchedAt returns when ref's registry last vouched for it, zero if it did not or
// took that back.
func (l *ledger) vouchedAt(ref oci.Ref, as oci.Resource) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.books[ref.Registry]
	if b == nil {
		return time.Time{}
	}
	if at := b.vouchedAt(repoKey(ref), contentKey(ref.Digest, as)); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

// refusedSince reports whether ref's registry refused the repository since then.
func (l *ledger) refusedSince(ref oci.Ref, then time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.books[ref.Registry]
	return b != nil && b.refusedAt(repoKey(ref)) >= then.UnixNano()
}

// markPrivate notes that the registry is private.
func (l *ledger) markPrivate(registry string, stranger bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mark(registry, stranger)
}

// mark is markPrivate for a caller that holds mu. It reports false if there is no
// room for a registry that nobody configured.
func (l *ledger) mark(registry string, stranger bool) bool {
	switch {
	case l.marks[registry]:
		return true
	case stranger && len(l.marks) >= maxMarked:
		return false
	}
	l.marks[registry] = true
	l.written(registry, record{kind: wasPrivate, at: time.Now().UnixNano()})
	return true
}

// markPublic notes that the operator says the registry is public.
func (l *ledger) markPublic(registry string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.public[registry] = true
	if l.marks[registry] {
		delete(l.marks, registry)
		l.written(registry, record{kind: wasPublic, at: time.Now().UnixNano()})
	}
}

// marked reports whether the registry was marked as private.
func (l *ledger) marked(registry string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return (l.marks[registry] || l.blind) && !l.public[registry]
}

// goBlind says that some notes can't be read. As nobody knows which registries they
// are about, every one counts as private, unless the operator says otherwise.
func (l *ledger) goBlind() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blind = true
}

// read takes over what was written about a registry.
func (l *ledger) read(name string, records []record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range records {
		switch r.kind {
		case wasPrivate:
			l.marks[name] = true
		case wasPublic:
			delete(l.marks, name)
		default:
			l.book(name).apply(r)
		}
	}
}

// records returns all that is known of a registry, for a file written anew.
func (l *ledger) records(name string) []record {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []record
	if l.marks[name] {
		out = append(out, record{kind: wasPrivate, at: time.Now().UnixNano()})
	}
	if b := l.books[name]; b != nil {
		out = append(out, b.records()...)
	}
	return out
}

// size is how many records a registry's file needs at least.
func (l *ledger) size(name string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.books[name]
	if b == nil {
		return 1
	}
	return b.repos.Len() + b.grants.Len() + b.delivered.Len()
}

// names returns the registries that anything is known of.
func (l *ledger) names() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for name := range l.books {
		out = append(out, name)
	}
	for name := range l.marks {
		if l.books[name] == nil {
			out = append(out, name)
		}
	}
	return out
}

func repoKey(ref oci.Ref) key { return keyOf("repository", ref.Repository) }

// contentKey is what a grant is found by, beside its repository. The kind of
// content belongs to it: asking for a layer as a manifest changes nothing about
// the layer.
func contentKey(d digest.Digest, as oci.Resource) key {
	if as == oci.BlobResource {
		return keyOf("blob", d.String())
	}
	return keyOf("manifest", d.String())
}

func deliveredKey(ref oci.Ref) key { return keyOf("delivered", ref.Registry, ref.Digest.String()) }

// bookOf is the book that a delivery is noted in. Registries that nobody
// configured share one: there may be any number of them.
func bookOf(ref oci.Ref, stranger bool) string {
	if stranger {
		return strangers
	}
	return ref.Registry
}

const (
	// maxGrants bounds the grants of one registry. The oldest goes: it costs a HEAD.
	maxGrants = 128 << 10
	// maxRepos bounds the repositories of one registry.
	maxRepos = 32 << 10
	// maxDelivered bounds the deliveries that are remembered in one book.
	maxDelivered = 32 << 10
)

// A book is what is remembered of one registry. Times are unix nanoseconds.
type book struct {
	floor     int64 // what was vouched for until then does not count
	repos     *simplelru.LRU[key, *repo]
	grants    *simplelru.LRU[[2]key, grant] // by repository and content
	delivered *simplelru.LRU[key, int64]
}

// A repo is a repository that the registry vouched for something in.
type repo struct{ refused int64 }

// A grant is what the registry said about one digest in a repository. It counts as
// long as its repository is remembered.
type grant struct {
	repo    *repo
	at      int64 // when the registry vouched for the digest, 0: it does not any more
	lost    int64 // when it said that it does not have the digest
	written int64 // the time that the file has
}

// newBook returns an empty one.
func newBook() *book {
	b := &book{}
	b.repos, _ = simplelru.NewLRU(maxRepos, func(_ key, r *repo) { b.floor = max(b.floor, r.refused) }) // the sizes are right
	b.clear()
	return b
}

// clear forgets what was vouched for and delivered.
func (b *book) clear() {
	b.grants, _ = simplelru.NewLRU[[2]key, grant](maxGrants, nil)
	b.delivered, _ = simplelru.NewLRU[key, int64](maxDelivered, nil)
}

// apply makes a change, and reports whether anything changed.
func (b *book) apply(r record) bool {
	switch r.kind {
	case vouched:
		return b.vouch(r)
	case lost:
		g, ok := b.grants.Peek([2]key{r.repo, r.key})
		if !ok || g.lost >= r.at {
			return false
		}
		b.grants.Add([2]key{r.repo, r.key}, grant{repo: g.repo, lost: r.at})
	case known:
		b.repoOf(r.repo)
	case refused:
		of, remembered := b.repos.Get(r.repo)
		if !remembered {
			return false
		}
		of.refused = max(of.refused, r.at)
	case delivered:
		if _, had := b.delivered.Get(r.key); had {
			return false
		}
		b.delivered.Add(r.key, r.at)
	case floor:
		b.floor = max(b.floor, r.at)
	case damaged:
		b.clear()
	}
	return true
}

// repoOf returns a repository, which is remembered from now on.
func (b *book) repoOf(k key) *repo {
	of, remembered := b.repos.Get(k)
	if !remembered {
		of = &repo{}
		b.repos.Add(k, of)
	}
	return of
}

// rewrite is for how long a grant that is given again is not written again: the
// file may say that it was given that much earlier.
const rewrite = time.Minute

// vouch notes a grant, unless a newer word is known. A time to come is that of a
// clock that was set back, and gives way.
func (b *book) vouch(r record) bool {
	if r.at <= b.floor {
		return false
	}
	of := b.repoOf(r.repo)
	place := [2]key{r.repo, r.key}
	old, had := b.grants.Get(place)
	if had && old.repo != of {
		old, had = grant{}, false
	}
	switch {
	case r.at <= of.refused, r.at <= old.lost:
		return false
	case old.at >= r.at && old.at <= time.Now().UnixNano():
		return false
	}
	next := grant{repo: of, at: r.at, written: r.at}
	changed := !had || old.at == 0 || old.at > r.at || r.at-old.written >= int64(rewrite)
	if !changed {
		next.written = old.written
	}
	b.grants.Add(place, next)
	return changed
}

// vouchedAt returns when the registry last vouched for the content, 0 if that does
// not count.
func (b *book) vouchedAt(repo, content key) int64 {
	g, ok := b.grants.Get([2]key{repo, content})
	if !ok {
		return 0
	}
	of, remembered := b.repos.Get(repo)
	if !remembered || of != g.repo || g.at <= of.refused || g.at <= b.floor {
		return 0
	}
	return g.at
}

// refusedAt returns when the registry last refused the repository, 0 for never.
func (b *book) refusedAt(repo key) int64 {
	if of, remembered := b.repos.Peek(repo); remembered {
		return max(of.refused, b.floor)
	}
	return b.floor
}

// records returns what is known, in an order in which it can be applied.
func (b *book) records() []record {
	out := []record{{kind: floor, at: b.floor}}
	for _, k := range b.repos.Keys() {
		of, _ := b.repos.Peek(k)
		out = append(out, record{kind: known, repo: k}, record{kind: refused, repo: k, at: of.refused})
	}
	for _, k := range b.grants.Keys() {
		g, _ := b.grants.Peek(k)
		of, remembered := b.repos.Peek(k[0])
		if !remembered || of != g.repo {
			continue
		}
		out = append(out, record{kind: vouched, repo: k[0], key: k[1], at: max(g.at, b.floor+1, of.refused+1)})
		if g.lost != 0 {
			out = append(out, record{kind: lost, repo: k[0], key: k[1], at: max(g.lost, b.floor+1, of.refused+1)})
		}
	}
	for _, k := range b.delivered.Keys() {
		at, _ := b.delivered.Peek(k)
		out = append(out, record{kind: delivered, key: k, at: at})
	}
	return out
}
