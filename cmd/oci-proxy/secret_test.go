package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// secret prints a new secret each time, and makes a file only once: the nodes of a cluster
// have the first one.
func TestSecret(t *testing.T) {
	t.Parallel()
	good := regexp.MustCompile(`^[0-9a-f]{64}$`)
	said := func(want int, args ...string) string {
		t.Helper()
		var out, err bytes.Buffer
		if got := run(t.Context(), append([]string{"secret"}, args...), streams{out: &out, err: &err}); got != want {
			t.Fatalf("%q: status %d, %s", args, got, err.String())
		}
		return out.String()
	}
	one, two := said(exitDone), said(exitDone)
	if one == two || !good.MatchString(one[:len(one)-1]) {
		t.Errorf("printed %q and %q", one, two)
	}
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, nil, 0o600); err != nil { // empty: as good as none
		t.Fatal(err)
	}
	said(exitDone, "-o", file)
	first := read(t, file)
	said(exitDone, "-o", file)
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if again := read(t, file); !good.MatchString(first) || first != again || info.Mode() != 0o600 {
		t.Errorf("the file has %q, then %q, and mode %v", first, again, info.Mode())
	}
	if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) != 1 {
		t.Errorf("beside it lie %v, %v", left, err)
	}
	said(exitFailed, "-o", filepath.Join(file, "below"))
	said(exitUsage, "one")
}
