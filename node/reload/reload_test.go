package reload

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
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
