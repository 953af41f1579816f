package cache

import (
	"strings"
	"testing"
)

// What a container sees of its mounts tells where its directories lie on the host.
func TestPlaceOnHost(t *testing.T) {
	t.Parallel()
	const inContainer = `600 500 0:55 / / rw,relatime - overlay overlay rw,lowerdir=/a
601 600 254:1 /srv/my\040cache /var/lib/oci-proxy rw,relatime - ext4 /dev/vda1 rw
602 600 254:1 /var/lib/docker/volumes/x/_data /var/lib/volume rw - ext4 /dev/vda1 rw
603 600 8:17 / /mnt/disk rw shared:7 - xfs /dev/sdb1 rw
604 600 254:1 /etc/hosts /etc/hosts rw - ext4 /dev/vda1 rw
605 601 0:60 / /var/lib/oci-proxy/tmp rw - tmpfs tmpfs rw
606 600 254:1 /first /twice rw - ext4 /dev/vda1 rw
607 606 254:1 /second /twice rw - ext4 /dev/vda1 rw
a line that is none
`
	onBtrfs := strings.ReplaceAll(inContainer, " - overlay ", " - btrfs ")
	for _, c := range []struct{ dir, mounts, want, device string }{
		{"/var/lib/oci-proxy", inContainer, "/srv/my cache", "/dev/vda1"},
		{"/var/lib/oci-proxy/blobs", inContainer, "/srv/my cache/blobs", "/dev/vda1"},
		{"/var/lib/oci-proxy-2", inContainer, "", ""},
		{"/var/lib/volume", inContainer, "/var/lib/docker/volumes/x/_data", "/dev/vda1"},
		{"/var/lib/oci-proxy/tmp", inContainer, "", ""},
		{"/mnt/disk", inContainer, "", ""},
		{"/twice/a", inContainer, "/second/a", "/dev/vda1"},
		{"/elsewhere", inContainer, "", ""},
		{"/var/lib/oci-proxy", onBtrfs, "", ""},
		{"/var/lib/oci-proxy", "", "", ""},
	} {
		if got, device := placeOnHost(c.dir, readMounts(strings.NewReader(c.mounts))); got != c.want || device != c.device {
			t.Errorf("%s is %q of %q on the host, want %q of %q", c.dir, got, device, c.want, c.device)
		}
	}
}

// The ids of a user namespace are others on the host.
func TestMapped(t *testing.T) {
	t.Parallel()
	const all, rootless = "         0          0 4294967295\n", "0 1000 1\n1 100000 65536\n"
	for _, c := range []struct {
		lines    string
		id, want int
	}{{all, 65532, 65532}, {rootless, 0, 1000}, {rootless, 65532, 165531}, {rootless, 70000, 70000}, {"", 5, 5}} {
		if got := mapped(c.lines, c.id); got != c.want {
			t.Errorf("id %d is %d by %q, want %d", c.id, got, c.lines, c.want)
		}
	}
}
