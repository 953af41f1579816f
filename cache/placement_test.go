package cache

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/ring"
)

// A world is what a cluster is asked for: blobs of log-normal sizes, by Zipf's law.
type world struct {
	rand  *rand.Rand
	names []name
	keys  []string
	sizes []int64
	sum   int64
	odds  []float64
}

// newWorld returns a world of so many blobs.
func newWorld(seed uint64, blobs int, exponent float64) *world {
	w := &world{rand: rand.New(rand.NewPCG(seed, 1))}
	all := 0.0
	for i := range blobs {
		d := digest.FromBytes(fmt.Append(nil, seed, i))
		n, _ := nameOf(d)                                                 // it is a digest
		size := min(int64(math.Exp(14+1.5*w.rand.NormFloat64())), 64<<20) // 1.2 MB in the middle
		w.names, w.keys, w.sizes, w.sum = append(w.names, n), append(w.keys, d.String()), append(w.sizes, size), w.sum+size
		all += 1 / math.Pow(float64(i+1), exponent)
		w.odds = append(w.odds, all)
	}
	return w
}

// next is the blob that is asked for next.
func (w *world) next() int {
	return sort.SearchFloat64s(w.odds, w.rand.Float64()*w.odds[len(w.odds)-1])
}

// A shelf is a node's index, without files.
type shelf struct {
	*index
	w *world
}

func newShelf(w *world, bound int64) *shelf {
	x := newIndex(bound, nil)
	x.endListing()
	return &shelf{x, w}
}

// use reads a blob, if it is there.
func (s *shelf) use(b int) bool {
	i, _, _, ok := s.acquire(s.w.names[b])
	if ok {
		s.leave(i, time.Now())
	}
	return ok
}

// keep brings a blob in, if there is room for it.
func (s *shelf) keep(t *testing.T, b int, replica bool) {
	t.Helper()
	reserve := roomOf(s.index).reserve
	if replica {
		reserve = roomOf(s.index).reserveBeside
	}
	victims, err := reserve("r", s.w.sizes[b])
	if err != nil {
		return
	}
	for _, i := range victims {
		s.removed(i)
	}
	if err := roomOf(s.index).settle("r", s.w.sizes[b]); err != nil {
		t.Fatal(err)
	}
	i, ok := s.insert(s.w.names[b], "r", s.w.sizes[b], time.Now(), replica, s.current())
	if !ok {
		t.Fatal("it is there already")
	}
	s.leave(i, time.Now())
}

// A fleet is the nodes of a cluster. Any of them is asked; what it lacks it gets from the
// blob's owner, which looks at the next owners before it asks the registry.
type fleet struct {
	ring     *ring.Ring
	at       map[string]*shelf
	all      []*shelf
	replicas bool // nodes keep what they got from an owner, if there is room
}

func newFleet(t *testing.T, w *world, seed uint64, nodes int, bound int64, replicas bool) *fleet {
	t.Helper()
	f := &fleet{at: map[string]*shelf{}, replicas: replicas}
	var members []ring.Member
	for i := range nodes {
		m := ring.Member{ID: fmt.Sprintf("node-%d-%d", seed, i), Weight: 1}
		s := newShelf(w, bound)
		members, f.all, f.at[m.ID] = append(members, m), append(f.all, s), s
	}
	var err error
	if f.ring, err = ring.New(members); err != nil {
		t.Fatal(err)
	}
	return f
}

// pull asks a node for a blob, and reports whether any had it.
func (f *fleet) pull(t *testing.T, front *shelf, b int) (hit bool) {
	t.Helper()
	if front.use(b) {
		return true
	}
	owners, n := f.ring.Owners(front.w.keys[b])
	owner := f.at[owners[0].ID]
	if hit = owner.use(b); !hit {
		for _, o := range owners[1:n] {
			hit = hit || f.at[o.ID].use(b)
		}
		owner.keep(t, b, false)
	}
	if f.replicas && front != owner {
		front.keep(t, b, true)
	}
	return hit
}

// What nodes keep of others' blobs takes no room from their own: all of them together have
// nearly as many hits as one node with their room, and as many as if they kept nothing of
// others'.
func TestReplicasCostNoHits(t *testing.T) {
	t.Parallel()
	const nodes, blobs, pulls = 4, 4000, 40_000
	for _, share := range []float64{0.1, 0.4} { // of all bytes, for all nodes together
		for seed := range uint64(4) {
			w := newWorld(seed, blobs, 0.9)
			bound := int64(share * float64(w.sum))
			one := newShelf(w, bound)
			mesh, bare := newFleet(t, w, seed, nodes, bound/nodes, true), newFleet(t, w, seed, nodes, bound/nodes, false)
			var hits struct{ one, mesh, bare float64 }
			for i := range pulls {
				b, front := w.next(), w.rand.IntN(nodes)
				count := 0.0
				if i >= pulls/4 { // they are full by then
					count = 1
				}
				if one.use(b) {
					hits.one += count
				} else {
					one.keep(t, b, false)
				}
				if mesh.pull(t, mesh.all[front], b) {
					hits.mesh += count
				}
				if bare.pull(t, bare.all[front], b) {
					hits.bare += count
				}
			}
			t.Logf("seed %d, room for %.0f %% of the bytes: one node has a hit ratio of %.3f, %d nodes %.4f of that, without replicas %.4f", seed, share*100, hits.one/(pulls*3/4), nodes, hits.mesh/hits.one, hits.bare/hits.one)
			if hits.mesh < 0.985*hits.one || hits.mesh < 0.9995*hits.bare {
				t.Errorf("seed %d, room for %.0f %%: that is too little", seed, share*100)
			}
		}
	}
}
