package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// retention returns a Retention of samples.
func retention(name string, of ...sample) Retention {
	r := Retention{Name: name, Registry: registry, Content: map[digest.Digest]int64{}}
	for _, b := range of {
		r.Content[b.digest] = int64(len(b.content))
	}
	return r
}

// press brings in n blobs of size bytes.
func press(t testing.TB, s *Store, n, size int) {
	t.Helper()
	for i := range n {
		fill(t, s, newSample(uint64(1000+i), size))
	}
}

func TestRetainedContentIsNotEvicted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	opts := Options{Bound: 1 << 20}
	s := start(t, dir, opts)
	pinned, later, other := newSample(1, 100<<10), newSample(2, 50<<10), newSample(3, 100<<10)
	keep(t, s, pinned)
	keep(t, s, other)
	if err := s.Stock().Retain(retention("one", pinned, later)); err != nil {
		t.Fatal(err)
	}
	keep(t, s, later) // it comes after it was pinned
	press(t, s, 30, 90<<10)
	if !held(s, pinned) || !held(s, later) || held(s, other) {
		t.Errorf("pinned %v and %v, other %v", held(s, pinned), held(s, later), held(s, other))
	}
	want(t, s, pinned) // reading it changes nothing
	press(t, s, 30, 80<<10)
	want(t, s, pinned)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	opts.Bound = 700 << 10 // less than is held: the restart evicts
	s = start(t, dir, opts)
	if !held(s, pinned) || !held(s, later) {
		t.Error("the pins are lost with the restart")
	}
	press(t, s, 30, 80<<10)
	if got := s.Stock().Retained(); !held(s, pinned) || len(got) != 1 || got[0].Name != "one" || len(got[0].Content) != 2 {
		t.Errorf("after a restart %v is retained, and held is %v", got, held(s, pinned))
	}
	if had, err := s.Stock().Release("one"); !had || err != nil {
		t.Error(had, err)
	}
	if had, err := s.Stock().Release("one"); had || err != nil {
		t.Error("released twice:", had, err)
	}
	press(t, s, 30, 79<<10)
	if held(s, pinned) || s.Size() > opts.Bound {
		t.Errorf("after the release it is held: %v; the size is %d", held(s, pinned), s.Size())
	}
}

// No more than a quarter can be pinned, of the store or of the registry's own share.
// What no longer fits into a lower bound is not pinned after a restart.
func TestRetainedContentIsBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b, c := newSample(1, 150<<10), newSample(2, 150<<10), newSample(3, 100<<10)
	s := start(t, dir, Options{Bound: 1 << 20, Shares: map[string]int64{"small": 400 << 10}})
	if err := s.Stock().Retain(retention("a", a)); err != nil {
		t.Fatal(err)
	}
	if err := s.Stock().Retain(retention("b", b)); !errors.Is(err, ErrTooMuch) {
		t.Errorf("300 KiB of 1 MiB: %v", err)
	}
	if err := s.Stock().Retain(retention("again", a)); err != nil {
		t.Errorf("what is pinned by another name counts once: %v", err)
	}
	own := retention("own", c)
	own.Registry = "small"
	if err := s.Stock().Retain(own); err != nil {
		t.Errorf("100 KiB of 400: %v", err)
	}
	own = retention("own", c, newSample(4, 1))
	own.Registry = "small"
	if err := s.Stock().Retain(own); !errors.Is(err, ErrTooMuch) {
		t.Errorf("100 KiB and a byte of 400 KiB: %v", err)
	}
	huge := retention("huge")
	huge.Content[a.digest], huge.Content[b.digest] = 1<<62, 1<<62
	if err := s.Stock().Retain(huge); !errors.Is(err, ErrTooMuch) {
		t.Errorf("more than fits into a number: %v", err)
	}
	if got := s.Stock().Retained(); len(got) != 3 {
		t.Errorf("retained: %v", got)
	}
	_ = s.Close()
	s = start(t, dir, Options{Bound: 500 << 10})
	if got := s.Stock().Retained(); len(got) != 1 || got[0].Name != "own" {
		t.Errorf("a quarter of 500 KiB: %v", got)
	}
}

// What a damaged line said is lost, and nothing else. A file cut off by a crash is never
// in place.
func TestRetainedFileIsDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir, Options{})
	all := []sample{newSample(1, 10), newSample(2, 20), newSample(3, 30)}
	for i, b := range all {
		keep(t, s, b)
		if err := s.Stock().Retain(retention(fmt.Sprint("name", i), b)); err != nil {
			t.Fatal(err)
		}
	}
	_ = s.Close()
	file := filepath.Join(dir, retainedFile)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func() []byte{
		"a letter":  func() []byte { return bytes.Replace(whole, []byte("name1"), []byte("nameX"), 1) },
		"cut":       func() []byte { return whole[:len(whole)-5] },
		"no line":   func() []byte { return append([]byte("\x00\xff\n"), whole...) },
		"all zeros": func() []byte { return make([]byte, len(whole)) },
		"empty":     func() []byte { return nil },
	} {
		if err := os.WriteFile(file, damage(), 0o600); err != nil {
			t.Fatal(err)
		}
		s := start(t, dir, Options{})
		if got, most := len(s.Stock().Retained()), map[string]int{"a letter": 2, "cut": 2, "no line": 3}[name]; got != most {
			t.Errorf("%s: %d are retained, not %d", name, got, most)
		}
		for _, b := range all {
			want(t, s, b)
		}
		_ = s.Close()
	}
}

