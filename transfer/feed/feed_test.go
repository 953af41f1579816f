package feed

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func anybody(string) bool { return true }

// A model is what nodes do by the word of a root.
type model struct {
	t      *testing.T
	tree   *Tree
	seat   map[string]int    // of each node
	feeder map[string]string // whom it follows by now; "": the root
	now    time.Time
}

func newModel(t *testing.T, zone string) *model {
	return &model{t, NewTree(zone), map[string]int{}, map[string]string{}, time.Unix(0, 0)}
}

// ask makes a node ask the root.
func (m *model) ask(a Asker) Feeder {
	m.t.Helper()
	if a.Usable == nil {
		a.Usable = anybody
	}
	a.Seat = m.seat[a.ID]
	number, by := m.tree.Place(a, m.now)
	m.seat[a.ID], m.feeder[a.ID] = number, by.ID
	if by.Seat != m.seat[by.ID] && by.Seat != 0 {
		m.t.Errorf("%s is to follow seat %d of %s, which has %d", a.ID, by.Seat, by.ID, m.seat[by.ID])
	}
	at := a.ID
	for range len(m.feeder) + 1 {
		if at = m.feeder[at]; at == "" {
			return by
		}
	}
	m.t.Fatalf("a circle closes: %v", m.feeder)
	return by
}

// fed returns how many each node feeds; "" is the root.
func (m *model) fed() map[string]int {
	out := map[string]int{}
	for _, by := range m.feeder {
		out[by]++
	}
	return out
}

func name(i int) string { return fmt.Sprintf("n%d", i) }

func TestNobodyFeedsMoreThanTwo(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 3, 8, 24, 1000} {
		m := newModel(t, "")
		for i := range n {
			m.ask(Asker{ID: name(i)})
		}
		fed := m.fed()
		if fed[""] != min(n, fanout) {
			t.Errorf("%d nodes: the root feeds %d", n, fed[""])
		}
		for id, k := range fed {
			if k > fanout {
				t.Errorf("%d nodes: %q feeds %d", n, id, k)
			}
		}
		if depth := m.depth(); 1<<(depth-1) > n+1 {
			t.Errorf("%d nodes stand %d deep", n, depth)
		}
	}
}

// depth is the longest way from a node to the root.
func (m *model) depth() (most int) {
	for id := range m.feeder {
		k := 0
		for at := id; at != ""; at = m.feeder[at] {
			k++
		}
		most = max(most, k)
	}
	return most
}

func TestOneStreamEntersEachZone(t *testing.T) {
	t.Parallel()
	for range 50 {
		m, zoneOf := newModel(t, "z0"), map[string]string{"": "z0"}
		zones := 2 + rand.IntN(4)
		for i := range 40 {
			zone := fmt.Sprintf("z%d", rand.IntN(zones))
			zoneOf[name(i)] = zone
			m.ask(Asker{ID: name(i), Zone: zone})
		}
		enter := map[string]int{}
		for id, by := range m.feeder {
			if zoneOf[id] != zoneOf[by] {
				enter[zoneOf[id]]++
			}
		}
		for zone, k := range enter {
			if k > 1 || zone == "z0" {
				t.Errorf("%d streams enter %s of %d zones: %v", k, zone, zones, m.feeder)
			}
		}
		if m.fed()[""] > fanout {
			t.Errorf("the root feeds %d", m.fed()[""])
		}
	}
}

func TestWhoCouldNotFeedIsNotNamedAgain(t *testing.T) {
	t.Parallel()
	m := newModel(t, "")
	for i := range 3 {
		m.ask(Asker{ID: name(i)})
	}
	if by := m.feeder["n2"]; by != "n0" {
		t.Fatalf("n2 is fed by %q", by)
	}
	if by := m.ask(Asker{ID: "n2", Not: []string{"n0"}}); by.ID != "n1" {
		t.Errorf("n2 left n0 and is fed by %q", by.ID)
	}
	for i := range 6 {
		if by := m.ask(Asker{ID: name(3 + i)}); by.ID == "n0" {
			t.Errorf("%s is fed by n0, which is to feed no more", name(3+i))
		}
	}
	if by := m.ask(Asker{ID: "n2", Here: true}); by != (Feeder{}) {
		t.Errorf("the root names %v to a node that wants none", by)
	}
	if by := m.ask(Asker{ID: "late", Usable: func(string) bool { return false }}); by != (Feeder{}) {
		t.Errorf("the root names %v, which it can't reach itself", by)
	}
}

// A node that begins anew gets another seat; its former one feeds nobody new.
func TestANodeThatBeginsAnew(t *testing.T) {
	t.Parallel()
	m := newModel(t, "")
	for i := range 3 {
		m.ask(Asker{ID: name(i)})
	}
	former := m.seat["n0"]
	m.seat["n0"] = 0
	if by := m.ask(Asker{ID: "n0"}); by.ID == "n0" || m.seat["n0"] == former {
		t.Errorf("n0 is fed by %v and has seat %d", by, m.seat["n0"])
	}
	if k := len(m.tree.seats[0].feeds); k > fanout {
		t.Errorf("the root feeds %d", k)
	}
}

func TestWhoIsFurthestFeeds(t *testing.T) {
	t.Parallel()
	m := newModel(t, "")
	for i := range 2 {
		m.ask(Asker{ID: name(i)})
	}
	m.tree.Told("n0", m.seat["n0"], 10, all, m.now)
	m.tree.Told("n1", m.seat["n1"], 1000, all, m.now)
	m.tree.Told("n0", m.seat["n1"], all, all, m.now) // not its seat
	if by := m.ask(Asker{ID: "n2"}); by.ID != "n1" {
		t.Errorf("n2 is fed by %q", by.ID)
	}
}

