package pages

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/wait"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const mib = 1 << 20

// A rig is a shelf in a cache directory.
type rig struct {
	*Shelf
	t      testing.TB
	dir    string
	store  *cache.Store
	memory *wait.Budget
}

// newRig opens the shelf in dir. fault may be nil.
func newRig(t testing.TB, dir string, bound int64, fault func(op, name string) error) *rig {
	t.Helper()
	r := &rig{Shelf: New(nil, bound*part), t: t, dir: dir, memory: wait.NewBudget(64*mib, 4, time.Second)}
	r.store = cache.Open(dir, cache.Options{Fault: fault, Taken: func(f cache.Folders) { r.Take(f.Pages) }})
	t.Cleanup(r.end)
	return r
}

// end closes the store; a second time does no harm.
func (r *rig) end() { _ = r.store.Close() }

// tags asks for a page of the tags of a repository.
func tags(registry, repository, last string) oci.Question {
	q := oci.Question{Ref: oci.Ref{Registry: registry, Repository: repository}}
	if last != "" {
		q.Query = oci.Query("last=" + last)
	}
	return q
}

// page is a word that is a page.
func page(told time.Time) Word {
	return Word{Told: told, Page: &oci.Page{MediaType: "application/json", Next: "n=1&last=z", Filters: "artifactType"}}
}

// put brings a page in.
func (r *rig) put(q oci.Question, content []byte, told time.Time, stranger bool) (*Sheet, bool) {
	r.t.Helper()
	d := r.Draft(r.t.Context(), q, stranger, r.memory)
	if _, err := io.Copy(d, bytes.NewReader(content)); err != nil {
		r.t.Fatal(err)
	}
	return d.Finish(page(told))
}

// has reports whether a page is kept, and fails the test unless it is content.
func (r *rig) has(q oci.Question, content []byte) bool {
	r.t.Helper()
	s, ok := r.Open(q)
	if !ok {
		return false
	}
	var got bytes.Buffer
	if err := errors.Join(s.Send(&got), s.Close()); err != nil || !bytes.Equal(got.Bytes(), content) {
		r.t.Errorf("%d bytes, %v; want %d", got.Len(), err, len(content))
	}
	return true
}

// noise is content that differs by seed.
func noise(seed string, n int) []byte { return bytes.Repeat([]byte(seed+","), n/(len(seed)+1)+1)[:n] }

