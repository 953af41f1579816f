package transfer_test

import (
	"bytes"
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

// A registry that is silent about a blob's size costs a reader of a range a few seconds,
// and no more: the whole is got.
func TestARangeWhoseSizeNobodyTellsComesFromTheWhole(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T, dir string) {
		d, content := fakeBlob(2 * mib)
		r := fakeRig(t, dir, &fake{
			stat: func(ctx context.Context) (oci.Descriptor, error) { return oci.Descriptor{}, hang(ctx) },
			open: func(context.Context, oci.Ref, int64) (*oci.Stream, error) {
				return &oci.Stream{Body: endsWith(content, io.EOF), Size: int64(len(content))}, nil
			},
		}, grants.Site{}, cache.Options{})
		defer r.end()
		var got bytes.Buffer
		if took := took(func() {
			a, err := r.Part(t.Context(), fakeRef(d), func(int64) ([]oci.Span, int64) { return []oci.Span{{Offset: mib, Length: 5}}, 0 })
			if err != nil {
				t.Fatal(err)
			}
			if _, err := a.Send(t.Context(), &got, mib, 5); err != nil {
				t.Error(err)
			}
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		}); took > transfer.SizeWithin+time.Second {
			t.Errorf("it took %v", took)
		}
		if !bytes.Equal(got.Bytes(), content[mib:mib+5]) {
			t.Error("wrong bytes")
		}
		synctest.Wait()
	})
}
