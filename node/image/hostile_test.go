package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/metrics"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// kept is a repository of manifests, and of one list of what refers to each of them.
type kept struct {
	manifests map[digest.Digest][]byte
	list      []Descriptor
}

func (k kept) put(text string) digest.Digest {
	d := digest.FromString(text)
	k.manifests[d] = []byte(text)
	return d
}

func (k kept) Manifest(_ context.Context, reference string) (Manifest, error) {
	b, ok := k.manifests[digest.Digest(reference)]
	if !ok {
		return Manifest{}, ErrNone
	}
	return NewManifest(indexType, digest.Digest(reference), b)
}

func (k kept) Referrers(context.Context, digest.Digest) ([]Descriptor, error) { return k.list, nil }

// nested puts so many indexes into one another, and returns the outermost.
func (k kept) nested(depth int) (d digest.Digest) {
	d = k.put(`{"layers":[]}`)
	for range depth - 1 {
		d = k.put(fmt.Sprintf(`{"manifests":[{"digest":%q}]}`, d))
	}
	return d
}

// Indexes that lie in one another without end, which a registry or a file may make up, take neither
// the stack nor the time of whoever follows them.
func TestIndexesInIndexesEnd(t *testing.T) {
	t.Parallel()
	for depth, want := range map[int]error{maxDepth: nil, maxDepth + 1: errDeep, 2000: errDeep} {
		k := kept{manifests: map[digest.Digest][]byte{}}
		top := k.nested(depth)
		if _, err := Walk(t.Context(), k, top.String(), All); !errors.Is(err, want) {
			t.Errorf("%d of a registry: %v", depth, err)
		}
		f, err := OpenFile(k.file(t, top))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Layout("ghcr.io/org/app:v1"); !errors.Is(err, want) {
			t.Errorf("%d of a file: %v", depth, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

// file writes the manifests into a file, top in its index.
func (k kept) file(t *testing.T, top digest.Digest) string {
	t.Helper()
	at := filepath.Join(t.TempDir(), "file")
	f, err := os.Create(at)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(f)
	index, err := json.Marshal(Index{Manifests: Descriptors{{Digest: top}}})
	err = errors.Join(err, writeFile(w, IndexName, index))
	for d, b := range k.manifests {
		err = errors.Join(err, writeFile(w, fileOf(d), b))
	}
	if err := errors.Join(err, w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return at
}

// allocated is how many bytes all goroutines have ever asked for.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// A list of nothing takes little memory, however many entries it has.
func TestListsOfNothingTakeLittle(t *testing.T) {
	many := `[` + strings.Repeat("{},", MaxManifest/3-20) + `{}]`
	text := []byte(`{"layers":` + many + `}`)
	d, before := digest.FromBytes(text), allocated()
	m, err := NewManifest("", d, text)
	if err != nil {
		t.Fatal(err)
	}
	if manifests, blobs := m.Lists(); len(manifests)+len(blobs) > 0 {
		t.Error("it lists something")
	}
	if took := allocated() - before; took > 20*MaxManifest {
		t.Errorf("a manifest of %d bytes took %d", len(text), took)
	}
	before = allocated()
	if _, err := ReadReferrers([]byte(`{"manifests":` + many + `}`)); err == nil {
		t.Error("a list of referrers that have no digest is one")
	}
	if took := allocated() - before; took > 20*MaxManifest {
		t.Errorf("a list of referrers took %d", took)
	}
}

// What refers to manifests has a bound together with them.
func TestWhatRefersIsBounded(t *testing.T) {
	t.Parallel()
	k := kept{manifests: map[digest.Digest][]byte{}}
	one := Descriptor{Digest: k.put(`{"layers":[]}`), Annotations: map[string]string{"a": strings.Repeat("x", 1<<20)}}
	var all []string
	for i := range 70 {
		all = append(all, fmt.Sprintf(`{"digest":%q}`, k.put(fmt.Sprintf(`{"annotations":{"n":"%d"}}`, i))))
	}
	top := k.put(`{"manifests":[` + strings.Join(all, ",") + `]}`)
	if _, err := Walk(t.Context(), k, top.String(), All); err != nil {
		t.Fatal(err)
	}
	k.list = []Descriptor{one}
	if _, err := Walk(t.Context(), k, top.String(), All); !errors.Is(err, errLarge) {
		t.Errorf("70 MiB of what refers to them: %v", err)
	}
}

// Descriptors are read as any list is.
func TestDescriptorsAreRead(t *testing.T) {
	t.Parallel()
	d := digest.FromString("x")
	for text, want := range map[string]int{
		`null`: 0, `[]`: 0, `{}`: -1, `"x"`: -1, `[1]`: -1, fmt.Sprintf(`[{"digest":%q},{},{"digest":"a"},{"digest":%q}]`, d, d): 3,
	} {
		list := Descriptors{{}}
		if err := json.Unmarshal([]byte(text), &list); (err != nil) != (want < 0) || err == nil && len(list) != want {
			t.Errorf("%s: %d, %v", text, len(list), err)
		}
	}
}