func TestPagesAreKeptOverARestart(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir(), 64*mib, nil)
	told := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	sizes := map[string]int{"empty": 0, "few": 10, "edge": small, "more": small + 1, "large": 3*mib + 7}
	for name, n := range sizes {
		s, stored := r.put(tags("reg", name, ""), noise(name, n), told, false)
		var got bytes.Buffer
		if err := s.Send(&got); err != nil || !stored || !bytes.Equal(got.Bytes(), noise(name, n)) {
			t.Errorf("%s: stored %v, %d bytes, %v", name, stored, got.Len(), err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	gone := tags("reg", "gone", "")
	r.Note(gone, Word{Told: told, No: &oci.Error{Kind: oci.NotFound, Registry: "reg", Host: "reg", Status: 404, Reason: "no such thing"}}, false)
	r.end()
	r = newRig(t, r.dir, 64*mib, nil)
	for name, n := range sizes {
		q := tags("reg", name, "")
		if !r.has(q, noise(name, n)) {
			t.Errorf("%s is gone", name)
		}
		if w, ok := r.Last(q); !ok || !w.Told.Equal(told) || w.Page.Next != "n=1&last=z" || w.Page.Filters != "artifactType" || w.Page.MediaType != "application/json" {
			t.Errorf("%s: %+v", name, w)
		}
	}
	w, ok := r.Last(gone)
	if !ok || w.No == nil || w.No.Kind != oci.NotFound || w.No.Status != 404 || w.No.Reason != "no such thing" || !w.No.Authoritative() || !w.Told.Equal(told) {
		t.Errorf("%+v", w)
	}
	if _, ok := r.Open(gone); ok {
		t.Error("what is no page is opened")
	}
	r.Forget(gone)
	if _, ok := r.Last(gone); ok {
		t.Error("it is not forgotten")
	}
	if _, ok := r.Last(tags("reg", "few", "x")); ok {
		t.Error("another page of the list is known")
	}
}

func TestTheNewestAnswerCounts(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir(), 64*mib, nil)
	q, now := tags("reg", "a", ""), time.Now()
	first, _ := r.put(q, noise("first", mib), now, false)
	again, _ := r.put(q, noise("first", mib), now.Add(time.Second), false)
	if !again.Told.Equal(now.Add(time.Second)) {
		t.Error("the same page again is of the first time")
	}
	second, _ := r.put(q, noise("second", mib), now.Add(2*time.Second), false)
	if files, err := filepath.Glob(r.dir + "/pages/*"); len(files) != 1 || err != nil {
		t.Errorf("%v, %v", files, err)
	}
	for s, want := range map[*Sheet]string{first: "first", again: "first", second: "second"} {
		got, err := io.ReadAll(s.Reader())
		if err := errors.Join(err, s.Close(), s.Close()); err != nil || !bytes.Equal(got, noise(want, mib)) {
			t.Errorf("the %s page: %d bytes, %v", want, len(got), err)
		}
	}
	r.Note(q, Word{Told: now, No: &oci.Error{Kind: oci.Denied}}, false)
	if w, _ := r.Last(q); w.No == nil || w.No.Kind != oci.Denied || r.has(q, nil) {
		t.Errorf("after a refusal: %+v", w)
	}
	third, _ := r.put(q, noise("third", 10), now, false)
	_ = third.Close()
	if !r.has(q, noise("third", 10)) {
		t.Error("a page after a refusal is not kept")
	}
	if used, _ := r.Used(); used != r.place.Load().index.weight(10) {
		t.Errorf("%d bytes are in use", used)
	}
}

func TestARegistryPushesOutItsOwnPages(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir(), 16*mib, nil)
	put := func(registry string, n int, stranger bool) {
		for i := range n {
			s, _ := r.put(tags(registry, fmt.Sprint("r", i), ""), noise(registry, mib), time.Now(), stranger)
			_ = s.Close()
		}
	}
	count := func(registry string, n int) (kept int) {
		for i := range n {
			if r.has(tags(registry, fmt.Sprint("r", i), ""), noise(registry, mib)) {
				kept++
			}
		}
		return kept
	}
	put("a.example.com", 5, false)
	put("b.example.com", 100, false)
	for i := range 40 {
		put(fmt.Sprint("s", i, ".example.com"), 1, true)
	}
	if n := count("a.example.com", 5); n != 5 {
		t.Errorf("%d of 5 pages of the one that took little are left", n)
	}
	strangers := 0
	for i := range 40 {
		strangers += count(fmt.Sprint("s", i, ".example.com"), 1)
	}
	if n := count("b.example.com", 100); n == 0 || strangers == 0 || strangers > 4 {
		t.Errorf("%d pages of the one that took much, %d of strangers", n, strangers)
	}
	var disk int64
	files, _ := filepath.Glob(r.dir + "/pages/*")
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		disk += info.Size()
	}
	if used, bound := r.Used(); bound != 16*mib || disk > used || used > bound {
		t.Errorf("%d bytes on disk, %d counted, bound %d", disk, used, bound)
	}
}

func TestAnswersThatAreNoPagesAreFew(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir(), 4*mib, nil)
	s, _ := r.put(tags("reg", "a", ""), noise("a", 100), time.Now(), false)
	_ = s.Close()
	for i := range 400 {
		r.Note(tags("reg", fmt.Sprint("made-up", i), ""), Word{Told: time.Now(), No: &oci.Error{Kind: oci.NotFound}}, false)
	}
	if files, _ := filepath.Glob(r.dir + "/pages/*.no"); len(files) != 256 {
		t.Errorf("%d files", len(files))
	}
	if !r.has(tags("reg", "a", ""), noise("a", 100)) {
		t.Error("they pushed out a page")
	}
}

// What is being read counts until it is not: its bytes are on the disk.
func TestPagesThatAreReadMakeNoRoom(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir(), 4*mib, nil)
	var read []*Sheet
	for i := range 6 {
		s, stored := r.put(tags("reg", "a", ""), noise(fmt.Sprint(i), mib), time.Now(), false)
		if stored != (i < 3) {
			t.Errorf("page %d is stored: %v", i, stored)
		}
		read = append(read, s)
	}
	for i, s := range read {
		got, err := io.ReadAll(s.Reader())
		if err := errors.Join(err, s.Close()); err != nil || !bytes.Equal(got, noise(fmt.Sprint(i), mib)) {
			t.Errorf("page %d: %d bytes, %v", i, len(got), err)
		}
	}
	if _, stored := r.put(tags("reg", "b", ""), noise("b", mib), time.Now(), false); !stored {
		t.Error("there is no room though nobody reads")
	}
	if left, _ := os.ReadDir(r.dir + "/tmp"); len(left) != 0 {
		t.Errorf("%d files in tmp", len(left))
	}
}

