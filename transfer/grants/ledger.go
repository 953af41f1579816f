package grants

import (
	"crypto/sha256"
	"sync"
	"time"

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
	blind  int64           // when notes could not be read: any registry may be private; 0: never
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

// apply makes a change, and has it written down if it changed anything. The caller
// holds mu.
func (l *ledger) apply(name string, r record) bool {
	changed := l.book(name).apply(r)
	if changed {
		l.written(name, r)
	}
	return changed
}

// vouch notes that ref's registry, which is private, vouched for it then. The word
// of a registry that nobody configured is noted only if a member marked it. A time
// to come is that of a clock that was set back: it can't be compared with what was
// taken back.
func (l *ledger) vouch(ref oci.Ref, as oci.Resource, then time.Time, stranger bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if stranger && !l.marks[ref.Registry] || then.UnixNano() <= l.blind || then.After(time.Now()) {
		return
	}
	l.mark(ref.Registry, stranger)
	l.apply(ref.Registry, record{kind: vouched, repo: repoKey(ref), key: contentKey(ref, as), at: then.UnixNano()})
}

// lose notes that ref's registry does not have it, and reports whether it had
// vouched for it.
func (l *ledger) lose(ref oci.Ref, as oci.Resource) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := record{kind: lost, repo: repoKey(ref), key: contentKey(ref, as), at: time.Now().UnixNano()}
	b := l.books[ref.Registry]
	return b != nil && b.vouchedAt(r.repo, r.key) != 0 && l.apply(ref.Registry, r)
}

// refuse notes that ref's registry refused the repository, and reports whether it
// had ever vouched for anything there. Nothing is noted of others: strangers may
// name any number of them.
func (l *ledger) refuse(ref oci.Ref) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.books[ref.Registry] != nil && l.apply(ref.Registry, record{kind: refused, repo: repoKey(ref), at: time.Now().UnixNano()})
}

// deliver notes that ref's registry delivered the bytes of ref's digest.
func (l *ledger) deliver(ref oci.Ref, stranger bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.apply(bookOf(ref, stranger), record{kind: delivered, key: deliveredKey(ref), at: time.Now().UnixNano()})
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
	if at := b.vouchedAt(repoKey(ref), contentKey(ref, as)); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

// stands reports whether what ref's registry said then still counts, of ref's tag or, as
// that resource, of a list: it has taken back neither that nor, since then, the
// repository.
func (l *ledger) stands(ref oci.Ref, as oci.Resource, then time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, repo := l.books[ref.Registry], repoKey(ref)
	return b != nil && b.vouchedAt(repo, contentKey(ref, as)) != 0 && max(b.refusedAt(repo), l.blind) < then.UnixNano()
}

// markPrivate notes that the registry is private.
func (l *ledger) markPrivate(registry string, stranger bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mark(registry, stranger)
}

// mark is markPrivate for a caller that holds mu.
func (l *ledger) mark(registry string, stranger bool) {
	if l.marks[registry] || stranger && len(l.marks) >= maxMarked {
		return
	}
	l.marks[registry] = true
	l.written(registry, record{kind: wasPrivate, at: time.Now().UnixNano()})
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
	return (l.marks[registry] || l.blind != 0) && !l.public[registry]
}

// goBlind says that some notes can't be read. As nobody knows which registries they
// are about, every one counts as private, unless the operator says otherwise, and no
// earlier word counts that is not noted yet: it may have been taken back.
func (l *ledger) goBlind() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blind = time.Now().UnixNano()
}

// read takes over what was written about a registry. A record that can't be read
// may have marked it as private. What is known to be private stays so.
func (l *ledger) read(name string, records []record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	private := false
	for _, r := range records {
		switch r.kind {
		case wasPrivate:
			private = true
		case wasPublic:
			private = false
		case damaged:
			private, r.at = name != strangers, time.Now().UnixNano()
			l.book(name).apply(r)
		default:
			l.book(name).apply(r)
		}
	}
	if private {
		l.marks[name] = true
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

// size is about how many records a registry's file needs.
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

// contentKey is what a grant is found by, beside its repository: a digest, a tag or a list.
// The kind of content belongs to it: asking for a layer as a manifest changes nothing
// about the layer.
func contentKey(ref oci.Ref, as oci.Resource) key {
	switch {
	case as == oci.TagsResource:
		return keyOf("tags")
	case as == oci.ReferrersResource:
		return keyOf("referrers", ref.Digest.String())
	case ref.Digest == "":
		return keyOf("tag", ref.Tag)
	case as == oci.BlobResource:
		return keyOf("blob", ref.Digest.String())
	default:
		return keyOf("manifest", ref.Digest.String())
	}
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
