package membership

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"oci-proxy/ring"
)

// A cluster that starts all at once knows the rings before its last change, though nobody was
// left to tell of them.
func TestRingsOutliveARestartOfAll(t *testing.T) {
	t.Parallel()
	homes := []string{t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()}
	bubble(t, 1, func(s *sim) {
		for i := range 3 {
			s.start(i, dir(homes[i]))
		}
		s.reach(time.Second, "each node sees all", s.whole)
		s.pass(5 * time.Second)
		before := s.nodes[0].View().Ring.Hash()
		s.start(3, dir(homes[3]))
		s.reach(time.Second, "each node sees all", s.whole)
		s.pass(5 * time.Second)
		last := s.nodes[0].View().Ring.Hash()
		s.pass(6 * time.Minute)
		for i := range 4 {
			s.kill(i)
		}
		s.pass(time.Hour)
		for i := range 3 { // one does not come back
			s.start(i, dir(homes[i]), func(c *Config) { c.Seeds = []string{ip(0) + ":7946", ip(1) + ":7946"} })
		}
		for i := range 3 {
			s.nodes[i].AwaitOthers(s.Context())
		}
		s.reach(time.Second, "each node sees all", s.whole)
		// The three of before are the ring of now.
		if !s.all(func(v *View) bool { return v.Ring.Hash() == before && remembers(v, last) })() {
			s.Error("a node does not know who owned what before all of them restarted")
		}
		s.pass(11 * time.Minute)
		if !s.all(func(v *View) bool { return len(v.Former) == 0 })() {
			s.Error("rings are remembered for ever")
		}
	})
}

// ringOf returns a ring of members with new ids.
func ringOf(t *testing.T, n int) *ring.Ring {
	t.Helper()
	members := make([]ring.Member, n)
	for i := range members {
		members[i] = ring.Member{ID: newID(), Weight: 1, Size: 80}
	}
	r, err := ring.New(members)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The file keeps ages, so it does not matter by how much the clock is set back or forth. A file
// that is torn, too long or another cluster's is not used.
func TestRingsOnDisk(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	k := &ringsKeeper{dir: home, cluster: "here"}
	if told, err := k.read(noon); told != nil || err != nil {
		t.Errorf("before there is a file: %v, %v", told, err)
	}
	f := newFormers()
	older, newer := ringOf(t, 2), ringOf(t, 3)
	f.use(older, noon)
	f.use(newer, noon.Add(time.Minute))
	now := noon.Add(4 * time.Minute)
	if err := k.save(f.tell(true, now), now, aged); err != nil {
		t.Fatal(err)
	}
	for _, at := range []time.Time{now, now.Add(-24 * time.Hour), now.Add(1000 * time.Hour)} {
		told, err := k.read(at)
		if err != nil {
			t.Fatal(err)
		}
		again := newFormers()
		again.use(ringOf(t, 1), at)
		again.hear(told, at)
		again.build(t.Context(), (*ring.Ring).Next)
		rings, next := again.list(at)
		if len(rings) != 2 || rings[0].Hash() != newer.Hash() || rings[1].Hash() != older.Hash() || next.Sub(at) != 7*time.Minute {
			t.Errorf("at %v there are %d rings, the first of which ends in %v", at, len(rings), next.Sub(at))
		}
	}
	file := filepath.Join(home, ringsFile)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"nothing": "", "torn": string(text[:len(text)/2]), "another's": strings.Replace(string(text), `"here"`, `"there"`, 1),
		"no rings": `{"cluster":"here"}`, "other JSON": "[]", "too long": strings.Repeat(" ", maxRingsFile) + string(text),
	} {
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if told, err := k.read(now); err == nil {
			t.Errorf("%s: %v", name, told)
		}
	}
}

// A node starts with a file that it can't use, says so once, and replaces it.
func TestATornFileOfRingsIsReplaced(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	file := filepath.Join(home, ringsFile)
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	bubble(t, 1, func(s *sim) {
		s.start(0, dir(home))
		s.pass(time.Minute)
		if n := s.logs[0].Count("rings before not read"); n != 1 {
			s.Errorf("it is said %d times", n)
		}
		if told, err := (&ringsKeeper{dir: home, cluster: defaultCluster}).read(time.Now()); err != nil || len(told.Rings) != 1 {
			s.Errorf("after a minute the file has %v, %v", told, err)
		}
	})
}

// The file is written when there is another ring, and now and then while one grows old, not
// each time.
func TestRingsAreSavedSeldom(t *testing.T) {
	t.Parallel()
	k, f, writes := &ringsKeeper{dir: t.TempDir(), cluster: "here"}, newFormers(), 0
	save := func(now time.Time) {
		t.Helper()
		at := k.at
		f.use(f.now, now)
		if err := k.save(f.tell(true, now), now, aged); err != nil {
			t.Error(err)
		}
		if !k.at.Equal(at) {
			writes++
		}
	}
	f.use(ringOf(t, 1), noon)
	for i := range 100 {
		save(noon.Add(time.Duration(i) * saveEvery))
	}
	if writes != 1 {
		t.Errorf("a ring that stays was written %d times", writes)
	}
	changed := noon.Add(time.Hour)
	f.use(ringOf(t, 2), changed)
	for i := range 120 {
		save(changed.Add(time.Duration(i) * saveEvery))
	}
	if writes > 15 {
		t.Errorf("a change of the ring made %d writes", writes)
	}
}