func TestDamagedFilesAreForgotten(t *testing.T) {
	t.Parallel()
	content := noise("content", 100_000)
	for what, harm := range map[string]func(b []byte) []byte{
		"a byte of the page":  func(b []byte) []byte { b[50_000]++; return b },
		"a byte of the line":  func(b []byte) []byte { b[100_010]++; return b },
		"a byte of the foot":  func(b []byte) []byte { b[len(b)-6]++; return b },
		"a byte of the mark":  func(b []byte) []byte { b[len(b)-int(footSize)]++; return b },
		"cut off":             func(b []byte) []byte { return b[:len(b)-1] },
		"longer":              func(b []byte) []byte { return append(b, 0) },
		"empty":               func([]byte) []byte { return nil },
		"zeros":               func(b []byte) []byte { return make([]byte, len(b)) },
		"another page's file": nil,
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, t.TempDir(), 64*mib, nil)
			q, other := tags("reg", "a", ""), tags("reg", "b", "")
			for _, one := range []oci.Question{q, other} {
				s, _ := r.put(one, content, time.Now(), false)
				_ = s.Close()
			}
			r.end()
			files, _ := filepath.Glob(r.dir + "/pages/*." + keyOf(q) + ".*")
			if len(files) != 1 {
				t.Fatal(files)
			}
			if harm == nil {
				theirs, _ := filepath.Glob(r.dir + "/pages/*." + keyOf(other) + ".*")
				if err := os.Rename(theirs[0], files[0]); err != nil {
					t.Fatal(err)
				}
			} else {
				b, err := os.ReadFile(files[0])
				if err := errors.Join(err, os.WriteFile(files[0], harm(b), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			r = newRig(t, r.dir, 64*mib, nil)
			if r.has(q, content) {
				t.Error("it is served")
			}
			if _, err := os.Stat(files[0]); !errors.Is(err, os.ErrNotExist) {
				t.Error("it is still there:", err)
			}
			s, stored := r.put(q, content, time.Now(), false)
			if _ = s.Close(); !stored || !r.has(q, content) {
				t.Error("it can't be kept again")
			}
		})
	}
}

func TestStrangeFilesAreRemoved(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir(), 64*mib, nil)
	r.end()
	for _, name := range []string{"a", "0000000000000000.x.page", "index"} {
		if err := os.WriteFile(r.dir+"/pages/"+name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	newRig(t, r.dir, 64*mib, nil)
	if left, err := os.ReadDir(r.dir + "/pages"); len(left) != 0 || err != nil {
		t.Errorf("%d files are left, %v", len(left), err)
	}
}

func TestPagesComeWhateverTheDiskDoes(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"create", "write", "rename", "pages"} {
		for _, n := range []int{100, small, 3 * mib} {
			t.Run(fmt.Sprint(op, " ", n), func(t *testing.T) {
				t.Parallel()
				var failing atomic.Bool
				var after atomic.Int32
				r := newRig(t, t.TempDir(), 64*mib, func(at, _ string) error {
					if failing.Load() && at == op && after.Add(-1) < 0 {
						return syscall.ENOSPC
					}
					return nil
				})
				q, content := tags("reg", "a", ""), noise("content", n)
				for calls := range int32(4) {
					after.Store(calls)
					failing.Store(true)
					s, stored := r.put(q, content, time.Now().Add(time.Duration(calls)*time.Hour), false)
					failing.Store(false)
					got, err := io.ReadAll(s.Reader())
					if err := errors.Join(err, s.Close()); err != nil || !bytes.Equal(got, content) {
						t.Fatalf("after %d calls: %d bytes, %v", calls, len(got), err)
					}
					if stored && !r.has(q, content) {
						t.Error("it is not kept")
					}
				}
				if used, waiting := r.memory.Used(); used != 0 || waiting != 0 {
					t.Errorf("%d bytes of memory are held by nobody", used)
				}
				if left, _ := os.ReadDir(r.dir + "/tmp"); len(left) != 0 {
					t.Errorf("%d files in tmp", len(left))
				}
			})
		}
	}
}

