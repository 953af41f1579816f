package node

import (
	"syscall"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

func TestMeshOwnersDiskIsFull(t *testing.T) {
	t.Parallel()
	small := t.TempDir()
	if err := syscall.Mount("none", small, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("a disk of two megabytes: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(small, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	c := formCluster(t, 3, upstreamtest.New(t), func(i int) form {
		if i == 0 {
			return form{settings: settings{dir: small}}
		}
		return form{}
	})
	for range 3 { // there is no room for the second blob
		b := c.blobOf(0, 3*mib/2)
		second, third := c.others(b)
		c.pull(third, b)
		c.pull(second, b)
		c.pull(0, b)
		if n := c.gets(b); n > 2 {
			t.Errorf("the registry was asked %d times", n)
		}
	}
	t.Logf("health: %s", c.get(0, "/_/health").body)
}
