package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestOwnGivesADirectory: to the user alone, at once, and again without any effect.
func TestOwnGivesADirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may give files away")
	}
	dir := filepath.Join(t.TempDir(), "cache")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var out, errs bytes.Buffer
		if status := run(t.Context(), []string{"own", dir, "65532"}, streams{out: &out, err: &errs}); status != exitDone {
			t.Fatalf("exit status %d: %s", status, &errs)
		}
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		if st.Uid != 65532 || st.Gid != 65532 || info.Mode().Perm() != 0o700 {
			t.Errorf("the directory is %d:%d's, %v; want 65532:65532, 0700", st.Uid, st.Gid, info.Mode().Perm())
		}
	}
}

// TestOwnLeavesWhatTheUserHas: a node that runs keeps its directory as it is.
func TestOwnLeavesWhatTheUserHas(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := giveTo(dir, os.Geteuid()); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("the directory became %v, %v", info.Mode().Perm(), err)
	}
}

// A folder that others use is not taken from them.
func TestOwnTakesNoFolderOfOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "theirs"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := giveTo(dir, os.Geteuid()+1); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("it says %v", err)
	}
	if after, err := os.Stat(dir); err != nil || after.Mode() != before.Mode() {
		t.Errorf("the folder became %v, %v", after.Mode(), err)
	}
}

func TestOwnSaysWhatIsWrong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args   []string
		status int
		says   string
	}{
		"no user":         {[]string{"own", file}, exitUsage, "the number of a user"},
		"a user by name":  {[]string{"own", file, "nobody"}, exitUsage, `"nobody" is not the number`},
		"a user below 0":  {[]string{"own", file, "-1"}, exitUsage, `"-1" is not the number`},
		"a file":          {[]string{"own", file, "65532"}, exitFailed, "is not a directory"},
		"nothing there":   {[]string{"own", file + "-", "65532"}, exitFailed, "no such file"},
		"hold wants none": {[]string{"hold", "me"}, exitUsage, `unexpected argument "me"`},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			status := run(t.Context(), c.args, streams{out: &out, err: &errs})
			if status != c.status || !strings.Contains(errs.String(), c.says) {
				t.Errorf("exit status %d, %q; want %d and %q", status, &errs, c.status, c.says)
			}
		})
	}
}

// TestHoldEndsWhenTold: with status 0, as a pod that ended well.
func TestHoldEndsWhenTold(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan int, 1)
	go func() { done <- run(ctx, []string{"hold"}, streams{out: &bytes.Buffer{}, err: &bytes.Buffer{}}) }()
	select {
	case status := <-done:
		t.Fatalf("it ended by itself with status %d", status)
	default:
	}
	stop()
	if status := <-done; status != exitDone {
		t.Errorf("exit status %d, want 0", status)
	}
}
