package node

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// asHelper names the release directory of a helper process. A working directory is
// the whole process's, so a test that changes it needs one of its own.
const asHelper = "NODE_TEST_RELEASE"

// A node with a relative cache_dir runs in a release directory. The directory is
// renamed, or the link that leads to it is turned to the next release: it serves on.
func TestARenamedWorkingDirectoryChangesNothing(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, move := range map[string]string{"renamed": "rename", "a link that is turned": "turn"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestServeInAMovedRelease$", "-test.v")
			cmd.Env = append(os.Environ(), asHelper+"="+t.TempDir(), asHelper+"_BY="+move)
			if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("PASS: TestServeInAMovedRelease")) {
				t.Errorf("the node: %v\n%s", err, out)
			}
		})
	}
}

// TestServeInAMovedRelease is the helper process.
func TestServeInAMovedRelease(t *testing.T) {
	root := os.Getenv(asHelper)
	if root == "" {
		t.Skip("it runs in a process of its own")
	}
	release := filepath.Join(root, "release-1")
	current := release
	if err := os.Mkdir(release, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Getenv(asHelper+"_BY") == "turn" {
		current = filepath.Join(root, "current")
		symlink(t, "release-1", current)
	}
	t.Chdir(current)
	t.Setenv("PWD", current) // as a shell sets it
	up, own := upstreamtest.New(t), upstreamtest.New(t)
	p := newProxy(t, up, settings{dir: "cache", more: fmt.Sprintf("  %q: {insecure: true, cache_dir: ./own, alias: [own]}", own.Host())})
	blobs := map[string]*upstreamtest.Registry{"/v2/": up, "/v2/own/": own}
	pull := func(when string, seed uint64) {
		t.Helper()
		for prefix, registry := range blobs {
			content := random(seed, 100<<10)
			d := registry.PutBlob(repo, content)
			for range 2 {
				if a := p.get(prefix + repo + "/blobs/" + d.String()); a.StatusCode != http.StatusOK || !bytes.Equal(a.body, content) {
					t.Errorf("%s: status %d, %d bytes, %v", when, a.StatusCode, len(a.body), a.err)
				}
			}
		}
	}
	pull("before", 1)
	if current == release {
		if err := os.Rename(release, filepath.Join(root, "release-0")); err != nil {
			t.Fatal(err)
		}
	} else {
		if err := os.Mkdir(filepath.Join(root, "release-2"), 0o700); err != nil {
			t.Fatal(err)
		}
		symlink(t, "release-2", current)
	}
	pull("after", 1)
	pull("after, new ones", 2)
	p.get("/_/metrics").want(t, http.StatusOK)
}

// symlink makes a link, in place of one that may be there.
func symlink(t *testing.T, to, path string) {
	t.Helper()
	if err := os.Symlink(to, path+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
