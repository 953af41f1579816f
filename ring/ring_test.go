package ring

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"weak"
)

// nodes makes n members with ids like those of real nodes. A seed always gives the
// same members, and a smaller n gives the first of them.
func nodes(n, weight int, seed uint64) []Member {
	random := rand.New(rand.NewPCG(seed, 0))
	members := make([]Member, n)
	for i := range members {
		members[i] = Member{ID: fmt.Sprintf("%016x", random.Uint64()), Weight: weight}
	}
	return members
}

// digests makes n keys that look like digests.
func digests(n int) []string {
	random := rand.New(rand.NewPCG(0, 1))
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("sha256:%016x%016x%016x%016x", random.Uint64(), random.Uint64(), random.Uint64(), random.Uint64())
	}
	return keys
}

func must(t testing.TB, members []Member) *Ring {
	t.Helper()
	r, err := New(members)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustNext(t testing.TB, r *Ring, members []Member) *Ring {
	t.Helper()
	next, err := r.Next(members)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// same fails the test unless both rings are equal.
func same(t testing.TB, got, want *Ring) {
	t.Helper()
	if got.Hash() != want.Hash() || got.owners != want.owners ||
		!slices.Equal(got.members, want.members) || !slices.Equal(got.owned, want.owned) {
		t.Fatalf("the rings of %v and %v differ", got.members, want.members)
	}
}

func without(members []Member, id string) []Member {
	return slices.DeleteFunc(slices.Clone(members), func(m Member) bool { return m.ID == id })
}

func TestRingDependsOnTheSetOfMembersOnly(t *testing.T) {
	t.Parallel()
	members := nodes(12, 1, 1)
	for i := range members {
		members[i].Weight = 1 + i%3
	}
	want := must(t, members)
	random := rand.New(rand.NewPCG(2, 0))
	for range 4 {
		random.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
		same(t, must(t, members), want)
	}

	grown := must(t, members[:1])
	for n := range members {
		grown = mustNext(t, grown, members[:n+1])
	}
	same(t, grown, want)
}

func TestNextIsAsNewWhateverTheWay(t *testing.T) {
	t.Parallel()
	all := nodes(14, 1, 3)
	random := rand.New(rand.NewPCG(4, 0))
	r := must(t, all[:1])
	for range 10 {
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		members := slices.Clone(all[:1+random.IntN(len(all))])
		for i := range members {
			members[i].Weight = 1 + random.IntN(4)
		}
		r = mustNext(t, r, members)
		same(t, r, must(t, members))
	}
}

// Few changes to many units use the library's Add and Remove, which the small
// sets above seldom do.
func TestNextOfALargeRingIsAsNew(t *testing.T) {
	t.Parallel()
	members := nodes(41, 2, 5)
	r := must(t, members[:40])
	changed := append(slices.Clone(members[1:40]), members[40])
	changed[7].Weight = 4
	if few(len(split(changed))) < 6 {
		t.Fatal("these changes are too many: Add and Remove would not be tested")
	}
	same(t, mustNext(t, r, changed), must(t, changed))
	// The builder has changed since, but r still makes the right rings.
	same(t, mustNext(t, r, members[:41]), must(t, members[:41]))
	same(t, r, must(t, members[:40]))
}

func TestNextWithTheSameMembersIsTheSameRing(t *testing.T) {
	t.Parallel()
	members := nodes(3, 1, 6)
	r := mustNext(t, must(t, members[:2]), members)
	slices.Reverse(members)
	if mustNext(t, r, members) != r {
		t.Error("Next built a new ring for the same members")
	}
}

func TestARingKeepsNoFormerRing(t *testing.T) {
	t.Parallel()
	members := nodes(3, 1, 8)
	first := must(t, members[:1])
	former := weak.Make(first)
	last := mustNext(t, mustNext(t, first, members[:2]), members)
	for i := 0; former.Value() != nil; i++ {
		if i == 10 {
			t.Fatal("the first ring is still in memory")
		}
		runtime.GC()
	}
	same(t, last, must(t, members))
}

func TestCallersCannotChangeARing(t *testing.T) {
	t.Parallel()
	members := nodes(3, 1, 9)
	r := must(t, members)
	want := must(t, members)
	clear(members)
	same(t, r, want)
}

func TestSmallRingsHaveFewerOwners(t *testing.T) {
	t.Parallel()
	members := nodes(4, 1, 10)
	members[1].Weight = MaxWeight
	for n := 1; n <= len(members); n++ {
		r := must(t, members[:n])
		for _, key := range append(digests(200), "", "m|registry-1.docker.io|library/nginx|latest") {
			owners, found := r.Owners(key)
			if found != min(n, Depth) || owners[0] != r.Owner(key) {
				t.Fatalf("ring of %d: Owners returned %v, %d, and Owner %v", n, owners, found, r.Owner(key))
			}
			for i, m := range owners {
				if (i < found) != slices.Contains(members[:n], m) || i < found && slices.Contains(owners[:i], m) {
					t.Fatalf("ring of %d: owners %v, %d", n, owners, found)
				}
			}
		}
	}
}

func TestLookupsDoNotAllocate(t *testing.T) {
	members := nodes(11, 1, 11)
	r := mustNext(t, must(t, members[:10]), members)
	key := digests(1)[0]
	for name, ask := range map[string]func(){
		"Owner":  func() { r.Owner(key) },
		"Owners": func() { r.Owners(key) },
		"Hash":   func() { r.Hash() },
		"Share":  func() { r.Share(members[0].ID) },
	} {
		if n := testing.AllocsPerRun(100, ask); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func TestLookupsGoOnWhileTheRingIsSwapped(t *testing.T) {
	t.Parallel()
	members := nodes(8, 1, 12)
	var current atomic.Pointer[Ring]
	current.Store(must(t, members[:4]))
	var done atomic.Bool
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for i, keys := 0, digests(100); !done.Load(); i++ {
				r, key := current.Load(), keys[i%len(keys)]
				owners, n := r.Owners(key)
				if n != Depth || owners[0] != r.Owner(key) || r.Share(owners[0].ID) == 0 {
					t.Errorf("owners %v, %d", owners, n)
					return
				}
			}
		})
	}
	// Two goroutines at a time call Next on the same ring: unusual, but allowed.
	for n := range 8 {
		r := current.Load()
		var writers sync.WaitGroup
		for _, set := range [][]Member{members[:4+n%4], members[n%4:]} {
			writers.Go(func() {
				next, err := r.Next(set)
				if err != nil {
					t.Error(err)
					return
				}
				current.Store(next)
			})
		}
		writers.Wait()
	}
	done.Store(true)
	readers.Wait()
	last := current.Load()
	same(t, last, must(t, last.members))
}
