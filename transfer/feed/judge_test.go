package feed

import (
	"testing"
	"time"
)

const (
	mib = 1 << 20
	all = 5 << 30 // bytes of the blob
)

// flows lets nodes tell how far they are, twice: what came before, and after a step at these speeds in MiB a
// second. It returns those that are told to leave. Who is not named tells nothing.
func (m *model) flows(came map[string]int64, speed map[string]int64, step time.Duration) map[string]bool {
	m.t.Helper()
	leave := map[string]bool{}
	for range 2 { // in either order all are known by then
		for i := range len(m.seat) {
			id := name(i)
			if v, ok := speed[id]; ok {
				m.tree.Told(id, m.seat[id], came[id], all, m.now)
				came[id] += int64(float64(v*mib) * step.Seconds())
			}
		}
		m.now = m.now.Add(step)
		for i := range len(m.seat) {
			if id := name(i); speed[id] > 0 || came[id] > 0 {
				if left, _ := m.tree.Told(id, m.seat[id], came[id], all, m.now); left {
					leave[id] = true
				}
			}
		}
	}
	return leave
}

// treeOf is a tree of so many nodes: the root feeds n0 and n1, n0 feeds n2 and n3, n1 n4 and n5, n2 n6 and n7.
func treeOf(t *testing.T, n int) *model {
	t.Helper()
	m := newModel(t, "")
	for i := range n {
		m.ask(Asker{ID: name(i)})
	}
	for id, by := range map[string]string{"n0": "", "n1": "", "n2": "n0", "n3": "n0", "n4": "n1", "n5": "n1", "n6": "n2", "n7": "n2"} {
		if m.feeder[id] != by {
			t.Fatalf("%s is fed by %q, not %q", id, m.feeder[id], by)
		}
	}
	return m
}

func TestOnlyAPinchedStreamIsLeft(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		came, speed map[string]int64
		leave       []string
	}{
		"all do equally well": {
			map[string]int64{},
			map[string]int64{"n0": 600, "n1": 600, "n2": 600, "n3": 600, "n4": 600, "n5": 600, "n6": 600, "n7": 600},
			nil,
		},
		"n0 is slow: whom it feeds leaves, and whoever is below waits": {
			map[string]int64{},
			map[string]int64{"n0": 60, "n1": 600, "n2": 30, "n3": 30, "n4": 600, "n5": 600, "n6": 30, "n7": 30},
			[]string{"n2", "n3"},
		},
		"n0 sends slowly: whom it feeds leaves": {
			map[string]int64{},
			map[string]int64{"n0": 600, "n1": 600, "n2": 30, "n3": 30, "n4": 600, "n5": 600},
			[]string{"n2", "n3"},
		},
		"n3 is slow, and n0 does well by n2": {
			map[string]int64{},
			map[string]int64{"n0": 600, "n1": 600, "n2": 600, "n3": 30, "n4": 600, "n5": 600},
			nil,
		},
		"the rest comes in less than a second": {
			map[string]int64{"n0": all, "n1": all, "n2": all - 20*mib, "n3": all - 20*mib},
			map[string]int64{"n2": 30, "n3": 30, "n4": 600, "n5": 600},
			nil,
		},
	} {
		m := treeOf(t, 8)
		got := m.flows(test.came, test.speed, 250*time.Millisecond)
		if len(got) != len(test.leave) {
			t.Errorf("%s: %v leave", name, got)
		}
		for _, id := range test.leave {
			if !got[id] {
				t.Errorf("%s: %s does not leave", name, id)
			}
		}
	}
}

// Who left a feeder and does well elsewhere shows that it was the feeder.
func TestWhoDoesWellElsewhereShowsWhoIsSlow(t *testing.T) {
	t.Parallel()
	m := treeOf(t, 8)
	came := map[string]int64{}
	speed := map[string]int64{"n0": 600, "n1": 600, "n2": 30, "n3": 30, "n4": 600, "n5": 600}
	m.flows(came, speed, 250*time.Millisecond)
	if by := m.ask(Asker{ID: "n2", Not: []string{"n0"}}); by.ID == "n0" {
		t.Fatal("n2 is sent to n0 again")
	}
	if m.tree.latest["n0"].leaf {
		t.Error("n0 feeds no more, though it may be n2")
	}
	speed["n2"] = 600
	m.flows(came, speed, 250*time.Millisecond)
	if !m.tree.latest["n0"].leaf || m.tree.latest["n2"].slow {
		t.Error("n0 still feeds, though n2 does well elsewhere")
	}
}

// Who finds two feeders slow is slow itself. It feeds nobody, stays where it is, and they go on.
func TestWhoDoesWellNowhereIsSlow(t *testing.T) {
	t.Parallel()
	m := treeOf(t, 11)
	came, speed := map[string]int64{}, map[string]int64{}
	for i := range 11 {
		speed[name(i)] = 600
	}
	speed["n10"] = 30 // its feeder feeds it alone
	var not []string
	for range maxTries + 2 {
		former := m.feeder["n10"]
		if !m.flows(came, speed, 250*time.Millisecond)["n10"] {
			break
		}
		not = append(not, former)
		m.ask(Asker{ID: "n10", Not: not})
	}
	if len(not) == 0 || len(not) > maxTries || !m.tree.latest["n10"].slow {
		t.Errorf("n10 left %v", not)
	}
	for i := range 10 {
		if s := m.tree.latest[name(i)]; s.leaf || s.slow {
			t.Errorf("n%d feeds no more", i)
		}
	}
}

