package holdings

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

// An item is something that a node holds, or that a manifest lists.
type item struct {
	digest   digest.Digest
	registry string
	size     int64
	used     time.Time
	held     bool
	pinned   bool
	child    bool // a manifest lists it as a manifest
	manifest *manifest
}

// A manifest is one that some node holds.
type manifest struct {
	repository string
	mediaType  string
	platform   string
	lists      []int32 // numbers of items
	platforms  []string
}

// Merged is what the nodes of a cluster hold together.
type Merged struct {
	items []item
	ids   map[digest.Digest]int32
	tags  []Tag           // by each key what was told last
	older []Tag           // what another node was told before
	pins  map[string]bool // names
}

// Merge puts inventories together.
func Merge(all []*Inventory) *Merged {
	many := 0
	for _, v := range all {
		many = max(many, len(v.Blobs))
	}
	m := &Merged{ids: make(map[digest.Digest]int32, many), items: make([]item, 0, many), pins: map[string]bool{}}
	newest := map[string]int{}
	for _, v := range all {
		for _, b := range v.Blobs {
			m.hold(b)
		}
		for _, p := range v.Pins {
			m.pins[p] = true
		}
		for _, t := range v.Tags {
			m.tag(t, newest)
		}
	}
	for _, v := range all {
		for _, one := range v.Manifests {
			m.list(one)
		}
	}
	return m
}

// id returns the number of an item.
func (m *Merged) id(d digest.Digest) int32 {
	i, ok := m.ids[d]
	if !ok {
		i = int32(len(m.items))
		m.items = append(m.items, item{digest: d})
		m.ids[d] = i
	}
	return i
}

// hold adds a blob that a node holds.
func (m *Merged) hold(b Blob) {
	one := &m.items[m.id(b.Digest)]
	one.held, one.size, one.registry = true, b.Size, cmp.Or(one.registry, b.Registry)
	one.pinned = one.pinned || b.Pinned
	if b.Used.After(one.used) {
		one.used = b.Used
	}
}

// tag adds a tag. What was told last counts.
func (m *Merged) tag(t Tag, newest map[string]int) {
	i, known := newest[t.Key]
	switch {
	case !known:
		newest[t.Key] = len(m.tags)
		m.tags = append(m.tags, t)
	case t.Checked.After(m.tags[i].Checked):
		m.older = append(m.older, m.tags[i])
		m.tags[i] = t
	default:
		m.older = append(m.older, t)
	}
}

// list adds a manifest that a node holds.
func (m *Merged) list(one Manifest) {
	i := m.id(one.Digest)
	if known := m.items[i].manifest; known != nil {
		known.repository, known.platform = cmp.Or(known.repository, one.Repository), cmp.Or(known.platform, one.Platform)
		return
	}
	out := &manifest{repository: one.Repository, mediaType: one.MediaType, platform: one.Platform, lists: make([]int32, len(one.Lists))}
	for k, l := range one.Lists {
		j := m.id(l.Digest)
		out.lists[k] = j
		if it := &m.items[j]; !it.held {
			it.size = max(it.size, l.Size)
		}
		m.items[j].child = m.items[j].child || l.Manifest
		if l.Manifest {
			out.platforms = append(out.platforms, l.Platform)
		} else {
			out.platforms = append(out.platforms, "")
		}
	}
	m.items[i].manifest = out
}

// A walk visits what belongs to manifests, each thing once.
type walk struct {
	m     *Merged
	seen  []int32 // by item: the number of the round that saw it
	round int32
}

func (m *Merged) walk() *walk { return &walk{m: m, seen: make([]int32, len(m.items))} }

// begin begins a new round.
func (w *walk) begin() { w.round++ }

// from visits an item and what belongs to it, unless this round did. Where nobody holds a
// manifest, nobody knows what it lists.
func (w *walk) from(i int32, visit func(i int32)) {
	if w.seen[i] == w.round {
		return
	}
	w.seen[i] = w.round
	visit(i)
	if one := w.m.items[i].manifest; one != nil {
		for _, j := range one.lists {
			w.from(j, visit)
		}
	}
}

// An Image is a tag, or a manifest without one, of which something is held.
type Image struct {
	Ref       oci.Ref // with a tag, or else a digest
	Digest    digest.Digest
	Platforms []string  // that are held
	Size      int64     // of the manifests that are held, with all that they list, in bytes
	Held      int64     // of that what some node holds
	Used      time.Time // when a manifest of it was last used; zero if it never was
	Checked   time.Time // when the registry last told what the tag means; zero without a tag
	Pinned    bool
	top       int32
}

