package cache

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

// outlining are options that note the length of each blob, and remember what they hear.
type outlining struct {
	Options
	mu     sync.Mutex // guards labels
	labels map[digest.Digest]Label
}

func newOutlining() *outlining {
	o := &outlining{labels: map[digest.Digest]Label{}}
	o.Outline = func(_ string, content []byte) []byte {
		if bytes.HasPrefix(content, []byte("long")) {
			return fmt.Appendf(nil, "%q", strings.Repeat("x", pageSize-100))
		}
		return fmt.Appendf(nil, `{ "n": %d }`, len(content))
	}
	o.Outlined = func(l Label) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.labels[l.Digest] = l
	}
	return o
}

// heard returns all that was heard.
func (o *outlining) heard() map[digest.Digest]Label {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.labels)
}

// put puts a blob of a repository into a store.
func put(t *testing.T, s *Store, repository, mediaType string, b sample) {
	t.Helper()
	if stored, err := s.PutOf(t.Context(), b.digest, registry, repository, mediaType, b.content); !stored || err != nil {
		t.Fatal(stored, err)
	}
}

// The outline of a small blob is told when it comes, and after a restart, without a look at
// its content.
func TestOutlines(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	man, blob, turned, large := newSample(1, 500), newSample(2, 1000), newSample(3, 700), newSample(4, smallSize+1)
	long := sample{content: []byte("long")}
	long.digest = digest.FromBytes(long.content)
	o := newOutlining()
	s := start(t, dir, o.Options)
	put(t, s, "team/app", "application/json", man)
	put(t, s, "team/app", "application/json", long)
	put(t, s, "", "application/json", large)
	keep(t, s, blob)
	keep(t, s, turned)
	put(t, s, "team/late", "application/json", turned) // it turns out to be a manifest
	check := func(when string, whole bool) {
		t.Helper()
		want := map[digest.Digest]Label{
			man.digest:    {man.digest, registry, "team/app", "application/json", []byte(`{"n":500}`)},
			blob.digest:   {blob.digest, registry, "", "", []byte(`{"n":1000}`)},
			turned.digest: {turned.digest, registry, "team/late", "application/json", []byte(`{"n":700}`)},
		}
		got := o.heard()
		if _, heard := got[long.digest]; heard != whole {
			t.Errorf("%s: the outline that is too long is told: %v", when, heard)
		}
		delete(got, long.digest)
		if len(got) != len(want) {
			t.Errorf("%s: %d are told", when, len(got))
		}
		for d, w := range want {
			for _, l := range []Label{got[d], labelOf(t, s, d)} {
				if fmt.Sprint(compact(l)) != fmt.Sprint(w) {
					t.Errorf("%s: %+v, want %+v", when, l, w)
				}
			}
		}
		for _, none := range []digest.Digest{long.digest, large.digest} {
			if l := labelOf(t, s, none); l.Outline != nil || l.MediaType != "application/json" {
				t.Errorf("%s: %+v", when, l)
			}
		}
	}
	check("first", true)
	_ = s.Close()

	o = newOutlining()
	s = start(t, dir, o.Options)
	check("after a restart", false)
	want(t, s, man)
	want(t, s, blob)
	tidy(t, s)
	if info, err := os.Stat(man.path(dir) + ".meta"); err != nil || info.Size() > pageSize {
		t.Error(info, err)
	}
}

// labelOf is what lies beside a blob.
func labelOf(t *testing.T, s *Store, d digest.Digest) Label {
	t.Helper()
	l, err := s.Stock().Label(d)
	if err != nil {
		t.Error(err)
	}
	return l
}

// compact returns a label whose outline has no spaces.
func compact(l Label) Label {
	var b bytes.Buffer
	_ = json.Compact(&b, l.Outline) // an error leaves it empty
	l.Outline = b.Bytes()
	return l
}

// A store whose owner knows no outlines, as earlier versions, reads metas that have some, and
// one that does reads those that have none.
func TestOutlinesOfOtherVersions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	before, after := newSample(1, 500), newSample(2, 600)
	s := start(t, dir, Options{})
	put(t, s, "team/app", "application/json", before)
	_ = s.Close()

	o := newOutlining()
	s = start(t, dir, o.Options)
	put(t, s, "team/app", "application/json", after)
	if all := o.heard(); len(all) != 1 || all[after.digest].Outline == nil {
		t.Errorf("%+v", all)
	}
	want(t, s, before)
	_ = s.Close()
	raw, err := os.ReadFile(after.path(dir) + ".meta")
	if err != nil {
		t.Fatal(err)
	}
	var earlier struct { // as before outlines
		Version    int           `json:"version"`
		Digest     digest.Digest `json:"digest"`
		Size       int64         `json:"size"`
		Chunk      int64         `json:"chunk"`
		Registry   string        `json:"registry"`
		MediaType  string        `json:"media_type,omitempty"`
		Repository string        `json:"repository,omitempty"`
	}
	if sums, err := decodeSums(raw, &earlier); err != nil || len(sums) != 1 || earlier.Size != 600 || earlier.Repository != "team/app" || earlier.Version != metaVersion {
		t.Errorf("%+v %v", earlier, err)
	}

	s = start(t, dir, Options{})
	for _, b := range []sample{before, after} {
		if m, err := s.Manifest(b.digest); err != nil || m.MediaType != "application/json" || !bytes.Equal(m.Content, b.content) {
			t.Errorf("%+v %v", m, err)
		}
	}
}