// Whatever nodes do, and in whatever order, no circle closes, and the root keeps count.
func FuzzTree(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 0x81, 0x42, 0xc3, 0x91})
	f.Fuzz(func(t *testing.T, steps []byte) {
		m := newModel(t, "z0")
		for i, step := range steps[:min(len(steps), 2000)] {
			id := name(int(step % 16))
			a := Asker{ID: id, Zone: fmt.Sprintf("z%d", step%3)}
			switch step >> 6 {
			case 1:
				a.Not = []string{m.feeder[id], name(i % 16)}
			case 2:
				if i%2 == 0 {
					m.seat[id] = 0 // it begins anew; who followed it is cut off, and asks anew too
					for other, by := range m.feeder {
						if by == id {
							m.feeder[other] = ""
						}
					}
				}
			case 3:
				a.Here = i%3 == 0
				m.now = m.now.Add(time.Second)
				m.tree.Told(id, m.seat[id], int64(i)<<20, 1<<40, m.now)
			}
			m.ask(a)
		}
		for _, s := range m.tree.seats {
			if len(s.feeds) > fanout && s.number != 0 {
				t.Fatalf("seat %d of %s feeds %d", s.number, s.id, len(s.feeds))
			}
			for _, other := range s.feeds {
				if other.feeder != s {
					t.Fatalf("seat %d of %s counts one that it does not feed", s.number, s.id)
				}
			}
		}
	})
}

func TestTrees(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		trees := NewTrees("")
		place := func(id, seat string) (string, Feeder, string) {
			return trees.Place("blob", Asker{ID: id, Usable: anybody}, seat)
		}
		a, _, _ := place("a", "")
		b, _, _ := place("b", "")
		c, feeder, by := place("c", "")
		if feeder.ID != "a" || by != a || trees.SentOn() != 1 {
			t.Errorf("c is fed by %v, seat %q", feeder, by)
		}
		if again, _, _ := place("c", c); again != c {
			t.Error("c lost its seat")
		}
		for _, seat := range []string{"", "x", c + "0", b, seatOf(c, -1), "." + c} {
			if other, _, _ := place("c", seat); other == c {
				t.Errorf("by %q c got the seat of another download", seat)
			}
		}
		if other, _, _ := trees.Place("other", Asker{ID: "c", Usable: anybody}, c); other == c {
			t.Error("two blobs share a tree")
		}
		<-time.After(idle / 2)
		trees.Told("blob", "a", a, 1, 2)
		<-time.After(idle/2 + 1)
		if again, _, _ := place("a", a); again != a {
			t.Error("a tree is forgotten though nodes tell of it")
		}
		<-time.After(idle + 1)
		if again, _, _ := place("a", a); again == a {
			t.Error("a tree lives for ever")
		}
		for key, seat := range map[string]string{"blob": b, "none": b, "other": b} {
			if leave, next := trees.Told(key, "b", seat, 1, 2); leave || next != Every {
				t.Errorf("a seat of another tree tells of %s", key)
			}
		}
	})
}

func seatOf(seat string, number int) string {
	return seat[:slices.Index([]byte(seat), '.')+1] + fmt.Sprint(number)
}

// A tree is forgotten by itself once nobody asks for it, whatever is asked for then.
func TestIdleTreesAreForgottenSingly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		trees := NewTrees("")
		seat := map[string]string{}
		for _, key := range []string{"old", "used", "told"} {
			seat[key], _, _ = trees.Place(key, Asker{ID: "a", Usable: anybody}, "")
		}
		<-time.After(idle)
		trees.Place("used", Asker{ID: "b", Usable: anybody}, "")
		trees.Told("told", "a", seat["told"], 1, 2)
		trees.Told("old", "b", seat["old"], 1, 2) // not its seat
		<-time.After(1)
		trees.Told("told", "a", seat["told"], 1, 2)
		if keys := trees.all.Keys(); !slices.Equal(keys, []string{"used", "told"}) {
			t.Errorf("left: %v", keys)
		}
	})
}

// One member can't use up the seats of a tree: from some on the root feeds it.
func TestSeatsOfOneMemberAreFew(t *testing.T) {
	t.Parallel()
	trees := NewTrees("")
	for i := range 2 * maxAnew {
		own, by, _ := trees.Place("blob", Asker{ID: "a", Usable: anybody}, "")
		if (own != "") != (i < maxAnew) || own == "" && by != (Feeder{}) {
			t.Errorf("for the time number %d it got seat %q, fed by %v", i, own, by)
		}
	}
}

func TestAFullTreeIsReplaced(t *testing.T) {
	t.Parallel()
	trees := NewTrees("")
	first, _, _ := trees.Place("blob", Asker{ID: "first", Usable: anybody}, "")
	one, _ := trees.all.Peek("blob")
	for i := 0; !one.Full(); i++ {
		one.Tree.Place(Asker{ID: name(i), Here: true}, time.Now())
	}
	if len(one.seats) != maxSeats {
		t.Error(len(one.seats))
	}
	if again, _, _ := trees.Place("blob", Asker{ID: "first", Usable: anybody}, first); again == first {
		t.Error("a full tree gives seats")
	}
}

// BenchmarkTold is what a word of one of so many seats costs the root.
func BenchmarkTold(b *testing.B) {
	for _, seats := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(seats), func(b *testing.B) {
			tree, now := NewTree(""), time.Unix(0, 0)
			for i := range seats {
				tree.Place(Asker{ID: name(i), Usable: anybody}, now)
			}
			for i := 0; b.Loop(); i++ {
				if i%seats == 0 {
					now = now.Add(time.Second)
				}
				n := i % seats
				tree.Told(name(n), n+1, int64(i/seats)<<10, 1<<50, now)
			}
		})
	}
}
