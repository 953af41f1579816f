package grants

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

// What a manifest lists is known as soon as it came, and soon after a restart. Its platform
// is known once the config has come.
func TestOutlines(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const imageType = "application/vnd.oci.image.manifest.v1+json"
	config := `{"os":"linux","architecture":"arm64","variant":"v8"}`
	layer := digest.FromString("layer")
	m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"digest":%q,"size":%d},"layers":[{"digest":%q,"size":5}]}`, imageType, digest.FromString(config), len(config), layer)
	d := digest.FromString(m)
	s := OpenShard(dir, cache.Options{})
	if _, err := s.PutOf(t.Context(), d, "r.test", "team/app", imageType, []byte(m)); err != nil {
		t.Fatal(err)
	}
	check := func(s *Shard, platform string) {
		t.Helper()
		o, err := s.Stock().Outline(d)
		if err != nil || o.Repository != "team/app" || o.MediaType != imageType || len(o.Lists) != 2 || !o.Lists[0].Config || o.Lists[1] != (oci.Listed{Digest: layer, Size: 5}) || o.Platform != platform {
			t.Errorf("%+v %v", o, err)
		}
	}
	if _, known := s.stock.outlines.get(d); !known {
		t.Error("it is read again")
	}
	check(s, "")
	if _, err := s.Put(t.Context(), digest.FromString(config), "r.test", "", []byte(config)); err != nil {
		t.Fatal(err)
	}
	check(s, "linux/arm64/v8")
	if _, err := s.Stock().Outline(digest.FromString("none")); !errors.Is(err, cache.ErrNotFound) {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = OpenShard(dir, cache.Options{})
	testkit.Await(t, "it is read after the restart", func() bool {
		o, known := s.stock.outlines.get(d)
		return known && o.Platform != ""
	})
	check(s, "linux/arm64/v8")
	_ = s.Close()

	if err := os.WriteFile(filepath.Join(dir, "blobs/sha256", d.Encoded()[:2], d.Encoded()), make([]byte, len(m)), 0o600); err != nil {
		t.Fatal(err)
	}
	s = OpenShard(dir, cache.Options{})
	defer func() { _ = s.Close() }()
	if err := s.Listed(t.Context()); err != nil {
		t.Fatal(err)
	}
	if o, err := s.Stock().Outline(d); !errors.Is(err, cache.ErrDamaged) {
		t.Errorf("a damaged one: %+v %v", o, err)
	}
}

// Manifests, and all that they list, are remembered within bounds.
func TestOutlinesAreBounded(t *testing.T) {
	t.Parallel()
	o := newOutlines()
	long := Outline{Lists: make([]oci.Listed, maxListed/4)}
	for i := range 10 {
		o.put(digest.FromString(fmt.Sprint(i)), long)
	}
	if o.lru.Len() > 4 || o.listed > maxListed || !o.full() {
		t.Errorf("%d manifests that list %d", o.lru.Len(), o.listed)
	}
	for range 10 {
		o.put(digest.FromString("9"), Outline{Lists: make([]oci.Listed, 1)})
	}
	if _, known := o.get(digest.FromString("9")); !known || o.listed > maxListed*3/4+1 {
		t.Errorf("after the same manifest came again, %d are listed", o.listed)
	}
}
