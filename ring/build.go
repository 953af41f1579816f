package ring

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/buraksezer/consistent"
	"github.com/cespare/xxhash/v2"
)

// A builder makes tables by the library. It goes from ring to ring, since a
// few changes to what it holds take far less time than all members anew: the
// library sorts all points once for each unit. Its table depends on the set of
// units only, not on the way there, so the rings of a chain may use the builder
// in any order.
type builder struct {
	mu   sync.Mutex
	lib  *consistent.Consistent // nil before the first table, and after a failure
	held map[string]bool        // names of the units that lib holds
}

// ring makes the ring of accepted members; former is nil for the first.
func (b *builder) ring(former *table, members []Member) (*Ring, error) {
	units := split(members)
	points, err := circle(units)
	if err != nil {
		return nil, err
	}
	assigned, err := b.assign(units)
	if err != nil {
		return nil, fmt.Errorf("assigning the partitions to %d members: %w", len(members), err)
	}
	t := &table{members: members, owned: make([]int, len(members)), hash: sign(members)}
	t.fill(units, points, assigned)
	return &Ring{now: t, former: former, build: b}, nil
}

// errLibrary: the library failed on members that accept let pass.
var errLibrary = errors.New("the consistent hash library failed")

// assign tells for each partition the index of its unit.
func (b *builder) assign(units []unit) (assigned []int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errLibrary, p)
		}
		if err != nil {
			b.lib, b.held = nil, nil // half changed
		}
	}()
	b.hold(units)
	index := make(map[string]int, len(units))
	for i, u := range units {
		index[u.name] = i
	}
	assigned = make([]int, partitions)
	for p := range assigned {
		owner := b.lib.GetPartitionOwner(p)
		if owner == nil {
			return nil, fmt.Errorf("%w: partition %d has no owner", errLibrary, p)
		}
		i, ok := index[owner.String()]
		if !ok {
			return nil, fmt.Errorf("%w: partition %d belongs to %q, who is none of the members", errLibrary, p, owner)
		}
		assigned[p] = i
	}
	return assigned, nil
}

// hold brings the library to the units, by the shorter way.
func (b *builder) hold(units []unit) {
	want := make(map[string]bool, len(units))
	for _, u := range units {
		want[u.name] = true
	}
	come := slices.DeleteFunc(slices.Clone(units), func(u unit) bool { return b.held[u.name] })
	leaving := len(b.held) - (len(units) - len(come))
	if b.lib == nil || len(come)+leaving > few(len(units)) {
		b.lib, b.held = build(units), want
		return
	}
	for name := range b.held {
		if !want[name] {
			b.lib.Remove(name)
		}
	}
	for _, u := range come {
		b.lib.Add(u)
	}
	b.held = want
}

// few is up to how many changes to a library of that many units take less time
// than all units anew. A change sorts all points once (3 µs for each unit) and
// assigns all partitions (1.5 ms); anew sorts half the points once for each
// unit and assigns once.
func few(units int) int { return 1 + units*units/(2*(units+500)) }

// build is the library's way from nothing.
func build(units []unit) *consistent.Consistent {
	members := make([]consistent.Member, len(units))
	for i, u := range units {
		members[i] = u
	}
	return consistent.New(members, consistent.Config{
		Hasher:            hasher{},
		PartitionCount:    partitions,
		ReplicationFactor: replicas,
		Load:              load,
	})
}

// A hasher is xxhash as the library wants it.
type hasher struct{}

func (hasher) Sum64(b []byte) uint64 { return xxhash.Sum64(b) }