// A feeder that stands still is left, whatever others get, and so is one of which nothing is heard.
func TestAFeederThatStandsStillIsLeft(t *testing.T) {
	t.Parallel()
	m := treeOf(t, 8)
	came := map[string]int64{"n0": 100 * mib, "n2": 100 * mib, "n6": 100 * mib}
	left, began := map[string]bool{}, m.now
	for len(left) == 0 && m.now.Sub(began) < 2*stillFor {
		left = m.flows(came, map[string]int64{"n0": 0, "n2": 0, "n6": 0}, Every)
	}
	if !left["n0"] || !left["n2"] || left["n6"] || m.now.Sub(began) < stillFor {
		t.Errorf("%v leave after %v; n6 has what n2 has, and waits for it", left, m.now.Sub(began))
	}
	m = treeOf(t, 8)
	came = map[string]int64{"n2": 100 * mib, "n6": 100 * mib}
	m.flows(came, map[string]int64{"n2": 600, "n6": 600}, time.Second)
	for m.now.Sub(time.Unix(0, 0)) < 2*silent { // n2 is heard of no more
		left = m.flows(came, map[string]int64{"n4": 600, "n5": 600, "n6": 1}, Every/2)
		delete(came, "n2")
	}
	if !left["n6"] {
		t.Errorf("%v leave, but not n6, whose feeder is silent", left)
	}
}

// Where the root feeds slow nodes only, nothing shows that others are faster. One of them makes room.
func TestAnotherIsTriedInThePlaceOfASlowOne(t *testing.T) {
	t.Parallel()
	m := treeOf(t, 8)
	came := map[string]int64{}
	speed := map[string]int64{"n0": 60, "n1": 60, "n2": 30, "n3": 30, "n4": 30, "n5": 30}
	others := 0
	for range 3 {
		for id := range m.flows(came, speed, 250*time.Millisecond) {
			if by := m.ask(Asker{ID: id, Not: []string{m.feeder[id]}}); by.ID == "" && id != "n0" && id != "n1" {
				others++
			}
		}
	}
	if others == 0 || m.fed()[""] > fanout || m.tree.swaps > maxSwaps {
		t.Errorf("%d others are tried, %d times; the root feeds %d", others, m.tree.swaps, m.fed()[""])
	}
}

// A member that says what is not true changes little for the others.
func TestALiarChangesLittle(t *testing.T) {
	t.Parallel()
	m := treeOf(t, 20)
	came, speed := map[string]int64{}, map[string]int64{}
	for i := range 20 {
		speed[name(i)] = 100
	}
	speed["n6"], speed["n10"] = 1<<30, 1<<20 // nobody has so fast a link
	for id := range m.flows(came, speed, 250*time.Millisecond) {
		if by := m.feeder[id]; by != "n6" && by != "n11" {
			t.Errorf("%s is told to leave %s", id, by)
		}
	}
	for i := range 40 { // and none of them feeds it, it says
		m.ask(Asker{ID: "n6", Not: []string{m.feeder["n6"], name(i % 20), name((i + 1) % 20)}})
	}
	leaves := 0
	for i := range 20 {
		if m.tree.latest[name(i)].leaf {
			leaves++
		}
	}
	if leaves > maxBlamed {
		t.Errorf("it keeps %d members from feeding others", leaves)
	}
}

// What others get is looked at once for many words, so that a root of many nodes is no busier for each.
func TestAWordCostsTheSameInATreeOfAnySize(t *testing.T) {
	t.Parallel()
	const seats = 1000
	m, looks, words := newModel(t, ""), 0, 0
	for i := range seats {
		m.ask(Asker{ID: name(i)})
	}
	for round := range int64(3) {
		for i := range seats {
			m.tree.Told(name(i), m.seat[name(i)], round*100*mib, all, m.now)
			if words++; m.tree.pace.words == 0 {
				looks++
			}
		}
		m.now = m.now.Add(time.Second)
	}
	if speed := m.tree.others(m.now); speed != 100*mib {
		t.Errorf("others get %v bytes a second", speed)
	}
	if looks == 0 || looks > words/(seats/16)+3 {
		t.Errorf("all seats are looked at %d times for %d words", looks, words)
	}
}

// A node that the root feeds for good has nobody to leave for, however little it gets, and does not
// tell that ten times a second.
func TestANodeThatTheRootFeedsForGoodStays(t *testing.T) {
	t.Parallel()
	m := treeOf(t, 8)
	m.ask(Asker{ID: "n7", Here: true})
	came, speed := map[string]int64{}, map[string]int64{"n7": 1}
	for i := range 7 {
		speed[name(i)] = 100
	}
	for range 4 {
		if m.flows(came, speed, Every)["n7"] {
			t.Fatal("n7 is to leave the root")
		}
	}
	if leave, next := m.tree.Told("n7", m.seat["n7"], came["n7"]+mib, all, m.now.Add(Every)); leave || next != Every {
		t.Errorf("n7 is to leave: %v; it tells again after %v", leave, next)
	}
}
