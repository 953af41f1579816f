package grants

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"
)

// These blobs are in the notes of an earlier cache: a directory as versions before
// 2026-12 left it.
var (
	oldKept    = blob("team/app", "kept")
	oldGone    = blob("team/gone", "taken back")
	oldBrought = blobOf("public.example", "", "delivered")
)

// earlier makes an earlier cache.
func earlier(t *testing.T, dir string) {
	t.Helper()
	then := time.Now().Add(-time.Hour)
	var tags []cache.Tag
	for key, checked := range map[string]time.Time{
		"?vouched " + private + " team/app " + oldKept.Digest.String():     then,
		"?vouched " + private + " team/gone " + oldGone.Digest.String():    then,
		"?vouched " + private + " team/unnoted " + oldGone.Digest.String(): then,
		"!refused " + private + " team/app":                                {},
		"!refused " + private + " team/gone":                               then.Add(time.Minute),
		"!private " + private:                                              then,
		"!private marked.example":                                          then,
		"?delivered public.example " + oldBrought.Digest.String():          then,
		private + " team/app v1 */*":                                       then,
		private + " team/gone v1 */*":                                      then,
	} {
		tags = append(tags, cache.Tag{Key: key, Digest: oldKept.Digest, Checked: checked})
	}
	writeOld(t, dir, tags...)
}

// writeOld writes tags as an earlier version did.
func writeOld(t *testing.T, dir string, tags ...cache.Tag) {
	t.Helper()
	var folder *cache.Folder
	c := cache.Open(dir, cache.Options{Taken: func(f cache.Folders) { folder = f.Notes }})
	for _, tag := range tags {
		if err := folder.WriteOldTag(tag); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// wantEarlier fails the test unless the shard knows what the earlier version knew.
func wantEarlier(t *testing.T, s *Shard) {
	t.Helper()
	want(t, s.ledger, true, oldKept)
	want(t, s.ledger, false, oldGone, blob("team/unnoted", "taken back"))
	if s.ledger.vouchedAt(oldKept, oci.ManifestResource).IsZero() {
		t.Error("an old note, which does not tell the kind, does not count for manifests")
	}
	if !s.MarkedPrivate(private) || !s.MarkedPrivate("marked.example") || s.MarkedPrivate("public.example") {
		t.Error("not the same registries are private as before")
	}
	if !s.ledger.delivered(oldBrought, false) || !s.ledger.delivered(oldBrought, true) {
		t.Error("a delivery is forgotten")
	}
	for repo, stands := range map[string]bool{"team/app": true, "team/gone": false} {
		tag := oci.Ref{Registry: private, Repository: repo, Tag: "v1"}
		if s.ledger.stands(tag, oci.ManifestResource, time.Now().Add(-time.Hour)) != stands {
			t.Errorf("the tag of %s stands: %v, want %v", repo, !stands, stands)
		}
	}
}

func TestNotesOfEarlierVersionsAreReadOverOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	earlier(t, dir)
	s := start(t, dir, nil)
	wantEarlier(t, s)
	for _, key := range []string{"?delivered public.example " + oldBrought.Digest.String(), "!private marked.example", "!refused " + private + " team/app"} {
		if _, left := s.Tag(key); left {
			t.Errorf("%s is still there", key)
		}
	}
	s.ledger.refuse(oldKept)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	writeOld(t, dir, cache.Tag{Key: "!private late.example", Digest: oldKept.Digest}) // nobody looks for it any more
	s = start(t, dir, nil)
	want(t, s.ledger, false, oldKept)
	if s.MarkedPrivate("late.example") {
		t.Error("old notes are read a second time")
	}
}

// A crash or a disk error may end the reading of old notes at any file call. The next
// start does the rest.
func TestReadingOverMayEndAnywhere(t *testing.T) {
	t.Parallel()
	for n := int64(1); ; n++ {
		dir := t.TempDir()
		earlier(t, dir)
		var calls atomic.Int64
		var reached atomic.Bool
		s := OpenShard(dir, cache.Options{Fault: func(op, name string) error {
			if op != "mkdir" && op != "access" && (strings.HasPrefix(name, "notes") || strings.HasPrefix(name, "tags/")) && calls.Add(1) >= n {
				reached.Store(true)
				return failing(true) // nothing is written from now on
			}
			return nil
		}})
		if !s.MarkedPrivate(private) || !s.MarkedPrivate("marked.example") {
			t.Errorf("call %d fails: a registry is public that may be private", n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = start(t, dir, nil)
		wantEarlier(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.Fatalf("after a failure from call %d on", n)
		}
		if !reached.Load() {
			if n < 20 {
				t.Errorf("there are only %d calls", n)
			}
			return
		}
	}
}

// A node that could not read all old notes uses those that it read. The next start reads
// the others.
func TestOldNotesThatCantBeReadAreTriedAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	earlier(t, dir)
	var first atomic.Value
	s := OpenShard(dir, cache.Options{Fault: func(op, name string) error {
		if op != "open" || !strings.HasPrefix(name, "tags/!") {
			return nil
		}
		first.CompareAndSwap(nil, name)
		return failing(first.Load() == name)
	}})
	if !s.MarkedPrivate("any.example") {
		t.Error("a registry is public that may be private")
	}
	s.ledger.deliver(blobOf("marked.example", "", "x"), false)
	s.ledger.refuse(oldKept)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = start(t, dir, nil)
	want(t, s.ledger, false, oldKept)
	marked := []bool{s.MarkedPrivate(private), s.MarkedPrivate("marked.example"), s.MarkedPrivate("any.example")}
	if !slices.Equal(marked, []bool{true, true, false}) {
		t.Error("whether the registries are private:", marked)
	}
}
