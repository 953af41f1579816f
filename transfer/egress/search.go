package egress

import (
	"context"
	"time"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

const (
	// maxAsked bounds the members that a search asks. Those found down are passed over
	// in the next, so all have their turn.
	maxAsked = 16
	// maxSearches bounds the searches at a time: clients make up registries.
	maxSearches = 64
)

// A search finds a member whose way leads to a registry, if nobody knows of one. It asks
// them one after the other, without waiting long for each: by HEAD, for what is wanted, so
// that the registry is hardly bothered and the content not fetched.
type search struct {
	mesh  *mesh.Mesh
	ways  *Ways
	calls *wait.Calls[searchKey, mesh.Relayer]
	slots chan struct{}
}

// A searchKey says which requests share a search.
type searchKey struct {
	goal string
	blob bool
}

func newSearch(m *mesh.Mesh, ways *Ways, life *wait.Life) *search {
	return &search{mesh: m, ways: ways, calls: wait.NewCalls[searchKey, mesh.Relayer](life, searchWithin), slots: make(chan struct{}, maxSearches)}
}

// find returns one of the members whose way leads to where a question is to get (want.goal),
// nil if none does.
func (s *search) find(ctx context.Context, to string, ref oci.Ref, blob bool, members []mesh.Relayer) mesh.Relayer {
	members = s.ways.worthAsking(members, to)
	if len(members) == 0 {
		return nil
	}
	m, _, err := s.calls.Do(ctx, searchKey{to, blob}, func(ctx context.Context) (mesh.Relayer, error) {
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
			return s.race(ctx, to, ref, blob, members[:min(len(members), maxAsked)]), nil
		default:
			return nil, nil
		}
	})
	if err != nil {
		return nil
	}
	return m
}

// race asks the members, and returns the first whose way leads to the registry.
func (s *search) race(ctx context.Context, to string, ref oci.Ref, blob bool, members []mesh.Relayer) mesh.Relayer {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		member mesh.Relayer
		up     bool
	}
	answers := make(chan answer, len(members)) // none of them waits for this goroutine
	next := time.NewTimer(0)
	defer next.Stop()
	heard := map[string]bool{}
	for begun := 0; len(heard) < len(members); {
		select {
		case <-next.C:
			if begun == len(members) {
				continue
			}
			m := members[begun]
			go func() { answers <- answer{m, s.leads(ctx, m, to, ref, blob)} }()
			begun++
			next.Reset(stagger)
		case a := <-answers:
			if a.up {
				return a.member
			}
			heard[a.member.ID()] = true
			next.Reset(0)
		case <-ctx.Done():
			for _, m := range members[:begun] {
				if !heard[m.ID()] {
					s.ways.found(m.ID(), to, oci.LateError(ref, nil))
				}
			}
			return nil
		}
	}
	return nil
}

// leads reports whether a member's way leads to the registry, and notes it.
func (s *search) leads(ctx context.Context, m mesh.Relayer, to string, ref oci.Ref, blob bool) bool {
	_, err := mesh.Tend(ctx, s.mesh, m, alive(ref), func(ctx context.Context, _ mesh.Peer) (oci.Descriptor, error) {
		return m.Relay().Stat(ctx, probed(ref), blob, oci.ManifestTypes)
	})
	if !theirs(err) {
		err = nil // the registry said something
	}
	if ctx.Err() == nil && !busy(err) {
		s.ways.found(m.ID(), to, err)
	}
	return err == nil
}
