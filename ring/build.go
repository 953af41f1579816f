package ring

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/buraksezer/consistent"
	"github.com/cespare/xxhash/v2"
)

// A builder builds rings with the library. Rings that follow each other share
// it: the library sorts all points once for each unit, so a few changes take far
// less time than a new start. The library's table depends only on the set of
// units, not on the order of the changes, so the rings may use the builder in
// any order.
type builder struct {
	mu   sync.Mutex             // guards the fields below; never held during I/O
	lib  *consistent.Consistent // nil before the first table, and after a failure
	held map[string]bool        // names of the units that lib holds
}

// ring builds the ring of members that accept has checked.
func (b *builder) ring(members []Member) (*Ring, error) {
	units := split(members)
	points, err := circle(units)
	if err != nil {
		return nil, err
	}
	assigned, err := b.assign(units)
	if err != nil {
		return nil, fmt.Errorf("assigning the partitions to %d members: %w", len(members), err)
	}
	r := &Ring{members: members, owned: make([]int, len(members)), hash: sign(members), build: b}
	r.fill(units, points, assigned)
	return r, nil
}

// errLibrary means that the library failed although accept passed the members.
var errLibrary = errors.New("the consistent hash library failed")

// assign returns, for each partition, the index of its unit. One unit has them all: each
// node begins alone, and the library's table for that would take 2 MB.
func (b *builder) assign(units []unit) (assigned []int, err error) {
	if len(units) == 1 {
		return make([]int, partitions), nil
	}
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
			return nil, fmt.Errorf("%w: partition %d belongs to %q, which is not a member", errLibrary, p, owner)
		}
		assigned[p] = i
	}
	return assigned, nil
}

// hold makes the library hold exactly the units, whichever way is faster: by
// changes, or anew.
func (b *builder) hold(units []unit) {
	want := make(map[string]bool, len(units))
	for _, u := range units {
		want[u.name] = true
	}
	joining := slices.DeleteFunc(slices.Clone(units), func(u unit) bool { return b.held[u.name] })
	leaving := len(b.held) - (len(units) - len(joining))
	if b.lib == nil || len(joining)+leaving > few(len(units)) {
		b.lib, b.held = build(units), want
		return
	}
	for name := range b.held {
		if !want[name] {
			b.lib.Remove(name)
		}
	}
	for _, u := range joining {
		b.lib.Add(u)
	}
	b.held = want
}

// few returns the largest number of changes that is faster than building that
// many units anew. A change sorts all points once (3 µs for each unit) and
// assigns all partitions (1.5 ms). Building anew sorts half the points once for
// each unit, and assigns once.
func few(units int) int { return 1 + units*units/(2*(units+500)) }

// build makes the library's table from nothing.
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

// A hasher gives xxhash to the library.
type hasher struct{}

func (hasher) Sum64(b []byte) uint64 { return xxhash.Sum64(b) }
