package holdings

import (
	"slices"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
)

// A Plan is what a purge forgets: the images that patterns choose, and all that nothing
// else needs.
type Plan struct {
	Images []Chosen
	Tags   []Forgotten             // of the images, and others that patterns choose
	Blobs  map[digest.Digest]int64 // what is held and goes, with sizes in bytes
	Unused []Pattern               // patterns that choose nothing
}

// A Chosen is an image that a pattern chooses.
type Chosen struct {
	Image
	Frees int64 // bytes of it that nothing else needs
	Stays bool  // it is pinned
}

// A Forgotten is a tag, or a manifest in a repository, that is not known any more.
type Forgotten struct {
	Ref  oci.Ref
	Keys []string // of the tag, one for each Accept list
}

// A planner makes a Plan.
type planner struct {
	m        *Merged
	patterns []Pattern
	used     []bool // by pattern: it chose something
	stays    *walk  // has seen what something else needs
	plan     *Plan
}

// Plan says what a purge forgets of these images, which are all there are. What is pinned
// stays, and so does every blob that something else needs. Blobs that belong to no image
// go if a pattern chooses all of their registry.
func (m *Merged) Plan(images []Image, patterns []Pattern) *Plan {
	p := &planner{m: m, patterns: patterns, used: make([]bool, len(patterns)), stays: m.walk(), plan: &Plan{Blobs: map[digest.Digest]int64{}}}
	p.stays.begin()
	p.choose(images)
	p.tags()
	p.others()
	p.blobs()
	for i, one := range patterns {
		if !p.used[i] {
			p.plan.Unused = append(p.plan.Unused, one)
		}
	}
	return p.plan
}

// chosen reports whether a pattern chooses what a tag or digest names.
func (p *planner) chosen(ref oci.Ref, means digest.Digest) (yes bool) {
	for i, one := range p.patterns {
		if one.Matches(ref, means) {
			p.used[i], yes = true, true
		}
	}
	return yes
}

// covered reports whether a pattern chooses all of a registry.
func (p *planner) covered(registry string) (yes bool) {
	for i, one := range p.patterns {
		if one.Covers(registry) {
			p.used[i], yes = true, true
		}
	}
	return yes
}

// needed notes that an item stays, and all that belongs to it.
func (p *planner) needed(i int32) { p.stays.from(i, func(int32) {}) }

// gone reports whether nothing that stays needs an item.
func (p *planner) gone(i int32) bool { return p.stays.seen[i] != p.stays.round }

// choose chooses images. All others stay.
func (p *planner) choose(images []Image) {
	for _, one := range images {
		if !p.chosen(one.Ref, one.Digest) {
			p.needed(one.top)
			continue
		}
		p.plan.Images = append(p.plan.Images, Chosen{Image: one, Stays: one.Pinned})
	}
	for i := range p.m.items {
		if p.m.items[i].pinned {
			p.needed(int32(i))
		}
	}
}

// tags chooses tags, those too of which nothing is held.
func (p *planner) tags() {
	at := map[oci.Ref]int{}
	add := func(ref oci.Ref) *Forgotten {
		i, known := at[ref]
		if !known {
			i = len(p.plan.Tags)
			at[ref] = i
			p.plan.Tags = append(p.plan.Tags, Forgotten{Ref: ref})
		}
		return &p.plan.Tags[i]
	}
	for _, t := range slices.Concat(p.m.tags, p.m.older) {
		ref := t.Ref()
		if i, known := p.m.ids[t.Digest]; known && p.m.items[i].pinned || !p.chosen(ref, t.Digest) {
			continue
		}
		if f := add(ref); !slices.Contains(f.Keys, t.Key) {
			f.Keys = append(f.Keys, t.Key)
		}
	}
	for _, one := range p.plan.Images {
		if !one.Stays {
			add(oci.Ref{Registry: one.Ref.Registry, Repository: one.Ref.Repository, Digest: one.Digest})
		}
	}
	slices.SortStableFunc(p.plan.Tags, func(a, b Forgotten) int { return compare(a.Ref, b.Ref) })
}

// others makes stay what belongs to manifests of which nobody knows the repository, unless
// all of their registry is chosen.
func (p *planner) others() {
	chosen := map[int32]bool{}
	for _, one := range p.plan.Images {
		chosen[one.top] = true
	}
	for i := range p.m.items {
		it := &p.m.items[i]
		if it.held && it.manifest != nil && !it.child && !chosen[int32(i)] && !p.covered(it.registry) {
			p.needed(int32(i))
		}
	}
}

// blobs chooses what goes.
func (p *planner) blobs() {
	w := p.m.walk()
	for k := range p.plan.Images {
		one := &p.plan.Images[k]
		w.begin()
		if one.Stays {
			continue
		}
		w.from(one.top, func(i int32) {
			if it := &p.m.items[i]; it.held && p.gone(i) {
				one.Frees += it.size
				p.plan.Blobs[it.digest] = it.size
			}
		})
	}
	for i := range p.m.items {
		if it := &p.m.items[i]; it.held && p.gone(int32(i)) && p.covered(it.registry) {
			p.plan.Blobs[it.digest] = it.size
		}
	}
}
