package grants

import (
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

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

// A repo is a repository that the registry vouched for something in, since it last
// refused it. A refusal makes a new one.
type repo struct{ refused int64 }

// A grant is what the registry said about one digest or tag in a repository. It
// counts as long as that repo is the one that is remembered.
type grant struct {
	repo    *repo
	at      int64 // when the registry vouched for it, 0: it does not any more
	lost    int64 // when it said that it does not have it
	written int64 // the time that the file has
}

// newBook returns an empty one.
func newBook() *book {
	b := &book{}
	b.repos, _ = simplelru.NewLRU(maxRepos, func(_ key, r *repo) { b.floor = max(b.floor, r.refused) }) // the sizes are right
	b.grants, _ = simplelru.NewLRU[[2]key, grant](maxGrants, nil)
	b.delivered, _ = simplelru.NewLRU[key, int64](maxDelivered, nil)
	return b
}

// apply makes a change, and reports whether anything changed. Changes count in the
// order in which they are made; times only tell how old the word is that a change
// was made by.
func (b *book) apply(r record) bool {
	switch r.kind {
	case vouched:
		return b.vouch(r)
	case lost:
		of, remembered := b.repos.Peek(r.repo)
		if !remembered {
			return false
		}
		b.grants.Add([2]key{r.repo, r.key}, grant{repo: of, lost: r.at})
	case known:
		b.repoOf(r.repo)
	case refused:
		of, remembered := b.repos.Get(r.repo)
		if !remembered || r.at <= of.refused {
			return remembered
		}
		b.repos.Add(r.repo, &repo{refused: r.at})
	case delivered:
		if _, had := b.delivered.Get(r.key); had {
			return false
		}
		b.delivered.Add(r.key, r.at)
	case floor:
		b.floor = max(b.floor, r.at)
	case damaged: // nothing takes a delivery back
		b.grants.Purge()
		b.floor = max(b.floor, r.at)
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
		out = append(out, record{kind: known, repo: k})
		if of.refused != 0 {
			out = append(out, record{kind: refused, repo: k, at: of.refused})
		}
	}
	for _, k := range b.grants.Keys() {
		g, _ := b.grants.Peek(k)
		of, remembered := b.repos.Peek(k[0])
		switch {
		case !remembered || of != g.repo:
		case g.at != 0:
			out = append(out, record{kind: vouched, repo: k[0], key: k[1], at: g.at})
		default:
			out = append(out, record{kind: lost, repo: k[0], key: k[1], at: g.lost})
		}
	}
	for _, k := range b.delivered.Keys() {
		at, _ := b.delivered.Peek(k)
		out = append(out, record{kind: delivered, key: k, at: at})
	}
	return out
}