// Images lists what is held, by name. What belongs to no image that is known is left out:
// see Others.
func (m *Merged) Images() []Image {
	var out []Image
	tagged := map[int32]bool{}
	for _, t := range m.means() {
		if i, known := m.ids[t.Digest]; known {
			tagged[i] = true
			if m.items[i].manifest != nil {
				out = append(out, Image{Ref: t.Ref(), Digest: t.Digest, Checked: t.Checked, top: i})
			}
		}
	}
	for i, it := range m.items {
		if it.manifest != nil && !it.child && !tagged[int32(i)] && it.manifest.repository != "" && it.registry != "" {
			ref := oci.Ref{Registry: it.registry, Repository: it.manifest.repository, Digest: it.digest}
			out = append(out, Image{Ref: ref, Digest: it.digest, top: int32(i)})
		}
	}
	w := m.walk()
	for i := range out {
		m.fill(&out[i], w)
	}
	slices.SortFunc(out, func(a, b Image) int {
		return cmp.Or(compare(a.Ref, b.Ref), cmp.Compare(a.Digest, b.Digest))
	})
	return out
}

// compare is the order of names.
func compare(a, b oci.Ref) int {
	return cmp.Or(cmp.Compare(a.Registry, b.Registry), cmp.Compare(a.Repository, b.Repository),
		cmp.Compare(a.Tag, b.Tag), cmp.Compare(a.Digest, b.Digest))
}

// means are the tags, each once for each digest that it means by any Accept list, with
// the time of the last check.
func (m *Merged) means() []Tag {
	type meaning struct {
		ref    oci.Ref
		digest digest.Digest
	}
	at := map[meaning]int{}
	var out []Tag
	for _, t := range m.tags {
		key := meaning{t.Ref(), t.Digest}
		i, known := at[key]
		if !known {
			at[key] = len(out)
			out = append(out, t)
		} else if t.Checked.After(out[i].Checked) {
			out[i].Checked = t.Checked
		}
	}
	return out
}

// fill sums up what belongs to an image.
func (m *Merged) fill(image *Image, w *walk) {
	w.begin()
	w.from(image.top, func(i int32) {
		it := &m.items[i]
		if it.manifest == nil && it.child {
			return // of a platform that is not held
		}
		image.Size += it.size
		if it.held {
			image.Held += it.size
		}
		if it.manifest == nil {
			return
		}
		if it.used.After(image.Used) {
			image.Used = it.used
		}
		image.platforms(m, it.manifest)
	})
	image.Pinned = m.items[image.top].pinned
	slices.Sort(image.Platforms)
	image.Platforms = slices.Compact(image.Platforms)
}

// platforms adds those of a manifest, and of what it lists.
func (image *Image) platforms(m *Merged, one *manifest) {
	for k, j := range one.lists {
		if p := one.platforms[k]; p != "" && m.items[j].manifest != nil {
			image.Platforms = append(image.Platforms, p)
		}
	}
	if one.platform != "" && len(image.Platforms) == 0 {
		image.Platforms = append(image.Platforms, one.platform)
	}
}

// Others counts the blobs that belong to no image, and their bytes.
func (m *Merged) Others(images []Image) (blobs int, bytes int64) {
	w := m.walk()
	w.begin()
	for _, one := range images {
		w.from(one.top, func(int32) {})
	}
	for i, it := range m.items {
		if it.held && w.seen[i] != w.round {
			blobs++
			bytes += it.size
		}
	}
	return blobs, bytes
}

// Name is an image's, as people write it.
func (image Image) Name(shown func(registry string) string) string {
	name := shown(image.Ref.Registry) + "/" + image.Ref.Repository
	if image.Ref.Tag != "" {
		return name + ":" + image.Ref.Tag
	}
	return name + "@" + image.Digest.String()
}

// Content returns what belongs to an image and is held, or known by its size.
func (m *Merged) Content(image Image) map[digest.Digest]int64 {
	out := map[digest.Digest]int64{}
	w := m.walk()
	w.begin()
	w.from(image.top, func(i int32) {
		if it := &m.items[i]; it.manifest != nil || !it.child {
			out[it.digest] = it.size
		}
	})
	return out
}

// Pins lists the names of what is pinned.
func (m *Merged) Pins() []string {
	var out []string
	for name := range m.pins {
		out = append(out, name)
	}
	slices.SortFunc(out, strings.Compare)
	return out
}