// No View waits for a former ring, and the one that joins in the end knows it.
func TestNoViewWaitsForFormerRings(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(s *sim) {
		s.form(3)
		s.pass(5 * time.Second)
		before := s.nodes[0].View().Ring.Members()
		hash := s.nodes[0].View().Ring.Hash()
		release := make(chan struct{})
		s.next = func(old *ring.Ring, members []ring.Member) (*ring.Ring, error) {
			if slices.Equal(members, before) {
				<-release
			}
			return remembered(old, members)
		}
		m := s.start(3)
		s.reach(time.Second, "all see all", s.whole)
		s.start(4)
		s.reach(time.Second, "all see another", s.whole)
		if remembers(m.View(), hash) {
			s.Error("the former ring is built, though nothing builds it")
		}
		close(release)
		s.reach(time.Second, "the newcomer knows the ring before", func() bool { return remembers(m.View(), hash) })
	})
}

// What can't be built as it is told of is not tried again, until it would be forgotten.
func TestRingsThatCannotBeBuiltAreTriedOnce(t *testing.T) {
	t.Parallel()
	one, other := ringOf(t, 3), ringOf(t, 3)
	tries := 0
	next := func(old *ring.Ring, members []ring.Member) (*ring.Ring, error) {
		tries++
		return old.Next(members)
	}
	f := newFormers()
	hear := func(now time.Time, ago time.Duration, of *ring.Ring, as uint64) {
		t.Helper()
		told := encodeRings([]former{{of, time.Minute, now.Add(formerFor - ago)}}, now)
		told.Rings[0].Hash = fmt.Sprintf("%016x", as)
		f.hear(told, now)
		f.build(t.Context(), next)
	}
	for i := range 5 {
		hear(noon.Add(time.Duration(i)*pushPullInterval), time.Duration(i)*pushPullInterval, one, other.Hash())
	}
	if tries != 1 {
		t.Errorf("a ring of another version was tried %d times", tries)
	}
	hear(noon, 0, other, other.Hash())
	if rings, _ := f.list(noon); len(rings) != 1 || tries != 2 {
		t.Errorf("after %d tries %d rings are known: the lie keeps the truth away", tries, len(rings))
	}
	for i := range 2 * maxFailedRings {
		hear(noon, 0, one, uint64(i))
	}
	if len(f.failed) > maxFailedRings {
		t.Errorf("%d are remembered", len(f.failed))
	}
	hear(noon.Add(formerFor), 0, one, uint64(2*maxFailedRings-1))
	if len(f.failed) != 1 {
		t.Errorf("%d are remembered when their time is over", len(f.failed))
	}
}

// A ring of very many members is not built: that would take too long.
func TestVeryLargeRingsAreNotBuilt(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int{maxFormerMembers: 1, maxFormerMembers + 1: 0} {
		told := toldRings{
			Members: base64s.EncodeToString(make([]byte, n*recordSize)),
			Rings:   []toldRing{{Hash: "1", In: base64s.EncodeToString(bytes.Repeat([]byte{0xff}, n/8+1))}},
		}
		if told.bytes() > maxToldBytes {
			t.Errorf("%d bytes would not be heard anyway", told.bytes())
		}
		if all := told.decode(noon); len(all) != want {
			t.Errorf("of %d members, %d rings are to be built", n, len(all))
		}
	}
}

// A node that asks for more than its View has waits until that has caught up with gossip.
func TestCatchUp(t *testing.T) {
	t.Parallel()
	bubble(t, 1, func(s *sim) {
		s.form(3)
		m := s.start(3)
		CatchUp(s.Context(), m)
		if n := up(m.View()); n != 4 {
			s.Fatalf("a newcomer that has caught up sees %d members", n)
		}
		late := s.start(4)
		id := late.View().Self.ID
		for known := false; !known; _, known = m.Member(id) {
			s.pass(time.Millisecond)
		}
		if _, seen := m.View().Member(id); seen {
			s.Fatal("the View has the member as soon as gossip does")
		}
		began := time.Now()
		CatchUp(s.Context(), m)
		if _, seen := m.View().Member(id); !seen || time.Since(began) > time.Second {
			s.Errorf("after %v the member is in the View: %t", time.Since(began), seen)
		}
		began = time.Now()
		CatchUp(s.Context(), m)
		if took := time.Since(began); took > 0 {
			s.Errorf("it waits for %v though nothing has changed", took)
		}
	})
}
