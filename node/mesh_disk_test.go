package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMeshOwnersDirectoryIsGone(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	known := c.blobOf(0, mib)
	c.pull(0, known)
	if err := os.RemoveAll(c.nodes[0].dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.nodes[0].dir, nil, 0o600); err != nil { // so that the directory cannot be made again
		t.Fatal(err)
	}
	for _, b := range []testBlob{known, c.blobOf(0, mib), c.blobOf(0, 100)} {
		_, third := c.others(b)
		c.pull(third, b)
		c.pull(0, b)
	}
	var health struct {
		Status  string
		Reasons []string
	}
	c.json(0, "/_/health", &health)
	if health.Status != "degraded" || len(health.Reasons) == 0 {
		t.Errorf("health is %+v", health)
	}
}

func TestMeshCorruptedFileOfTheOwner(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	b := c.blobOf(0, 4*mib)
	c.pull(0, b)
	c.corrupt(0, b, 2*mib)
	_, third := c.others(b)
	p := c.tryPull(third, b.Digest)
	if !p.whole && p.err == nil && p.n == b.size {
		t.Error("a client got a complete blob with wrong bytes")
	}
	t.Logf("the pull: whole %v, %d bytes, %v", p.whole, p.n, p.err)
	c.pull(third, b)
	c.pull(0, b)
	c.pull(0, b)
}

// corrupt flips a bit of the blob's file.
func (c *testCluster) corrupt(i int, b testBlob, at int64) {
	c.t.Helper()
	var file string
	err := filepath.WalkDir(c.nodes[i].dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.HasSuffix(path, b.Encoded()) {
			file = path
		}
		return err
	})
	if err != nil || file == "" {
		c.t.Fatalf("the blob's file: %q, %v", file, err)
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	one := make([]byte, 1)
	_, rerr := f.ReadAt(one, at)
	one[0] ^= 1
	_, werr := f.WriteAt(one, at)
	if cerr := f.Close(); rerr != nil || werr != nil || cerr != nil {
		c.t.Fatal(rerr, werr, cerr)
	}
}
