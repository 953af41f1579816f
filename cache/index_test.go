package cache

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"
)

// testName is the i-th name; every third is a sha512's.
func testName(i int) name {
	n := name{key: key{byte(i), byte(i >> 8), byte(i >> 16), 1}, long: i%3 == 0}
	if n.long {
		n.rest = [32]byte{byte(i)}
	}
	return n
}

func TestIndexDoesWhatTheModelDoes(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 1))
			bounds := map[string]int64{"a": 300, "": []int64{1000, 0, 500}[seed%3]}
			p := &pair{t, newIndex(bounds[""], map[string]int64{"a": 300}), &model{bounds: bounds}, map[*modelBlob]int32{}}
			registries := []string{"a", "b", "c"}
			for range 1500 {
				i := r.IntN(60)
				var pinned []*modelBlob
				for _, b := range p.m.blobs {
					if b.pins > 0 {
						pinned = append(pinned, b)
					}
				}
				switch op := r.IntN(10); {
				case op < 4:
					p.insert(i, registries[i%3], r.Int64N(120))
				case op < 6:
					p.use(i)
				case op < 7 && len(pinned) < 6:
					p.acquire(i)
				case len(pinned) > 0:
					b := pinned[r.IntN(len(pinned))]
					if r.IntN(5) == 0 {
						p.expel(b)
					}
					p.leave(b)
				}
				p.check()
			}
		})
	}
}

func TestRoomCountsWhileFilesAreBeingRemoved(t *testing.T) {
	t.Parallel()
	x := newIndex(100, nil)
	x.append(found{testName(1), "a", 60, time.Now(), false})
	x.append(found{testName(2), "a", 40, time.Now(), false})
	first, err := roomOf(x).reserve("a", 10) // evicts blob 2: 40 bytes
	if err != nil || len(first) != 1 {
		t.Fatal(first, err)
	}
	second, err := roomOf(x).reserve("a", 30) // fits once blob 2 is gone
	if err != nil || len(second) != 0 {
		t.Fatal("evicted twice for the same bytes:", second, err)
	}
	settled := make(chan error)
	go func() { settled <- roomOf(x).settle("a", 30) }()
	select {
	case <-settled:
		t.Fatal("settled before the file was removed")
	default:
	}
	if got := x.shares.total.onDisk(); got != 100 {
		t.Errorf("on disk: %d", got)
	}
	x.removed(first[0])
	if err := <-settled; err != nil {
		t.Fatal(err)
	}
	if err := roomOf(x).settle("a", 10); err != nil {
		t.Fatal(err)
	}
	if got := x.shares.total.onDisk(); got != 100 {
		t.Errorf("on disk: %d", got)
	}
}

func TestRoomIsRefusedWhenAFileCanNotBeRemoved(t *testing.T) {
	t.Parallel()
	x := newIndex(100, nil)
	x.append(found{testName(1), "a", 100, time.Now(), false})
	victims, _ := roomOf(x).reserve("a", 10)
	if _, err := roomOf(x).reserve("a", 90); err != nil {
		t.Fatal(err)
	}
	settled := make(chan error)
	go func() { settled <- roomOf(x).settle("a", 90) }()
	x.stuck(victims[0])
	roomOf(x).cancel("a", 10)
	if err := <-settled; err == nil {
		t.Error("a blob was kept without room")
	}
	if x.shares.total.reserved != 0 || x.shares.total.used.bytes != 100 || x.shares.total.idle.bytes != 100 {
		t.Errorf("%+v", x.shares.total)
	}
	if _, _, _, ok := x.acquire(testName(1)); !ok {
		t.Error("the blob did not come back")
	}
}

func TestSizesThatOverflowAreRefused(t *testing.T) {
	t.Parallel()
	x := newIndex(1<<62, map[string]int64{"own": 10})
	for _, n := range []int64{1<<63 - 1, 1<<62 + 1} {
		if _, err := roomOf(x).reserve("a", n); err == nil {
			t.Errorf("%d bytes were given", n)
		}
	}
	if _, err := roomOf(x).reserve("a", 1<<62); err != nil {
		t.Error(err)
	}
	if _, err := roomOf(x).reserve("a", 1<<62); err == nil {
		t.Error("more than the bound was given out")
	}
}

func TestMadeUpDigestIsNotTheBlobWhoseKeyItHas(t *testing.T) {
	t.Parallel()
	x := newIndex(0, nil)
	short, long := name{key: key{1}}, name{key: key{1}, long: true, rest: [32]byte{7}}
	x.append(found{short, "a", 1, time.Now(), false})
	if _, _, _, ok := x.acquire(long); ok {
		t.Error("a sha512 stands for a sha256")
	}
	x = newIndex(0, nil)
	x.append(found{long, "a", 1, time.Now(), false})
	long.rest[0]++
	if _, _, ok := x.look(long); ok {
		t.Error("half a sha512 stands for the whole")
	}
}

func TestRegistriesWithoutNumberShareAShare(t *testing.T) {
	t.Parallel()
	x := newIndex(0, nil)
	for i := range 3 * maxShares {
		r := fmt.Sprint("registry", i)
		if _, err := roomOf(x).reserve(r, 1); err != nil {
			t.Fatal(err)
		}
		if err := roomOf(x).settle(r, 1); err != nil {
			t.Fatal(err)
		}
	}
	if len(x.shares.all) > maxShares+1 || len(x.shares.byName) > maxShares+1 {
		t.Errorf("%d shares", len(x.shares.all))
	}
	for i := range 3 * maxShares {
		roomOf(x).release(fmt.Sprint("registry", i), 1)
	}
	for _, sh := range x.shares.all {
		if sh.space.reserved != 0 {
			t.Errorf("%s: %+v", sh.name, sh.space)
		}
	}
}

