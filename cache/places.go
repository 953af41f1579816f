package cache

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// A Group says with whom a registry shares places for tags, and whether it is a
// stranger: one that nobody configured. Strangers have an area of their own.
type Group struct {
	Name     string
	Stranger bool
}

// Most files of tags in each of 256 directories, a page each: 64 Ki of registries
// that are configured, 16 Ki of all others.
const (
	maxOwn       = 256
	maxStrangers = 64
)

// An area is where tags lie, and how many fit into one of its directories.
type area struct {
	dir  string
	most int
}

var (
	ownArea      = area{"tags/own", maxOwn}
	strangerArea = area{"tags/others", maxStrangers}
)

// areaOf returns a group's area.
func areaOf(g Group) area {
	if g.Stranger {
		return strangerArea
	}
	return ownArea
}

// places tell where tags lie. All is hashed with a key that is drawn for each cache
// directory, so that nobody can choose names that go to one place.
type places struct {
	group func(registry string) Group
	keys  turns[*disk]
	known atomic.Pointer[placesIn]
}

// placesIn are the places in one cache directory.
type placesIn struct {
	disk  *disk
	key   []byte
	group func(registry string) Group
}

// placesKey is the file of a directory's key.
const placesKey = "tags/key"

// newPlaces returns places. group nil: each registry is by itself and configured.
func newPlaces(group func(registry string) Group) *places {
	if group == nil {
		group = func(registry string) Group { return Group{Name: registry} }
	}
	return &places{group: group}
}

// in returns the places in a directory. It reads its key, or draws one.
func (p *places) in(d *disk) (*placesIn, error) {
	if known := p.known.Load(); known != nil && known.disk == d {
		return known, nil
	}
	end, err := p.keys.take(context.Background(), d) // fails only at the context's end and after close
	if err != nil {
		return nil, err
	}
	defer end()
	if known := p.known.Load(); known != nil && known.disk == d {
		return known, nil
	}
	key, err := readKey(&d.root)
	if err != nil {
		return nil, err
	}
	in := &placesIn{d, key, p.group}
	p.known.Store(in)
	return in, nil
}

// readKey reads a directory's key. If there is none, or it is damaged, it draws one:
// the tags noted before are then found no more, and go in time.
func readKey(r *root) ([]byte, error) {
	raw, err := r.read(placesKey)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if key, ok := unseal(raw); ok && len(key) == sha256.Size {
		return key, nil
	}
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails (crypto/rand)
	return key, r.writeFile(placesKey, seal(key))
}

// of returns where the tag of that key lies.
func (p *placesIn) of(key string) string { return p.at(areaOf(p.group(registryOf(key))), key) }

// all returns where the tag of that key may lie: its place, then that in the other
// area, where it lies if its registry was or was not configured before, then that of
// earlier versions.
func (p *placesIn) all(key string) []string {
	now := p.of(key)
	out := []string{now}
	for _, a := range []area{ownArea, strangerArea} {
		if at := p.at(a, key); at != now {
			out = append(out, at)
		}
	}
	return append(out, oldTagPath(key))
}

// at returns where the tag of that key lies in an area: xx/registry-repository-tag, all
// as hashes.
func (p *placesIn) at(a area, key string) string {
	registry, rest, _ := strings.Cut(key, " ")
	repository, _, _ := strings.Cut(rest, " ")
	tag := p.sum("tag", key)
	return path.Join(a.dir, tag[:2], p.sum("registry", p.group(registry).Name)[:8]+"-"+p.sum("repository", registry+" "+repository)[:8]+"-"+tag[:40])
}

// registryOf is the registry of a tag's key.
func registryOf(key string) string {
	registry, _, _ := strings.Cut(key, " ")
	return registry
}

// sum hashes what of some kind.
func (p *placesIn) sum(kind, what string) string {
	mac := hmac.New(sha256.New, p.key)
	mac.Write([]byte(kind + "\x00" + what))
	return hex.EncodeToString(mac.Sum(nil))
}

// thin removes files from the directory that a tag lies in if there are too many: of
// the registry with the most files in it, there of the repository with the most, the
// file that was written the longest ago. So none pushes out what belongs to another
// that has less. A quarter goes at once.
func thin(r *root, at string) (err error) {
	dir, most := path.Dir(at), ownArea.most
	if strings.HasPrefix(dir, strangerArea.dir) {
		most = strangerArea.most
	}
	entries, err := r.list("list", dir)
	if err != nil || len(entries) <= most {
		return err
	}
	for _, name := range excess(entries, most-most/4) {
		if wrong := r.removeAll(path.Join(dir, name)); wrong != nil {
			err = wrong
		}
	}
	return err
}

// A tagFile is a file of a tag in a directory.
type tagFile struct {
	name, registry, repository string
	written                    time.Time
}

// excess returns the names of the files that go if so many may stay.
func excess(entries []fs.DirEntry, most int) (names []string) {
	files := make([]tagFile, 0, len(entries))
	registries, repositories := map[string]int{}, map[string]int{}
	for _, e := range entries {
		f := tagFile{name: e.Name()}
		f.registry, f.repository, _ = strings.Cut(f.name, "-")
		f.repository, _, _ = strings.Cut(f.repository, "-")
		if info, err := e.Info(); err == nil { // else it is gone, or the first to go
			f.written = info.ModTime()
		}
		files = append(files, f)
		registries[f.registry]++
		repositories[f.registry+f.repository]++
	}
	slices.SortFunc(files, func(a, b tagFile) int { return a.written.Compare(b.written) })
	for len(files) > most {
		worst := 0
		for i, f := range files {
			w := files[worst]
			more := registries[f.registry] - registries[w.registry]
			if more > 0 || more == 0 && f.registry == w.registry && repositories[f.registry+f.repository] > repositories[w.registry+w.repository] {
				worst = i
			}
		}
		gone := files[worst]
		registries[gone.registry]--
		repositories[gone.registry+gone.repository]--
		names = append(names, gone.name)
		files = slices.Delete(files, worst, worst+1)
	}
	return names
}
