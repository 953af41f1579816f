package grants

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

const imageType = "application/vnd.oci.image.manifest.v1+json"

// What a manifest lists is known as soon as it came, and after a restart. Its platform is
// known once the config has come.
func TestOutlines(t *testing.T) {
	t.Parallel()
	t.Run("noted", func(t *testing.T) { t.Parallel(); testOutlines(t, true) })
	t.Run("by an earlier version", func(t *testing.T) { t.Parallel(); testOutlines(t, false) })
}

// testOutlines plays a restart with outlines beside the content, or without, as versions have
// left it that know none.
func testOutlines(t *testing.T, noted bool) {
	dir := t.TempDir()
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
	if !noted {
		forgetOutlines(t, dir)
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
	switch o, err := s.Stock().Outline(d); {
	case noted && (err != nil || len(o.Lists) != 2):
		t.Errorf("a damaged one, beside which its outline is noted: %+v %v", o, err)
	case !noted && !errors.Is(err, cache.ErrDamaged):
		t.Errorf("a damaged one: %+v %v", o, err)
	}
}

// forgetOutlines writes what a directory holds anew by a store that knows no outlines.
func forgetOutlines(t *testing.T, dir string) {
	t.Helper()
	s := cache.Open(dir, cache.Options{})
	if err := s.Listed(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, e := range s.Stock().Entries() {
		l, err := s.Stock().Label(e.Digest)
		if err != nil || l.Outline == nil {
			t.Fatalf("%+v %v", l, err)
		}
		content, err := s.Stock().Content(e.Digest)
		if err != nil {
			t.Fatal(err)
		}
		s.Stock().Remove(t.Context(), e.Digest)
		if stored, err := s.PutOf(t.Context(), e.Digest, l.Registry, l.Repository, l.MediaType, content); !stored || err != nil {
			t.Fatal(stored, err)
		}
		if l, err = s.Stock().Label(e.Digest); err != nil || l.Outline != nil {
			t.Fatalf("%+v %v", l, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// After a start no manifest and no config is opened to tell what there is, and the tags are
// read before anybody asks.
func TestOutlinesOpenNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := OpenShard(dir, cache.Options{})
	var all []digest.Digest
	for i := range 20 {
		config := fmt.Sprintf(`{"os":"linux","architecture":"amd64","n":%d}`, i)
		m := fmt.Sprintf(`{"config":{"digest":%q},"layers":[{"digest":%q,"size":5}]}`, digest.FromString(config), digest.FromString("layer"))
		for mediaType, content := range map[string]string{"": config, imageType: m} {
			if _, err := s.PutOf(t.Context(), digest.FromString(content), "r.test", "team/app", mediaType, []byte(content)); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, digest.FromString(m))
	}
	s.SetTag(cache.Tag{Key: "r.test team/app v1 " + imageType, Digest: all[0], MediaType: imageType, Checked: time.Now()})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	var listed atomic.Bool
	var opened, tags atomic.Int64
	s = OpenShard(dir, cache.Options{Fault: func(op, name string) error {
		if op == "open" && strings.HasPrefix(name, "blobs/") && listed.Load() {
			opened.Add(1)
		}
		if op == "open" && strings.HasPrefix(name, "tags/o") {
			tags.Add(1)
		}
		return nil
	}})
	if err := s.Listed(t.Context()); err != nil {
		t.Fatal(err)
	}
	listed.Store(true)
	testkit.Await(t, "the tag is read", func() bool { return tags.Load() > 0 })
	for _, d := range all {
		if o, err := s.Stock().Outline(d); err != nil || o.Platform != "linux/amd64" || o.Repository != "team/app" || len(o.Lists) != 2 {
			t.Errorf("%+v %v", o, err)
		}
	}
	if err := s.Close(); err != nil { // what reads manifests in the background has ended
		t.Fatal(err)
	}
	if n := opened.Load(); n != 0 {
		t.Errorf("%d files are opened", n)
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
