package flight

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

const imageType = "application/vnd.oci.image.manifest.v1+json"

// learn gives s a manifest that tells the size of a layer.
func learn(s *Sizes, registry, layer string, size int64) oci.Content {
	m := fmt.Appendf(nil, `{"schemaVersion":2,"layers":[{"digest":%q,"size":%d}]}`, digest.FromString(layer), size)
	c := oci.Content{Registry: registry, Digest: digest.FromBytes(m)}
	s.Learn(registry, c.Digest, imageType, m)
	if got := s.Get(c); got != int64(len(m)) {
		panic(fmt.Sprint("the manifest's own size: ", got))
	}
	return oci.Content{Registry: registry, Digest: digest.FromString(layer)}
}

func TestSizesComeFromManifests(t *testing.T) {
	t.Parallel()
	s := NewSizes()
	layer := learn(s, "reg.example.com", "layer", 100)
	if got := s.Get(layer); got != 100 {
		t.Errorf("the layer has %d bytes, want 100", got)
	}
	if got := s.Get(oci.Content{Registry: "evil.example.com", Digest: layer.Digest}); got != unknown {
		t.Errorf("the size is %d for another registry, which told none", got)
	}
	learn(s, "evil.example.com", "layer", 999)
	if got := s.Get(layer); got != 100 {
		t.Errorf("another registry changed the size to %d", got)
	}
	learn(s, "reg.example.com", "layer", 101)
	if got := s.Get(layer); got != unknown {
		t.Errorf("two manifests disagree, and the size is %d", got)
	}
	learn(s, "reg.example.com", "layer", 102)
	if got := s.Get(layer); got != unknown {
		t.Errorf("manifests disagreed before, and the size is %d", got)
	}
}

func TestSizesAreForgottenOneAtATime(t *testing.T) {
	t.Parallel()
	s := NewSizes()
	first := learn(s, "reg.example.com", "first", 1)
	second := learn(s, "reg.example.com", "second", 2)
	for i := range maxSizes/2 - 1 { // each has two sizes, so there are two more than the bound
		learn(s, "reg.example.com", strconv.Itoa(i), 3)
	}
	if s.Get(first) != unknown || s.Get(second) != 2 {
		t.Errorf("the sizes are %d and %d, want only the second to be known", s.Get(first), s.Get(second))
	}
}
