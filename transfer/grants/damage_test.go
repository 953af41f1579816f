package grants

import (
	"errors"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"
)

// eventful returns a file with a record of every kind of event, and the blobs that its
// records are about.
func eventful(t *testing.T) (content []byte, refs []oci.Ref) {
	t.Helper()
	l, records := newLedger(), []record(nil)
	l.written = func(_ string, r record) { records = append(records, r) }
	a, b, c, d := blob("one", "a"), blob("one", "b"), blob("two", "c"), blob("two", "d")
	l.vouches(5*time.Minute, a, b, c, d)
	l.deliver(c, false)
	l.refuse(a)
	l.vouches(0, b)
	l.lose(c, oci.BlobResource)
	l.vouches(0, a)
	l.lose(a, oci.BlobResource)
	l.refuse(d)
	return encodeFile(private, records), []oci.Ref{a, b, c, d}
}

// reread reads a file's bytes as a node does when it starts. It returns nil if they make
// every registry count as private.
func reread(content []byte) *ledger {
	registry, records, ok := decodeFile(content)
	if !ok || registry != private {
		return nil
	}
	l := newLedger()
	l.read(registry, records)
	return l
}

// Damage to a file never makes a private registry public, and no grant counts that the
// undamaged file takes back.
func TestDamagedNotesGrantNothing(t *testing.T) {
	t.Parallel()
	content, refs := eventful(t)
	check := func(what string, at int, damaged []byte) {
		l := reread(damaged)
		if l == nil {
			return
		}
		if !l.marked(private) {
			t.Errorf("%s at %d: the registry is not private any more", what, at)
		}
		for _, ref := range refs {
			if l.counts(ref) {
				t.Errorf("%s at %d: a grant counts", what, at)
			}
			tag := oci.Ref{Registry: private, Repository: ref.Repository, Tag: "v1"}
			if l.vouch(tag, oci.ManifestResource, time.Now().Add(-time.Hour), false); l.stands(tag, oci.ManifestResource, time.Now().Add(-time.Hour)) {
				t.Errorf("%s at %d: an old tag stands", what, at)
			}
		}
	}
	for at := len(heading) + len(private) + 1; at < len(content); at++ {
		for bit := range 8 {
			flipped := slices.Clone(content)
			flipped[at] ^= 1 << bit
			check("a bit flipped", at, flipped)
		}
		zeroed := slices.Clone(content)
		clear(zeroed[at:min(at+100, len(zeroed))])
		check("a block zeroed", at, zeroed)
		if (len(content)-at)%recordSize != 0 {
			check("cut off", at, content[:at])
		}
		check("a part missing", at, slices.Concat(content[:at], content[min(at+recordSize+1, len(content)):], []byte{0}))
	}
	for at := range len(heading) + len(private) + 1 {
		flipped := slices.Clone(content)
		flipped[at] ^= 1
		if reread(flipped) != nil || reread(content[:at]) != nil {
			t.Errorf("the heading is damaged at %d, and the file is read all the same", at)
		}
	}
}

// A file that ends after any record says what it said when that record was the last.
func TestNotesThatEndEarly(t *testing.T) {
	t.Parallel()
	content, refs := eventful(t)
	begin := len(heading) + len(private) + 1
	first := reread(content[:begin+5*recordSize]) // the mark and four grants
	want(t, first, true, refs...)
	for end := begin + recordSize; end <= len(content); end += recordSize {
		if l := reread(content[:end]); !l.marked(private) {
			t.Errorf("%d records: the registry is not private", (end-begin)/recordSize)
		}
	}
	want(t, reread(content), true, refs[1])
	want(t, reread(content), false, refs[0], refs[2], refs[3])
}

// If a file on disk is damaged, its registry is asked again. The next start writes the
// file anew.
func TestADamagedFileIsWrittenAnew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir, nil)
	ref := blob("team/app", "x")
	s.ledger.vouches(time.Minute, ref)
	s = restart(t, s, dir)
	want(t, s.ledger, true, ref)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	path := dir + "/notes/" + fileOf(private)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[len(heading)+len(private)+5] ^= 1 // in the record that marks the registry as private
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s = start(t, dir, nil)
		want(t, s.ledger, false, ref)
		if !s.MarkedPrivate(private) {
			t.Error("the registry is not private any more")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if content, err = os.ReadFile(path); err != nil || slices.ContainsFunc(first(decodeFile(content)), func(r record) bool { return r.kind == damaged }) {
		t.Errorf("the file is still damaged: %v", err)
	}
}

func first(_ string, records []record, _ bool) []record { return records }

