package mirrors

import (
	"cmp"
	"log/slog"
	"slices"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// A site is a registry and its mirrors.
type site struct {
	registry string
	upstream oci.Upstream
	places   []*place // the mirrors as the operator has them, then the registry
	grudges  *grudges
	probing  probing
	life     *wait.Life
	log      *slog.Logger
}

// The ranks of places: well ones first. Within a rank those that are measured come before
// the others, the fastest first, and the rest as the operator has them.
const (
	well    = iota
	lacking // it did not have something of the repository just now
	sick    // it failed, and has not answered since
)

// forBytes lists the places for a blob by its digest.
func (s *site) forBytes(ref oci.Ref) []*place {
	return s.content(ref, func(v view) time.Duration { return v.blob })
}

// forDocument lists the places for a manifest by its digest.
func (s *site) forDocument(ref oci.Ref) []*place {
	return s.content(ref, func(v view) time.Duration { return v.document })
}

// content lists the places for what can be checked, by how long they are expected to take.
// Once a mirror has sent wrong bytes for it the registry comes first: it ought to know.
func (s *site) content(ref oci.Ref, takes func(view) time.Duration) []*place {
	disputed := s.grudges.disputed(ref)
	return s.sorted(ref, func(v view) []int64 {
		known := int64(1)
		if takes(v) > 0 {
			known = 0
		}
		return []int64{bit(disputed && !v.own), s.rank(ref, v), known, int64(takes(v))}
	})
}

// forWords lists the places for what nobody can check: the registry comes first while it is
// well, since a mirror may be behind.
func (s *site) forWords(ref oci.Ref) []*place {
	all := s.sorted(ref, func(v view) []int64 { return []int64{s.rank(ref, v), bit(!v.own), int64(v.document)} })
	return slices.DeleteFunc(all, func(p *place) bool { return !p.trusted })
}

// forSizes lists the places for the size of content by digest: those trusted, then the others.
func (s *site) forSizes(ref oci.Ref) []*place {
	return s.sorted(ref, func(v view) []int64 { return []int64{bit(!v.trusted), s.rank(ref, v), bit(!v.own), int64(v.document)} })
}

// sorted lists the places that are not known to lie about ref by a key, in one order however
// what is known of them changes meanwhile.
func (s *site) sorted(ref oci.Ref, key func(view) []int64) []*place {
	type keyed struct {
		*place
		key []int64
	}
	var all []keyed
	for _, p := range s.places {
		if !s.grudges.lied(p.host, ref) {
			all = append(all, keyed{p, key(p.look())})
		}
	}
	slices.SortStableFunc(all, func(a, b keyed) int { return slices.Compare(a.key, b.key) })
	out := make([]*place, len(all))
	for i, one := range all {
		out[i] = one.place
	}
	return out
}

// rank is a place's rank for ref.
func (s *site) rank(ref oci.Ref, v view) int64 {
	switch {
	case v.sick:
		return sick
	case s.grudges.lacks(v.host, ref):
		return lacking
	default:
		return well
	}
}

// bit is 1 for true.
func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// best returns the highest speed of the other places, in bytes a second, 0 if none is
// known, and whether any of them is well.
func (s *site) best(but *place) (rate float64, others bool) {
	for _, p := range s.places {
		if p != but {
			rate = max(rate, p.speed())
			others = others || !p.look().sick
		}
	}
	return rate, others
}

// patience is how long the place's answer may take to begin while others can be asked.
func (p *place) patience() time.Duration {
	v := p.look()
	if p.own {
		return ownPatience
	}
	return min(max(cmp.Or(10*v.document, newPatience), leastPatience), mostPatience)
}
