package flight_test

import (
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/flight"
	"oci-proxy/transfer/oci"
)

// Most images are pulled through an index, which tells the manifest's size
// before the manifest tells the sizes of its layers.
func TestSizesAreLearntThroughAnIndex(t *testing.T) {
	t.Parallel()
	const image, index = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
	layer := digest.FromString("layer")
	manifest := fmt.Appendf(nil, `{"mediaType":%q,"layers":[{"digest":%q,"size":5}]}`, image, layer)
	list := fmt.Appendf(nil, `{"mediaType":%q,"manifests":[{"digest":%q,"size":%d}]}`, index, digest.FromBytes(manifest), len(manifest))
	s := flight.NewSizes()
	s.Learn("reg.example.com", digest.FromBytes(list), index, list)
	s.Learn("reg.example.com", digest.FromBytes(manifest), image, manifest)
	for d, want := range map[digest.Digest]int64{layer: 5, digest.FromBytes(manifest): int64(len(manifest)), digest.FromBytes(list): int64(len(list))} {
		if got := s.Get(oci.Content{Registry: "reg.example.com", Digest: d}); got != want {
			t.Errorf("a size of %d, want %d", got, want)
		}
	}
}