// A pin that can't be written down does not count.
func TestRetainedIsNotWritten(t *testing.T) {
	t.Parallel()
	broken := errors.New("the disk is broken")
	fail := false
	s := start(t, t.TempDir(), Options{Fault: func(op, name string) error {
		if fail && op == "rename" && name == retainedFile {
			return broken
		}
		return nil
	}})
	fail = true
	b := newSample(1, 10)
	if err := s.Stock().Retain(retention("b", b)); !errors.Is(err, broken) || len(s.Stock().Retained()) != 0 {
		t.Errorf("%v; %v is retained", err, s.Stock().Retained())
	}
}

// Who reads a blob that is removed reads it to its end, whatever has to be read of its
// files meanwhile. Nobody else finds it, and it can come again at once.
func TestRemovedBlobIsReadToItsEnd(t *testing.T) {
	t.Parallel()
	for name, verify := range map[string]time.Duration{"trusted": 0, "checked each time": time.Nanosecond} {
		s := start(t, t.TempDir(), Options{Verify: verify})
		b, small := newSample(1, 3<<20), newSample(2, 1000)
		keep(t, s, b)
		keep(t, s, small)
		settleTime(t, s, b, s.dir)
		want(t, s, b)
		open, err := s.Open(b.digest)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if _, err := open.Send(t.Context(), &out, 0, 1<<20); err != nil {
			t.Fatal(err)
		}
		size, removed := s.Stock().Remove(t.Context(), b.digest)
		if _, again := s.Stock().Remove(t.Context(), b.digest); !removed || size != 3<<20 || again {
			t.Errorf("%s: removed %v, %d bytes; again %v", name, removed, size, again)
		}
		if _, removed := s.Stock().Remove(t.Context(), small.digest); !removed {
			t.Errorf("%s: the small one stays", name)
		}
		wantGone(t, s, b)
		wantGone(t, s, small)
		keep(t, s, b)
		if _, err := open.Send(t.Context(), &out, 1<<20, -1); err != nil || !bytes.Equal(out.Bytes(), b.content) {
			t.Errorf("%s: the rest: %v, %d bytes", name, err, out.Len())
		}
		_ = open.Close()
		want(t, s, b)
		if n := len(s.Stock().Entries()); n != 1 || s.Size() != 3<<20 {
			t.Errorf("%s: %d entries of %d bytes are left", name, n, s.Size())
		}
	}
}

func TestEntries(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir, Options{})
	blob, man := newSample(1, 1000), newSample(2, 500)
	keep(t, s, blob)
	if _, err := s.PutOf(t.Context(), man.digest, registry, "team/app", "application/vnd.oci.image.manifest.v1+json", man.content); err != nil {
		t.Fatal(err)
	}
	if err := s.Stock().Retain(retention("man", man)); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		got := map[digest.Digest]Entry{}
		for _, e := range s.Stock().Entries() {
			if time.Since(e.Used) > time.Minute {
				t.Errorf("%s: used %v", when, e.Used)
			}
			e.Used = time.Time{}
			got[e.Digest] = e
		}
		if want := (Entry{Digest: blob.digest, Registry: registry, Size: 1000}); len(got) != 2 || got[blob.digest] != want {
			t.Errorf("%s: %+v", when, got)
		}
		if want := (Entry{Digest: man.digest, Registry: registry, Size: 500, Manifest: true, Retained: true}); got[man.digest] != want {
			t.Errorf("%s: %+v", when, got[man.digest])
		}
		l, err := s.Stock().Label(man.digest)
		if err != nil || l.Repository != "team/app" || l.Registry != registry || l.Outline != nil {
			t.Errorf("%s: its label is %+v %v", when, l, err)
		}
		content, err := s.Stock().Content(man.digest)
		if err != nil || !bytes.Equal(content, man.content) {
			t.Errorf("%s: read %q %v", when, content, err)
		}
	}
	check("first")
	_ = s.Close()
	s = start(t, dir, Options{})
	check("after a restart")
	if _, err := s.Stock().Content(newSample(9, 9).digest); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if _, err := s.Stock().Label(newSample(9, 9).digest); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

// A blob that turns out to be a manifest counts as one.
func TestEntriesBlobBecomesManifest(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	b := newSample(1, 100)
	keep(t, s, b)
	if _, err := s.Put(t.Context(), b.digest, registry, "application/json", b.content); err != nil {
		t.Fatal(err)
	}
	if all := s.Stock().Entries(); len(all) != 1 || !all[0].Manifest {
		t.Errorf("%+v", all)
	}
}

