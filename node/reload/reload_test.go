package reload

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/testkit"
)

// reader reads a file that must not be empty.
func reader(path string) func() (string, error) {
	return func() (string, error) {
		b, err := os.ReadFile(path)
		if err == nil && len(b) == 0 {
			err = errors.New("empty")
		}
		return string(b), err
	}
}

func TestChangedFilesAreReadAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "file")
		testkit.Replace(t, path, "one")
		var log strings.Builder
		f, err := Open("a.key", []string{path}, reader(path), slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			text, want string
			good       bool
		}{{"two", "two", true}, {"", "two", false}, {"three", "three", true}} {
			before := f.Get()
			testkit.Replace(t, path, step.text)
			if got := f.Get(); got != before {
				t.Errorf("%q at once", got)
			}
			time.Sleep(Every) // in the bubble
			if got, err := f.Get(), f.Health(); got != step.want || (err == nil) != step.good {
				t.Errorf("%q: got %q, health %v", step.text, got, err)
			}
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		f.Expire()
		if got, err := f.Get(), f.Health(); got != "three" || err == nil || !strings.HasPrefix(err.Error(), "a.key: ") {
			t.Errorf("removed: got %q, health %v", got, err)
		}
		if strings.Count(log.String(), "files read again") != 2 || strings.Count(log.String(), "cannot be read") != 2 {
			t.Errorf("log:\n%s", log.String())
		}
	})
}

func TestASlowReadDelaysOnlyTheOneThatReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "file")
		testkit.Replace(t, path, "one")
		slow, read := make(chan struct{}), reader(path)
		first := true
		f, err := Open("a.key", []string{path}, func() (string, error) {
			if !first {
				<-slow
			}
			first = false
			return read()
		}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		testkit.Replace(t, path, "two")
		time.Sleep(Every) // in the bubble
		reads := make(chan string)
		go func() { reads <- f.Get() }()
		synctest.Wait()
		if got := f.Get(); got != "one" {
			t.Errorf("while another reads: %q", got)
		}
		close(slow)
		if got := <-reads; got != "two" {
			t.Errorf("the one that reads: %q", got)
		}
	})
}

func TestOpenNeedsGoodFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "none")
	if _, err := Open("a.key", []string{path}, reader(path), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "a.key") {
		t.Errorf("got %v", err)
	}
}

// Fresh reads although nothing seems to have changed, once for all who ask before the
// reading begins, and Pause after the last one at the earliest.
func TestFreshReadsOnceForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		var value atomic.Pointer[string]
		set := func(text string) { value.Store(&text) }
		set("one")
		f, err := Open("a.key", nil, func() (string, error) {
			reads.Add(1)
			if *value.Load() == "" {
				return "", errors.New("empty")
			}
			return *value.Load(), nil
		}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		got := make(chan string)
		for range 50 {
			go func() { got <- f.Fresh(t.Context()) }()
		}
		synctest.Wait()
		set("two") // after they asked, before the reading
		for range 50 {
			if v := <-got; v != "two" {
				t.Errorf("got %q", v)
			}
		}
		if n := reads.Load(); n != 2 || time.Since(begin) != Pause {
			t.Errorf("%d readings, after %v", n, time.Since(begin))
		}
		time.Sleep(Pause) // in the bubble
		set("")
		if v := f.Fresh(t.Context()); v != "two" || f.Health() == nil || time.Since(begin) != 2*Pause {
			t.Errorf("got %q, health %v, after %v", v, f.Health(), time.Since(begin))
		}
		set("three")
		if v := f.Fresh(t.Context()); v != "three" || f.Health() != nil || time.Since(begin) != 3*Pause {
			t.Errorf("got %q, health %v, after %v", v, f.Health(), time.Since(begin))
		}
	})
}

// A disk that hangs holds up neither Last nor, for longer than they have, those who ask
// for a fresh value. However many ask, one reading and one that waits for it go on.
func TestADiskThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hung, reads := make(chan struct{}), atomic.Int64{}
		f, err := Open("a.key", nil, func() (string, error) {
			n := reads.Add(1)
			if n > 1 {
				<-hung
			}
			return strings.Repeat("x", int(n)), nil
		}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(Every) // in the bubble
		for range 20 {
			begin := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if v := f.Fresh(ctx); v != "x" || time.Since(begin) != time.Second {
				t.Errorf("fresh: %q after %v", v, time.Since(begin))
			}
			cancel()
			begin = time.Now()
			if v := f.Last(); v != "x" || time.Since(begin) != 0 {
				t.Errorf("last: %q after %v", v, time.Since(begin))
			}
		}
		if n := reads.Load(); n != 2 {
			t.Errorf("%d readings", n)
		}
		close(hung)
		if v := f.Fresh(t.Context()); len(v) < 3 {
			t.Errorf("afterwards: %q", v)
		}
		synctest.Wait()
	})
}
