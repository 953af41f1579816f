package grants

import (
	"sync"
	"testing"
	"time"

	"oci-proxy/transfer/oci"
)

// These are the blobs that the rules are about.
var a, b, other = blob("team/app", "a"), blob("team/app", "b"), blob("team/other", "a")

// A rule says what counts after some events, and what does not.
type rule struct {
	do      func(l *ledger)
	counts  []oci.Ref
	revoked []oci.Ref
}

var rules = map[string]rule{
	"a grant is for one digest in one repository of one registry": {
		func(l *ledger) { l.vouches(time.Minute, a) },
		[]oci.Ref{a},
		[]oci.Ref{b, other, blobOf("other.example", "team/app", "a")},
	},
	"a refusal takes back the repository and nothing else": {
		func(l *ledger) { l.vouches(time.Minute, a, b, other); l.refuse(a) },
		[]oci.Ref{other},
		[]oci.Ref{a, b},
	},
	"a word from before the refusal comes late": {
		func(l *ledger) { l.vouches(time.Minute, a); l.refuse(a); l.vouches(30*time.Second, a, b) },
		nil,
		[]oci.Ref{a, b},
	},
	"a word from after the refusal counts": {
		func(l *ledger) { l.vouches(time.Minute, a, b); l.refuse(a); l.vouches(0, a) },
		[]oci.Ref{a},
		[]oci.Ref{b},
	},
	"a refusal after a clock that ran ahead": {
		func(l *ledger) {
			l.vouches(time.Minute, a)
			ahead := record{kind: vouched, repo: repoKey(a), key: contentKey(a, oci.BlobResource), at: time.Now().Add(time.Hour).UnixNano()}
			l.mu.Lock()
			l.apply(private, ahead)
			l.mu.Unlock()
			l.refuse(a)
		},
		nil,
		[]oci.Ref{a},
	},
	"a word of a time to come": {
		func(l *ledger) { l.vouches(time.Minute, b); l.refuse(b); l.vouches(-time.Hour, a, b) },
		nil,
		[]oci.Ref{a, b},
	},
	"a digest that is lost takes back that digest": {
		func(l *ledger) { l.vouches(time.Minute, a, b, other); l.lose(a, oci.BlobResource) },
		[]oci.Ref{b, other},
		[]oci.Ref{a},
	},
	"a word from before the loss comes late": {
		func(l *ledger) { l.vouches(time.Minute, a); l.lose(a, oci.BlobResource); l.vouches(30*time.Second, a) },
		nil,
		[]oci.Ref{a},
	},
	"a word from after the loss counts": {
		func(l *ledger) { l.vouches(time.Minute, a); l.lose(a, oci.BlobResource); l.vouches(0, a) },
		[]oci.Ref{a},
		nil,
	},
	"a layer asked for as a manifest changes nothing": {
		func(l *ledger) { l.vouches(time.Minute, a); l.lose(a, oci.ManifestResource) },
		[]oci.Ref{a},
		nil,
	},
	"a refusal of what was never vouched for takes back nothing": {
		func(l *ledger) { l.vouches(time.Minute, a); l.refuse(other); l.vouches(30*time.Second, other) },
		[]oci.Ref{a, other},
		nil,
	},
}

// Each rule is tried on a ledger in memory, on one that was read from a file written
// anew, and on one that was read from a file to which each change was appended.
func TestWhatCounts(t *testing.T) {
	t.Parallel()
	for name, tt := range rules {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, appended := newLedger(), []record(nil)
			l.written = func(_ string, r record) { appended = append(appended, r) }
			tt.do(l)
			later := newLedger()
			_, records, _ := decodeFile(encodeFile(private, appended))
			later.read(private, records)
			for how, l := range map[string]*ledger{"in memory": l, "written anew": rewritten(t, l, private), "appended": later} {
				t.Log(how)
				want(t, l, true, tt.counts...)
				want(t, l, false, tt.revoked...)
				if !l.marked(private) {
					t.Errorf("%s: the registry is not marked as private", how)
				}
			}
		})
	}
}

// A tag counts until the registry refuses the repository or says that it has no such
// tag, and only as long as the ledger knows that it did neither.
func TestWhetherATagStands(t *testing.T) {
	t.Parallel()
	tag := oci.Ref{Registry: private, Repository: "team/app", Tag: "v1"}
	then := time.Now().Add(-time.Minute)
	for name, tt := range map[string]struct {
		do   func(l *ledger)
		want bool
	}{
		"it was vouched for":         {func(*ledger) {}, true},
		"its repository was refused": {func(l *ledger) { l.refuse(tag) }, false},
		"it is gone":                 {func(l *ledger) { l.lose(tag, oci.ManifestResource) }, false},
		"another tag is gone": {func(l *ledger) {
			l.lose(oci.Ref{Registry: private, Repository: tag.Repository, Tag: "v2"}, oci.ManifestResource)
		}, true},
		"some notes can't be read":      {func(l *ledger) { l.goBlind() }, false},
		"the repository was forgotten":  {func(l *ledger) { l.books[private].repos.Remove(repoKey(tag)) }, false},
		"refused, and vouched for anew": {func(l *ledger) { l.refuse(tag); l.vouch(tag, oci.ManifestResource, time.Now(), false) }, false}, // a later answer about the tag does not confirm the earlier one
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLedger()
			l.vouch(tag, oci.ManifestResource, then, false)
			tt.do(l)
			if got := l.stands(tag, oci.ManifestResource, then); got != tt.want {
				t.Errorf("the tag stands: %v, want %v", got, tt.want)
			}
		})
	}
}