// Registries that have one share together are told apart all the same: one may not
// see what another brought.
func TestOriginOfWhatSharesAShare(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	for i := range maxShares {
		s.shard.index.shares.number(fmt.Sprint("registry", i))
	}
	for range 2 {
		for i, r := range []string{"one.test", "two.test"} {
			b := newSample(uint64(460+i), 100_000)
			if _, err := s.Put(t.Context(), b.digest, r, "", b.content); err != nil {
				t.Fatal(err)
			}
			if got, ok := s.Origin(b.digest); !ok || got != r {
				t.Errorf("%q brought it, not %q", got, r)
			}
		}
		var brought []string
		for _, b := range s.Blobs() {
			brought = append(brought, b.Registry)
		}
		if slices.Sort(brought); !slices.Equal(brought, []string{"one.test", "two.test"}) {
			t.Errorf("%q", brought)
		}
		s = restart(t, s, Options{})
	}
}

// The size that a stranger announces evicts nothing. The bytes that come do.
func TestDoubtedSizeMakesRoomAsItComes(t *testing.T) {
	t.Parallel()
	const bound = 32 << 20
	s := start(t, t.TempDir(), Options{Bound: bound})
	var all []sample
	for i := range uint64(8) {
		all = append(all, newSample(470+i, bound/8))
		keep(t, s, all[i])
	}
	big := newSample(480, bound)
	in := begin(t, s, big)
	in.Doubt()
	in.SetSize(bound)
	for _, b := range all[1:] {
		want(t, s, b)
	}
	if _, err := in.Write(big.content[:bound/2]); err != nil {
		t.Fatal(err)
	}
	for _, b := range all[5:] {
		want(t, s, b)
	}
	if _, err := in.Write(big.content[bound/2:]); err != nil {
		t.Fatal(err)
	}
	if err := in.Commit(); err != nil || !in.Stored() || s.Size() != bound {
		t.Error(err, in.Stored(), s.Size())
	}
	in = begin(t, s, newSample(481, 10))
	in.Doubt()
	in.SetSize(bound + 1)
	if in.Keeping() {
		t.Error("a blob larger than the bound is being kept")
	}
	in.Abort(errCut)
	want(t, s, big)
}

// A replica of a doubted size that has no room beside what is this node's makes no other replica go.
func TestDoubtedReplicaWithoutRoomEvictsNothing(t *testing.T) {
	t.Parallel()
	const bound = 32 << 20
	s := start(t, t.TempDir(), Options{Bound: bound})
	keep(t, s, newSample(490, bound/2))
	var others []sample
	for i := range uint64(3) {
		b := newSample(491+i, bound/8)
		others = append(others, b)
		keepReplica(t, s, b)
	}
	in := begin(t, s, newSample(495, bound*3/4))
	in.Replica()
	in.Doubt()
	in.SetSize(bound * 3 / 4)
	if in.Keeping() {
		t.Error("a replica is being kept that has no room")
	}
	in.Abort(errCut)
	for _, b := range others {
		want(t, s, b)
	}
}

// Concurrent reservations never put more on disk than the bound, and never
// lose a byte.
func TestIndexKeepsItsBoundUnderContention(t *testing.T) {
	t.Parallel()
	const bound = 1000
	x := newIndex(bound, nil)
	over := func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		if got := x.shares.total.onDisk(); got > bound {
			t.Errorf("%d bytes on disk", got)
		}
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 2))
			for i := range 2000 {
				n := r.Int64N(200)
				victims, err := roomOf(x).reserve("a", n)
				if err != nil {
					continue
				}
				over()
				for _, v := range victims {
					x.removed(v)
				}
				if roomOf(x).settle("a", n) != nil {
					continue
				}
				over()
				if slot, ok := x.insert(testName(w*10_000+i), "a", n, time.Now(), false, 0); ok {
					x.leave(slot, time.Now())
				} else {
					roomOf(x).release("a", n)
				}
			}
		})
	}
	wg.Wait()
	var sum int64
	for i := range x.table.slots {
		sum += x.table.at(x.table.slots[i]).size
	}
	if x.shares.total.used.bytes != sum || x.shares.total.reserved != 0 || x.shares.total.leaving.bytes != 0 || x.shares.total.pending != 0 {
		t.Errorf("%+v, blobs %d", x.shares.total, sum)
	}
}

func TestEntryHoldsNoPointer(t *testing.T) {
	t.Parallel()
	var look func(reflect.Type)
	look = func(ty reflect.Type) {
		switch ty.Kind() {
		case reflect.Struct:
			for f := range ty.Fields() {
				look(f.Type)
			}
		case reflect.Array:
			look(ty.Elem())
		case reflect.Pointer, reflect.Map, reflect.Slice, reflect.String, reflect.Interface, reflect.Chan, reflect.Func, reflect.UnsafePointer:
			t.Errorf("%v is a pointer to the garbage collector", ty)
		}
	}
	look(reflect.TypeFor[entry]())
	look(reflect.TypeFor[key]())
}
