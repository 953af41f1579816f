package cache

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestProbeLooksAndLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	before := Space{}
	for name, there := range map[string]bool{"not/there/yet": false, ".": true} {
		s, err := Probe(t.Context(), filepath.Join(dir, name))
		if err != nil || s.There != there || s.Free <= 0 || s.Size < s.Free || s.Held != 0 || !s.Whole {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
		before = s
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	s := start(t, dir, Options{})
	keep(t, s, newSample(4700, 100_000))
	if got, err := Probe(t.Context(), dir); err != nil || got.Held < 100_000 || got.Held > 110_000 || got.Size != before.Size {
		t.Errorf("in use: %+v, %v", got, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := Probe(ended, dir); err != nil || got.Whole {
		t.Errorf("without time: %+v, %v", got, err)
	}
}

func TestProbeSaysWhatIsInTheWay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := firstOf(os.WriteFile(dir+"/file", nil, 0o600), os.Mkdir(dir+"/real", 0o700), os.Symlink(dir+"/real", dir+"/link")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"/file": "is not a directory", "/link": "is a symbolic link", "/file/below": "not a directory",
	} {
		if _, err := Probe(t.Context(), dir+name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
