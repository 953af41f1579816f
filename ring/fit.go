package ring

import (
	"cmp"
	"container/heap"
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Shares are told in levels: whole is the part of the keys that is due to a member by
// its size, and a share within slack of that stays as the library made it.
const (
	whole = 1024
	slack = whole / 8
)

// A fit makes the shares follow the members' sizes. The library gives equal shares, up
// to a quarter off. Members with more than slack above their part let partitions go;
// members below it take them. So nothing depends on units, a size may be any number, and
// a cluster of equal nodes keeps almost all that the library chose.
//
// A join must change little. A member therefore lets go those partitions first that its
// own order of them puts last, and whoever takes has an order of its own, too: a
// partition goes to the first in its order that does not have its fill of earlier ones.
type fit struct {
	sizes []uint64 // of the members
	salts []uint64 // what makes each member's orders its own
	sum   uint64   // of the sizes
	base  []int    // the member that the library chose for each partition
	count []int    // partitions that the library gave to each member
	quota []int    // partitions that each member is to have

	owner []int      // of each partition in the end
	kept  []uint64   // of members that let go: the last rank that they keep
	taken []holdings // of members that take
}

// newFit fits what the library chose to the members' sizes. Units are members here.
func newFit(members []Member, base []int) *fit {
	f := &fit{
		base: base, owner: slices.Clone(base), count: make([]int, len(members)),
		kept: make([]uint64, len(members)), taken: make([]holdings, len(members)),
	}
	for _, m := range members {
		f.sizes, f.salts = append(f.sizes, uint64(m.Size)), append(f.salts, xxhash.Sum64String(m.ID))
		f.sum += uint64(m.Size)
	}
	for _, m := range base {
		f.count[m]++
	}
	f.share()
	f.match(f.release())
	return f
}

// part returns the member's part at the level, rounded down and up.
func (f *fit) part(m, level int) (down, up int) {
	n, d := partitions*f.sizes[m]*uint64(level), f.sum*whole
	return int(n / d), int((n + d - 1) / d)
}

// share sets the quotas: what the library gave, within slack of the part. If that adds
// up to too much or too little, the largest or the least shares are levelled.
func (f *fit) share() {
	near, most := make([]int, len(f.sizes)), make([]int, len(f.sizes))
	for m, n := range f.count {
		nearest := int((2*partitions*f.sizes[m] + f.sum) / (2 * f.sum))
		_, low := f.part(m, whole-slack)
		high, _ := f.part(m, whole+slack)
		_, ceiling := f.part(m, whole)
		near[m] = min(max(n, min(low, nearest)), max(high, nearest))
		most[m] = max(near[m], ceiling)
	}
	at := func(m, level int) int {
		_, up := f.part(m, level)
		return max(near[m], up)
	}
	from, to := whole-slack, whole
	if total(near) > partitions {
		at = func(m, level int) int {
			down, _ := f.part(m, level)
			return min(near[m], down)
		}
		from, to, most = whole, whole+slack, near
	}
	f.level(at, from, to, most)
}

// level finds the highest level at which all that at gives is no more than there is.
// What is left goes to the first members, up to what the next level gives.
func (f *fit) level(at func(m, level int) int, from, to int, most []int) {
	f.quota = make([]int, len(f.sizes))
	next := slices.Clone(f.quota)
	for level := from; level <= to; level++ {
		for m := range next {
			next[m] = at(m, level)
		}
		if total(next) > partitions {
			most = next
			break
		}
		copy(f.quota, next)
	}
	left := partitions - total(f.quota)
	for m := range f.quota {
		more := min(left, most[m]-f.quota[m])
		f.quota[m], left = f.quota[m]+more, left-more
	}
}

func total(all []int) (sum int) {
	for _, n := range all {
		sum += n
	}
	return sum
}

// rank is the partition's place in the member's order: the least is let go first.
func (f *fit) rank(partition, m int) uint64 {
	h := f.salts[m] ^ uint64(partition+1)*0x9e3779b97f4a7c15
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// cost orders the takers of a partition, and the partitions of a taker: the least comes
// first. It is the logarithm of the rank, straight between powers of two, divided by the
// size; so larger members are first for more partitions.
func (f *fit) cost(partition, m int) uint64 {
	r := f.rank(partition, m) | 1
	zeros := bits.LeadingZeros64(r)
	return (uint64(zeros+1)<<32 - r<<zeros<<1>>32) << 24 / f.sizes[m]
}

// release returns the partitions that members let go.
func (f *fit) release() (free []int) {
	held := make([][]int, len(f.sizes))
	for p, m := range f.base {
		if f.count[m] > f.quota[m] {
			held[m] = append(held[m], p)
		}
	}
	for m, all := range held {
		if len(all) == 0 {
			continue
		}
		slices.SortFunc(all, func(a, b int) int { return cmp.Compare(f.rank(a, m), f.rank(b, m)) })
		n := f.count[m] - f.quota[m]
		free = append(free, all[:n]...)
		f.kept[m] = ^uint64(0)
		if n < len(all) {
			f.kept[m] = f.rank(all[n], m)
		}
	}
	return free
}

// match gives each free partition to a taker: each goes to the first in its order, until
// that has its fill and each of its partitions comes earlier in its own order. The
// result does not depend on which is looked at first.
func (f *fit) match(free []int) {
	refused := make([]uint64, partitions) // the cost at which a partition was last refused
	for len(free) > 0 {
		p := free[len(free)-1]
		m, cost := f.first(p, func(m int, cost uint64) bool { return f.quota[m] > f.count[m] && cost > refused[p] })
		if m < 0 {
			return // never: there is as much to take as is let go
		}
		free = free[:len(free)-1]
		t := &f.taken[m]
		heap.Push(t, holding{cost, p})
		f.owner[p] = m
		if t.Len() > f.quota[m]-f.count[m] {
			last := heap.Pop(t).(holding)
			refused[last.partition] = last.cost
			free = append(free, last.partition)
		}
	}
}

// first returns the first member in the partition's order of takers that will do, or -1.
func (f *fit) first(partition int, will func(m int, cost uint64) bool) (first int, least uint64) {
	first = -1
	for m := range f.sizes {
		if f.quota[m] <= f.count[m] {
			continue
		}
		if c := f.cost(partition, m); (first < 0 || c < least) && will(m, c) {
			first, least = m, c
		}
	}
	return first, least
}

// instead returns who would have the partition if the library had chosen m and the
// members of found were not there.
func (f *fit) instead(partition, m int, found []uint16) int {
	if f.count[m] <= f.quota[m] || f.rank(partition, m) >= f.kept[m] {
		return m
	}
	other := func(m int) bool { return !slices.Contains(found, uint16(m)) }
	if t, _ := f.first(partition, func(m int, cost uint64) bool { return other(m) && cost <= f.taken[m][0].cost }); t >= 0 {
		return t
	}
	if t, _ := f.first(partition, func(m int, _ uint64) bool { return other(m) }); t >= 0 {
		return t
	}
	return m
}

// A holding is a partition that a member has taken.
type holding struct {
	cost      uint64
	partition int
}

// holdings are a heap: the one to be given back first is in front.
type holdings []holding

// Len implements heap.Interface, as do the following.
func (h holdings) Len() int { return len(h) }

// Less puts the one that comes last in the member's order in front.
func (h holdings) Less(i, j int) bool { return h[i].cost > h[j].cost }

// Swap swaps two.
func (h holdings) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push adds one.
func (h *holdings) Push(x any) { *h = append(*h, x.(holding)) }

// Pop takes one off.
func (h *holdings) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
