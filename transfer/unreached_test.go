package transfer_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

// A download that broke off goes on at the byte reached, however often nobody is reached
// meanwhile: that says nothing of ranges. A registry that is reached and refuses them is asked
// for the whole.
func TestOnlyARegistryThatWasReachedRefusesRanges(t *testing.T) {
	t.Parallel()
	const size, cut = 1 << 20, 700_000
	d, content := fakeBlob(size)
	for name, test := range map[string]struct {
		unreached int     // so many tries, the first after the break
		want      []int64 // the offsets asked for
	}{
		"nobody is reached":                 {5, []int64{0, cut, cut, cut, cut, cut}},
		"ranges fail":                       {0, []int64{0, cut, cut, 0}},
		"nobody is reached, then they fail": {4, []int64{0, cut, cut, cut, cut, cut, cut, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, func(t *testing.T, dir string) {
				var asked []int64
				f := &fake{open: func(_ context.Context, _ oci.Ref, o int64) (*oci.Stream, error) {
					asked = append(asked, o)
					switch n := len(asked); {
					case n == 1:
						return &oci.Stream{Size: size, Body: endsWith(content[:cut], errors.New("cut"))}, nil
					case n < len(test.want):
						err := failure(oci.Unavailable)
						err.Unreached = n <= 1+test.unreached
						return nil, err
					default:
						return &oci.Stream{Size: size, Offset: o, Body: endsWith(content[o:], io.EOF)}, nil
					}
				}}
				r := fakeRig(t, dir, f, grants.Site{}, cache.Options{})
				defer r.end()
				r.mustPull(fakeRef(d), content, oci.Miss)
				if !slices.Equal(asked, test.want) {
					t.Errorf("asked for the bytes from %d on, want %d", asked, test.want)
				}
			})
		})
	}
}