// While a file or the folder can't be read, every registry counts as private. If the
// file is written over meanwhile, its registry is still private after the next start.
func TestUnreadNotesKeepRegistriesPrivate(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault  func(op, name string) error
		damage func(path string) error
	}{
		"the folder can't be listed": {fault: func(op, name string) error { return failing(op == "notes" && name == "notes") }},
		"the file can't be opened":   {fault: func(op, name string) error { return failing(op == "open" && name == "notes/"+fileOf(private)) }},
		"the file has no heading":    {damage: func(path string) error { return os.WriteFile(path, []byte("x"), 0o600) }},
		"the file is too long":       {damage: func(path string) error { return os.Truncate(path, 17<<20) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := start(t, dir, nil)
			ref := blob("team/app", "x")
			s.ledger.vouches(time.Hour, ref)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if tt.damage != nil {
				if err := tt.damage(dir + "/notes/" + fileOf(private)); err != nil {
					t.Fatal(err)
				}
			}
			var broken atomic.Bool
			broken.Store(true)
			s = start(t, dir, func(op, name string) error {
				if broken.Load() && tt.fault != nil {
					return tt.fault(op, name)
				}
				return nil
			})
			want(t, s.ledger, false, ref)
			if !s.MarkedPrivate(private) || !s.MarkedPrivate("any.example") {
				t.Error("a registry is public that may be private")
			}
			s.ledger.refuse(ref) // the ledger knows no grant that this takes back
			broken.Store(false)
			s.ledger.deliver(ref, false) // a reason to write the file other than that the registry is private
			s = restart(t, s, dir)
			want(t, s.ledger, false, ref)
			if !s.MarkedPrivate(private) {
				t.Error("the file that could not be read was written over, and the registry is public now")
			}
			if tt.fault != nil && s.MarkedPrivate("any.example") {
				t.Error("every registry still counts as private after the file was read")
			}
		})
	}
}

// failing returns a disk error if yes is true.
func failing(yes bool) error {
	if yes {
		return syscall.EIO
	}
	return nil
}

// A write that failed is tried again, also if nothing changes meanwhile.
func TestFailedWritesAreMadeAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		s := OpenShard(dir, cache.Options{Fault: func(op, _ string) error { return failing(op == "rename" && broken.Load()) }})
		synctest.Wait()
		broken.Store(true)
		ref := blob("team/app", "x")
		s.ledger.vouches(time.Minute, ref)
		s.ledger.refuse(ref)
		s.notes.sync(noted)
		broken.Store(false)
		<-time.After(2 * writeAgain)
		content, err := os.ReadFile(dir + "/notes/" + fileOf(private))
		if err != nil || !slices.ContainsFunc(first(decodeFile(content)), func(r record) bool { return r.kind == refused }) {
			t.Errorf("the refusal is not written: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// The largest ledger of one registry fits into its file.
func TestTheLargestFileIsRead(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it fills a whole book")
	}
	dir := t.TempDir()
	s := start(t, dir, nil)
	fill(s.ledger, time.Now().Add(-time.Minute))
	s.notes.sync(time.Minute)
	for range 3 { // this appends so much that the file is written anew
		refuse(s.ledger)
		s.notes.sync(time.Minute)
	}
	st, err := os.Stat(dir + "/notes/" + fileOf(private))
	if err != nil || st.Size() > 16<<20 || st.Size() < 5<<20 {
		t.Errorf("the file: %+v, %v", st, err)
	}
	s = restart(t, s, dir)
	if !s.MarkedPrivate(private) || s.MarkedPrivate("any.example") {
		t.Error("the largest file can't be read")
	}
	if n := s.ledger.books[private].repos.Len(); n != maxRepos {
		t.Errorf("%d repositories are left", n)
	}
}

// fill fills a book up to its bounds.
func fill(l *ledger, at time.Time) {
	repos := names("r", maxRepos)
	for i, name := range names("x", maxGrants) {
		l.vouch(blob(repos[i%maxRepos], name), oci.BlobResource, at, false)
	}
	for _, name := range names("x", maxDelivered) {
		l.deliver(blob("", name), false)
	}
}

// refuse refuses every repository that fill added.
func refuse(l *ledger) {
	for _, name := range names("r", maxRepos) {
		l.refuse(blob(name, ""))
	}
}

// The ledger keeps what it knows when the cache directory is replaced. Older notes in
// the other directory undo no revocation.
func TestAReplacedDirectoryKeepsWhatIsKnown(t *testing.T) {
	t.Parallel()
	old, dir := t.TempDir(), t.TempDir()
	a, b, c := blob("one", "a"), blob("two", "b"), blob("three", "c")
	s := start(t, old, nil) // the other directory, written before the revocations
	s.ledger.vouches(time.Hour, a, b, c)
	s.MarkPublic(private)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = start(t, dir, nil)
	s.ledger.vouches(time.Minute, a, b)
	s.ledger.refuse(a)
	s.ledger.lose(b, oci.BlobResource)
	other := cache.Options{}
	var folder *cache.Folder
	other.Taken = func(f cache.Folders) { folder = f.Notes }
	store := cache.Open(old, other)
	s.notes.take(folder)
	check := func(s *Shard) {
		t.Helper()
		want(t, s.ledger, false, a, b)
		want(t, s.ledger, true, c)
		if !s.MarkedPrivate(private) {
			t.Error("the registry is public")
		}
	}
	check(s)
	if err := errors.Join(s.Close(), store.Close()); err != nil {
		t.Fatal(err)
	}
	check(start(t, old, nil))
}
