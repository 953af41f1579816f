package transfer_test

import (
	"context"
	"testing"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

// A registry that sends a byte now and then keeps a download going only while a client
// waits for the blob.
func TestDripForNobodyEnds(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	d, content := fakeBlob(size)
	testkit.Bubble(t, func(t *testing.T, dir string) {
		ended := make(chan struct{})
		f := &fake{open: func(ctx context.Context, _ oci.Ref, _ int64) (*oci.Stream, error) {
			context.AfterFunc(ctx, func() { close(ended) })
			return &oci.Stream{Size: size, Body: dripping(ctx, append(make([]byte, 0, size), content...), 1<<13, 10*time.Second)}, nil
		}}
		r := fakeRig(t, dir, f, grants.Site{Stranger: true}, cache.Options{Bound: 2 * size})
		defer r.end()
		a, err := r.Blob(t.Context(), fakeRef(d))
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-time.After(2 * time.Minute):
		case <-ended:
			t.Error("the download ends although a client waits for the blob")
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		select {
		case <-time.After(time.Minute):
			t.Error("the download goes on although no client waits for the blob")
		case <-ended:
		}
	})
}
