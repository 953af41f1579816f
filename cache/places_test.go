package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/testkit"
)

// placesOf returns the places in the directory in use.
func placesOf(t *testing.T, s *Store) *placesIn {
	t.Helper()
	in, err := s.tags.places.in(s.tags.dir.inUse())
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// byName takes a registry for a stranger if its name begins with "strange".
func byName(registry string) Group {
	return Group{Name: registry, Stranger: strings.HasPrefix(registry, "strange")}
}

// noted notes a tag.
func noted(s *Store, key string) Tag {
	tag := Tag{Key: key, Digest: digest.FromString(key), Checked: time.Now().UTC().Round(0)}
	s.SetTag(tag)
	return tag
}

// tagsOnDisk counts the files in an area, and the most in one directory.
func tagsOnDisk(t *testing.T, s *Store, a area) (n, most int) {
	t.Helper()
	dirs, err := os.ReadDir(filepath.Join(s.dir, a.dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		files, err := os.ReadDir(filepath.Join(s.dir, a.dir, dir.Name()))
		if err != nil {
			t.Fatal(err)
		}
		n, most = n+len(files), max(most, len(files))
	}
	return n, most
}

// crowdIn writes empty tags' files into the directory that a tag lies in, as those of
// so many other registries and repositories.
func crowdIn(t *testing.T, s *Store, at string, files, registries, repositories int, age time.Duration) {
	t.Helper()
	dir := filepath.Join(s.dir, filepath.Dir(at))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range files {
		name := filepath.Join(dir, fmt.Sprintf("%08x-%08x-%040x", i%registries, i%repositories, i))
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(name, time.Now().Add(-age), time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
}

// The key is drawn for each directory: nobody can choose names that go to one place.
func TestPlacesCannotBeChosen(t *testing.T) {
	t.Parallel()
	s, other := start(t, t.TempDir(), Options{}), start(t, t.TempDir(), Options{})
	const key = "r.example team/app v1 */*"
	first := placesOf(t, s).of(key)
	if first == placesOf(t, other).of(key) || strings.Contains(first, filepath.Base(oldTagPath(key))) {
		t.Errorf("%s does not depend on the directory", first)
	}
	known := noted(s, key)
	s = restart(t, s, Options{})
	if got, ok := s.Tag(key); !ok || got != known || placesOf(t, s).of(key) != first {
		t.Errorf("after a restart: %+v", got)
	}
	// A damaged key costs the tags, and no more.
	flip(t, filepath.Join(s.dir, placesKey), 3)
	s = restart(t, s, Options{})
	if got, ok := s.Tag(key); ok {
		t.Errorf("found without its key: %+v", got)
	}
	noted(s, key)
	s = restart(t, s, Options{})
	if got, ok := s.Tag(key); !ok || got.Digest != known.Digest {
		t.Errorf("after a new key: %+v", got)
	}
}

// Whoever has more goes first: another registry, another repository of the same one.
func TestATagIsNotPushedOutByWhoHasMore(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ registries, repositories int }{
		"one registry with very many tags": {1, 1},
		"one with very many repositories":  {1, 1000},
		"some registries":                  {20, 50},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, t.TempDir(), Options{Group: byName})
			for _, victim := range []string{"r.example team/app v1", "strange.example team/app v1"} {
				noted(s, victim)
				at := placesOf(t, s).of(victim)
				old := time.Now().Add(-24 * time.Hour)
				if err := os.Chtimes(filepath.Join(s.dir, at), old, old); err != nil {
					t.Fatal(err)
				}
				crowdIn(t, s, at, 400, c.registries, c.repositories, 0)
				if err := thin(&s.tags.dir.inUse().root, at); err != nil {
					t.Fatal(err)
				}
			}
			s = restart(t, s, Options{Group: byName})
			for _, victim := range []string{"r.example team/app v1", "strange.example team/app v1"} {
				if _, ok := s.Tag(victim); !ok {
					t.Errorf("%s was pushed out", victim)
				}
			}
			for _, a := range []area{ownArea, strangerArea} {
				if _, most := tagsOnDisk(t, s, a); most > a.most {
					t.Errorf("%d files in a directory of %s", most, a.dir)
				}
			}
		})
	}
}