func TestStockTags(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{Group: func(registry string) Group { return Group{Name: registry, Stranger: registry == "b"} }})
	now := time.Now().Truncate(time.Second)
	first, second := newSample(1, 1).digest, newSample(2, 2).digest
	s.SetTag(Tag{Key: "a x v1", Digest: first, Checked: now})
	s.SetTag(Tag{Key: "b x v1", Digest: first, Checked: now})
	for range 2 {
		if all, err := s.Stock().Tags(t.Context()); err != nil || len(all) != 2 {
			t.Errorf("%v %v", all, err)
		}
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := s.Stock().Tags(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits for them any more: %v", err)
	}
	s.SetTag(Tag{Key: "a x v1", Digest: second, Checked: now.Add(time.Hour)})
	s.ForgetTag("b x v1")
	if all, err := s.Stock().Tags(t.Context()); err != nil || len(all) != 1 || all[0].Digest != second {
		t.Errorf("%v %v", all, err)
	}
}

// Verifying finds what reading would not: bytes that changed since they were read. It
// changes nothing about the order of use.
func TestVerifyFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir, Options{Bound: 1 << 20, Memory: 1})
	right, changed, cut, missing := newSample(1, 300<<10), newSample(2, 300<<10), newSample(3, 1000), newSample(4, 2000)
	for _, b := range []sample{right, changed, cut, missing} {
		keep(t, s, b)
	}
	info, err := os.Stat(changed.path(dir))
	if err != nil {
		t.Fatal(err)
	}
	content := bytes.Clone(changed.content)
	content[200_000] ^= 1
	if err := errors.Join(os.WriteFile(changed.path(dir), content, 0o600), os.Chtimes(changed.path(dir), info.ModTime(), info.ModTime()),
		os.Truncate(cut.path(dir), 10), os.Remove(missing.path(dir))); err != nil {
		t.Fatal(err)
	}
	got := map[digest.Digest]bool{}
	verify := func() {
		clear(got)
		if err := s.Stock().Verify(t.Context(), func(e Entry, err error) { got[e.Digest] = err == nil }); err != nil {
			t.Fatal(err)
		}
	}
	verify()
	if len(got) != 4 || !got[right.digest] || got[changed.digest] || got[cut.digest] || got[missing.digest] {
		t.Errorf("%v", got)
	}
	for _, b := range []sample{changed, cut, missing} {
		wantGone(t, s, b)
	}
	verify()
	if len(got) != 1 || !got[right.digest] {
		t.Errorf("again: %v", got)
	}
	want(t, s, right)
	if _, bad := s.Verified(); bad.Bad != 300<<10+1000+2000 {
		t.Errorf("verified: %+v", bad)
	}
	young := newSample(5, 300<<10)
	keep(t, s, young)
	verify()
	press(t, s, 3, 200<<10)
	if held(s, right) || !held(s, young) {
		t.Error("verifying counted as use")
	}
}

// A blob whose file can't be removed is not served any more, and counts until it can.
func TestRemoveFails(t *testing.T) {
	t.Parallel()
	fail := false
	b := newSample(1, 100<<10)
	dir := t.TempDir()
	s := start(t, dir, Options{Fault: func(op, name string) error {
		if fail && op == "remove" {
			return errors.New("the disk is read-only")
		}
		return nil
	}})
	keep(t, s, b)
	fail = true
	if _, removed := s.Stock().Remove(t.Context(), b.digest); !removed {
		t.Error("it stays")
	}
	wantGone(t, s, b)
	if s.Health() == nil || s.Size() != 100<<10 || len(s.Stock().Entries()) != 0 {
		t.Errorf("health %v, size %d, entries %v", s.Health(), s.Size(), s.Stock().Entries())
	}
	fail = false
	s.shard.remover.retryDamaged(t.Context(), s.shard.dir.inUse(), s.shard.commits)
	if s.Size() != 0 {
		t.Errorf("the size is %d", s.Size())
	}
	keep(t, s, b)
	want(t, s, b)
}

// A process that ends between the removal of a blob's file and of what belongs to it
// leaves nothing behind after the next start.
func TestRemoveIsCutOff(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, other := newSample(1, 1000), newSample(2, 1000)
	s := start(t, dir, Options{Fault: func(op, name string) error {
		if op == "remove" && filepath.Ext(name) == ".meta" {
			return errors.New("the process ended")
		}
		return nil
	}})
	keep(t, s, b)
	keep(t, s, other)
	if _, removed := s.Stock().Remove(t.Context(), b.digest); !removed {
		t.Error("it stays")
	}
	_ = s.Close()
	s = start(t, dir, Options{})
	wantGone(t, s, b)
	want(t, s, other)
	if _, err := os.Stat(b.path(dir) + ".meta"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its meta is left: %v", err)
	}
}