// Each book is bounded, and a registry fills only its own.
func TestBooksAreBounded(t *testing.T) {
	t.Parallel()
	l := newLedger()
	mine := blob("team/app", "mine")
	l.vouches(time.Minute, mine)
	l.deliver(mine, false)
	at := time.Now().Add(-time.Second)
	for _, name := range names("x", maxGrants+1) {
		l.vouch(blobOf("large.example", "one", name), oci.BlobResource, at, false)
	}
	for _, name := range names("x", maxDelivered+1) {
		l.deliver(blobOf("large.example", "", name), false)
		l.deliver(blobOf(name+".example", "", name), true)
	}
	large := l.books["large.example"]
	if g, d, s := large.grants.Len(), large.delivered.Len(), l.books[strangers].delivered.Len(); g != maxGrants || d != maxDelivered || s != maxDelivered {
		t.Errorf("%d grants, %d deliveries, %d of strangers", g, d, s)
	}
	want(t, l, true, mine, blobOf("large.example", "one", "x1"))
	want(t, l, false, blobOf("large.example", "one", "x0")) // the oldest
	for _, name := range names("repo", maxRepos+1) {
		l.vouch(blobOf("large.example", name, "x"), oci.BlobResource, at, false)
	}
	if n := large.repos.Len(); n != maxRepos {
		t.Errorf("%d repositories", n)
	}
	if !l.delivered(mine, false) {
		t.Error("another registry pushed out a delivery")
	}
	if n := len(l.books); n != 3 {
		t.Errorf("%d books: a stranger made one", n)
	}
	if n := len(l.records("large.example")); n > maxFile {
		t.Errorf("%d records for one file", n)
	}
}

// When a refused repository is forgotten, nothing counts any more that was vouched for
// before its refusal.
func TestAForgottenRefusalIsNotUndone(t *testing.T) {
	t.Parallel()
	l := newLedger()
	gone := blob("gone", "x")
	l.vouches(time.Minute, gone)
	l.refuse(gone)
	for _, name := range names("repo", maxRepos) {
		l.vouch(blob(name, "x"), oci.BlobResource, time.Now(), false)
	}
	if l.books[private].repos.Contains(repoKey(gone)) {
		t.Fatal("the repository is still remembered")
	}
	l.vouches(30*time.Second, gone) // an old word
	want(t, l, false, gone)
	want(t, rewritten(t, l, private), false, gone)
}

// Strangers may name any number of registries. The ledger remembers only those that a
// member marked, up to a bound.
func TestStrangersFillNothing(t *testing.T) {
	t.Parallel()
	l := newLedger()
	l.goBlind() // so that each of them counts as private
	for _, name := range names("stranger", 3*maxMarked) {
		ref := blobOf(name, "a", "a")
		l.vouch(ref, oci.BlobResource, time.Now(), true)
		l.refuse(ref)
		l.lose(ref, oci.BlobResource)
	}
	if len(l.books) != 0 || len(l.marks) != 0 {
		t.Errorf("%d books, %d marks", len(l.books), len(l.marks))
	}
	for _, name := range names("member", maxMarked+1) {
		l.markPrivate(name, true)
		l.vouch(blobOf(name, "a", "a"), oci.BlobResource, time.Now(), true)
	}
	l.markPrivate(private, false) // there is always a place for what the operator configured
	if len(l.books) != maxMarked || len(l.marks) != maxMarked+1 || !l.marked("member0") {
		t.Errorf("%d books, %d marks", len(l.books), len(l.marks))
	}
}

// A registry that the operator calls public is public, also if it was marked before.
func TestMarks(t *testing.T) {
	t.Parallel()
	l := newLedger()
	l.markPrivate(private, false)
	l.markPublic(private)
	if l.marked(private) || rewritten(t, l, private).marked(private) {
		t.Error("private: false did not take the mark back")
	}
	l.goBlind()
	if l.marked(private) || !l.marked("other.example") {
		t.Errorf("when notes can't be read, the public registry is private: %v, another is private: %v", l.marked(private), l.marked("other.example"))
	}
}

// All methods may be called at the same time. The race detector checks this.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), nil)
	var wg sync.WaitGroup
	for _, repo := range names("repo", 8) {
		wg.Go(func() {
			for range 100 {
				ref := blob(repo, "x")
				s.ledger.vouches(0, ref)
				s.ledger.lose(ref, oci.BlobResource)
				s.ledger.refuse(ref)
				s.ledger.deliver(ref, false)
				s.MarkPrivate(repo, false)
				s.MarkPublic(repo)
				s.ledger.stands(ref, oci.ManifestResource, time.Now())
				s.ledger.records(private)
			}
			s.notes.sync(noted)
		})
	}
	wg.Wait()
	for _, repo := range names("repo", 8) {
		want(t, s.ledger, false, blob(repo, "x"))
	}
}