// A word that can't be written does not cost the one before.
func TestALastWordOutlivesADiskThatFails(t *testing.T) {
	t.Parallel()
	var failing atomic.Bool
	r := newRig(t, t.TempDir(), 64*mib, func(op, _ string) error {
		if failing.Load() && op == "rename" {
			return syscall.EIO
		}
		return nil
	})
	q := tags("reg", "a", "")
	s, _ := r.put(q, noise("old", mib), time.Now(), false)
	failing.Store(true)
	other, stored := r.put(q, noise("new", mib), time.Now(), false)
	if stored || !r.has(q, noise("old", mib)) {
		t.Error("the last page is gone")
	}
	_, _ = s.Close(), other.Close()
	if used, _ := r.Used(); used != r.place.Load().index.weight(mib+300) {
		t.Errorf("%d bytes are in use", used)
	}
}

func TestWithoutADiskPagesShareMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		shelf, memory := New(nil, 0), wait.NewBudget(64*mib, 4, time.Second)
		read := func(name string, n int) (*Sheet, error) {
			d := shelf.Draft(t.Context(), tags("reg", name, ""), true, memory)
			if _, err := io.Copy(d, strings.NewReader(strings.Repeat("x", n))); err != nil {
				return nil, errors.Join(err, d.Close())
			}
			s, stored := d.Finish(page(time.Now()))
			if stored {
				t.Error("it is kept nowhere")
			}
			return s, nil
		}
		var sheets []*Sheet
		for i, name := range []string{"a", "a", "a", "b", "c"} { // all who have a share its bytes
			began := time.Now()
			s, err := read(name, 30*mib)
			if err == nil {
				sheets = append(sheets, s)
				continue
			}
			if i < 4 || !errors.Is(err, wait.ErrFull) || time.Since(began) != time.Second {
				t.Errorf("page %d after %v: %v", i, time.Since(began), err)
			}
		}
		if used, _ := memory.Used(); len(sheets) != 4 || used > 64*mib {
			t.Errorf("%d pages of 30 MB are open, in %d bytes", len(sheets), used)
		}
		if s, err := read("few", small); err != nil || s.Size != small {
			t.Errorf("a small page waits for large ones: %v", err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			s, err := read("waits", 30*mib)
			if err != nil {
				t.Error("it got no turn:", err)
				return
			}
			_ = s.Close()
		})
		synctest.Wait()
		for _, s := range sheets {
			_ = s.Close()
		}
		wg.Wait()
		if used, _ := memory.Used(); used != 0 {
			t.Errorf("%d bytes are held by nobody", used)
		}
	})
}

func TestADraftBeginsAnew(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir(), 64*mib, nil)
	q := tags("reg", "a", "")
	for _, n := range []int{10, small, 2 * mib} {
		d := r.Draft(t.Context(), q, false, r.memory)
		for _, seed := range []string{"broken", "again", "whole"} {
			d.Reset()
			if _, err := d.Write(noise(seed, n)); err != nil {
				t.Fatal(err)
			}
		}
		s, stored := d.Finish(page(time.Now()))
		if err := errors.Join(d.Close(), s.Close()); err != nil || !stored || !r.has(q, noise("whole", n)) {
			t.Errorf("%d bytes: %v", n, err)
		}
		given := r.Draft(t.Context(), q, false, r.memory)
		_, _ = given.Write(noise("given up", n))
		if err := given.Close(); err != nil || !r.has(q, noise("whole", n)) {
			t.Errorf("a draft that is given up: %v", err)
		}
	}
	if left, _ := os.ReadDir(r.dir + "/tmp"); len(left) != 0 {
		t.Errorf("%d files in tmp", len(left))
	}
}

func TestBoundsFollowTheCaches(t *testing.T) {
	t.Parallel()
	for cacheBound, want := range map[int64]int64{0: most, 1: least, 1 << 20: least, 1 << 30: 128 << 20, 10 << 30: most} {
		if _, bound := New(nil, cacheBound).Used(); bound != want {
			t.Errorf("beside a cache of %d bytes: %d, want %d", cacheBound, bound, want)
		}
	}
}

// Whoever looks for an answer while it is being written does not make it go.
func TestAnAnswerThatIsBeingWrittenIsNotLost(t *testing.T) {
	t.Parallel()
	r := newRig(t, t.TempDir(), mib, nil)
	question := func(i int) oci.Question { return tags("reg.example.com", fmt.Sprint("repository-", i), "") }
	const many = 50
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := 0; !done.Load(); i++ {
				r.Last(question(i % many))
			}
		})
	}
	for i := range many {
		r.Note(question(i), Word{Told: time.Now(), No: &oci.Error{Kind: oci.NotFound, Registry: "reg.example.com"}}, false)
	}
	done.Store(true)
	wg.Wait()
	for i := range many {
		if _, ok := r.Last(question(i)); !ok {
			t.Errorf("the answer to question %d is lost", i)
		}
	}
}
