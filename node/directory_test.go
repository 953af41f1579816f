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

// asHelper is the variable that holds the release directory of a helper process. The
// whole process has one working directory, so a test that changes it needs a process of
// its own.
const asHelper = "NODE_TEST_RELEASE"

// A node with a relative cache_dir runs in a release directory. It goes on
// serving when the directory is renamed, or when the link that leads to it is changed to
// the next release.
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
	m := newMoved(t)
	m.pull("before", 1)
	if current == release {
		release = filepath.Join(root, "release-0")
		if err := os.Rename(current, release); err != nil {
			t.Fatal(err)
		}
	} else {
		if err := os.Mkdir(filepath.Join(root, "release-2"), 0o700); err != nil {
			t.Fatal(err)
		}
		symlink(t, "release-2", current)
	}
	m.pull("after", 1)
	m.log.Await(t, `a directory above the cache directory was renamed`, 1)
	m.pull("after the store has looked", 1)
	m.pull("after, new ones", 2)
	m.get("/_/metrics").want(t, http.StatusOK)
	m.get("/_/health").want(t, http.StatusOK)
	m.close()
	if left, err := filepath.Glob(filepath.Join(current, "*")); err != nil || len(left) > 0 {
		t.Errorf("the node wrote to %q, %v", left, err)
	}
	t.Chdir(release)
	t.Setenv("PWD", release)
	m.serve()
	for _, one := range m.registries {
		one.Down()
	}
	m.pull("after a restart in an outage", 1)
	m.pull("after a restart in an outage", 2)
}

// A moved is a node with relative cache directories: one for a public registry, and one
// for a private registry, with notes about its grants beside the content.
type moved struct {
	*proxy
	registries map[string]*upstreamtest.Registry // by the path's beginning
}

func newMoved(t *testing.T) *moved {
	private := upstreamtest.Bearer(upstreamtest.BearerAuth{User: "robot", Password: robotsPassword})
	m := &moved{
		proxy:      &proxy{t: t},
		registries: map[string]*upstreamtest.Registry{"/v2/": upstreamtest.New(t), "/v2/own/": upstreamtest.New(t, private)},
	}
	m.serve()
	return m
}

// serve serves the node in the working directory.
func (m *moved) serve() {
	m.t.Helper()
	m.proxy = newProxy(m.t, m.registries["/v2/"], settings{dir: "cache", more: fmt.Sprintf(
		"  %q: {insecure: true, cache_dir: ./own, alias: [own], auth: {username: robot, password: %s}}", m.registries["/v2/own/"].Host(), robotsPassword)})
}

// pull pulls a blob of each registry twice.
func (m *moved) pull(when string, seed uint64) {
	m.t.Helper()
	for prefix, registry := range m.registries {
		content := random(seed, 100<<10)
		d := registry.PutBlob(repo, content)
		for range 2 {
			if a := m.get(prefix + repo + "/blobs/" + d.String()); a.StatusCode != http.StatusOK || !bytes.Equal(a.body, content) {
				m.t.Errorf("%s: %s: status %d, %d bytes, %v", when, prefix, a.StatusCode, len(a.body), a.err)
			}
		}
	}
}

// symlink makes a link. It replaces one that exists.
func symlink(t *testing.T, to, path string) {
	t.Helper()
	if err := os.Symlink(to, path+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
