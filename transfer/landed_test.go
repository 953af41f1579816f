package transfer_test

import (
	"context"
	"io"
	"strconv"
	"testing"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
)

// A private registry offers no HEAD, so each repository has to deliver a layer that many
// share. Each time a request is about to ask, the layer may just have come for another
// repository. That is no reason to give up.
func TestOthersLandingsDoNotUseUpTheAttempts(t *testing.T) {
	t.Parallel()
	d, content := fakeBlob(mib)
	var r *rig
	others, nested := 0, false
	f := &fake{open: func(_ context.Context, _ oci.Ref, o int64) (*oci.Stream, error) {
		return stream(o, endsWith(content[o:], io.EOF)), nil
	}}
	f.stat = func(context.Context) (oci.Descriptor, error) {
		if !nested {
			nested, others = true, others+1
			if _, _, err := r.pull(in(fakeRef(d), "other/"+strconv.Itoa(others)), content, 0, -1); err != nil {
				t.Error("another repository:", err)
			}
			nested = false
		}
		return oci.Descriptor{Size: 1}, nil // it tells of other content
	}
	r = fakeRig(t, t.TempDir(), f, grants.Site{Private: true}, cache.Options{})
	t.Cleanup(r.end)
	if _, _, err := r.pull(in(fakeRef(d), "first/app"), content, 0, -1); err != nil {
		t.Fatal(err)
	}
	r.events.await(filled, 1)
	if _, _, err := r.pull(fakeRef(d), content, 0, -1); err != nil {
		t.Errorf("after %d landings: %v", others, err)
	}
}