// In the same registry the repository with the most gives way, and within it the oldest.
func TestARepositoryIsNotPushedOutByAnotherOfItsRegistry(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	in := placesOf(t, s)
	noted(s, "hub.example victim/app v1")
	at := in.of("hub.example victim/app v1")
	registry, _, _ := strings.Cut(filepath.Base(at), "-")
	dir := filepath.Join(s.dir, filepath.Dir(at))
	for i := range 2 * ownArea.most {
		name := filepath.Join(dir, fmt.Sprintf("%s-%08x-%040x", registry, 7, i))
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		written := time.Now().Add(time.Duration(i) * time.Second) // all newer than the victim's
		if err := os.Chtimes(name, written, written); err != nil {
			t.Fatal(err)
		}
	}
	if err := thin(&s.tags.dir.inUse().root, at); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(s.dir, at)); err != nil {
		t.Error("the victim's note:", err)
	}
	oldest, newest := filepath.Join(dir, fmt.Sprintf("%s-%08x-%040x", registry, 7, 0)), filepath.Join(dir, fmt.Sprintf("%s-%08x-%040x", registry, 7, 2*ownArea.most-1))
	if _, err := os.Stat(oldest); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the oldest of the other repository stays:", err)
	}
	if _, err := os.Stat(newest); err != nil {
		t.Error("the newest of the other repository:", err)
	}
}

// With real notes: one client's 10,000 tags, a thousand registries with one each, and
// strangers without number leave a configured registry's notes alone.
func TestFloodsOfTagsLeaveOthersAlone(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	s := start(t, t.TempDir(), Options{Group: byName})
	var victims []string
	for i := range 20 {
		victims = append(victims, fmt.Sprintf("r.example team/app v%d", i))
		noted(s, victims[i])
	}
	noted(s, "strange.example team/app v1")
	for i := range 10_000 {
		noted(s, fmt.Sprintf("greedy.example a/b v%d", i))
	}
	for i := range 1000 {
		noted(s, fmt.Sprintf("r%d.example a/b v1", i))
	}
	for i := range 20_000 {
		noted(s, fmt.Sprintf("strange-too.example a/b v%d", i))
	}
	for _, a := range []area{ownArea, strangerArea} {
		if n, most := tagsOnDisk(t, s, a); most > a.most {
			t.Errorf("%s: %d files, %d in one directory", a.dir, n, most)
		}
	}
	s = restart(t, s, Options{Group: byName})
	for _, key := range append(victims, "strange.example team/app v1") {
		if _, ok := s.Tag(key); !ok {
			t.Errorf("%s was pushed out", key)
		}
	}
}

// In memory, too, strangers push out strangers alone.
func TestStrangersPushOutStrangersInMemory(t *testing.T) {
	t.Parallel()
	tags := newTags(nil, &directory{}, byName)
	tags.keep(Tag{Key: "r.example a v1"})
	for i := range 2 * maxTags {
		tags.keep(Tag{Key: fmt.Sprintf("strange%d.example a v1", i)})
	}
	if _, ok := tags.get("r.example a v1"); !ok || tags.strangers.Len() != maxTags {
		t.Errorf("known: %v, %d strangers", ok, tags.strangers.Len())
	}
}

// Notes of earlier versions are read over, and so are those of a registry that was not
// configured before. Each tag has one file, and none once it is forgotten.
func TestTagsMoveToTheirPlaces(t *testing.T) {
	t.Parallel()
	const key, gone = "r.example team/app v1 */*", "r.example team/app v2 */*"
	s, f := folderOf(t, t.TempDir(), Options{})
	old := Tag{Key: key, Digest: digest.FromString("old"), Checked: time.Now().UTC().Round(0)}
	for _, k := range []string{key, gone} {
		old.Key = k
		if err := f.WriteOldTag(old); err != nil {
			t.Fatal(err)
		}
	}
	old.Key = key
	s.ForgetTag(gone)
	strange := func(registry string) Group { return Group{registry, true} }
	for _, group := range []func(string) Group{nil, strange, nil} {
		s = restart(t, s, Options{Group: group})
		if got, ok := s.Tag(key); !ok || got != old {
			t.Errorf("%+v, want %+v", got, old)
		}
		if got, ok := s.Tag(gone); ok {
			t.Errorf("%+v was forgotten", got)
		}
		files := 0
		for _, at := range placesOf(t, s).all(key) {
			if _, err := os.Stat(filepath.Join(s.dir, at)); err == nil {
				files++
			}
		}
		if _, err := os.Stat(filepath.Join(s.dir, placesOf(t, s).of(key))); err != nil || files != 1 {
			t.Errorf("%d files, its own: %v", files, err)
		}
	}
	s.ForgetTag(key)
	s = restart(t, s, Options{})
	if got, ok := s.Tag(key); ok {
		t.Errorf("%+v was forgotten", got)
	}
}
