package transfer_test

import (
	"slices"
	"testing"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// The page of a login portal does not have the blob's size. The part of the blob that
// came before is kept until the registry can be reached again.
func TestAPortalsPageDoesNotCostAPart(t *testing.T) {
	t.Parallel()
	const size, n = 5 * mib, 2 * mib
	dir := t.TempDir()
	r, ref, content := leavePart(t, dir, 31, size, n)
	again := newRig(t, setup{dir: dir, registry: r.registry})
	again.registry.Fault(upstreamtest.PortalPage())
	if _, _, err := again.pull(ref, content, 0, -1); err == nil {
		t.Fatal("the page was served as the blob")
	}
	again.events.await(notFilled, 1)
	again.registry.ClearFaults()
	again.mustPull(ref, content, oci.Miss)
	if got := again.ranges(ref.Digest); !slices.Contains(got, "bytes=2097152-") || got[len(got)-1] != "bytes=2097152-" {
		t.Errorf("upstream was asked for %q", got)
	}
}
