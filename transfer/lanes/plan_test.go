package lanes

import (
	"math/rand/v2"
	"testing"
	"time"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// newPlan returns a plan of a blob for so many lanes.
func newPlan(t *testing.T, size int64, lanes int) *plan {
	t.Helper()
	room := &store{claim: wait.NewBudget(memory, 0, 0).Claim()}
	if !room.open(t.Context()) {
		t.Fatal("no memory")
	}
	return &plan{size: size, lanes: lanes, room: room}
}

// Whatever lanes do, each byte is brought by one of them and read once, in order.
func TestPlanCoversTheBlob(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		chance := rand.New(rand.NewPCG(seed, 1))
		const size = 20 << 20
		p, now := newPlan(t, size, 1+chance.IntN(8)), time.Now()
		busy := map[*lane]*leg{}
		read := int64(0)
		for steps := 0; read < size && steps < 1e6; steps++ {
			now = now.Add(time.Duration(chance.IntN(100)) * time.Millisecond)
			l := &lane{}
			if chance.IntN(3) == 0 {
				l.way = oci.Upstream(&link{})
			}
			for other := range busy {
				if chance.IntN(2) == 0 {
					l = other
					break
				}
			}
			g := busy[l]
			switch {
			case g == nil && len(busy) < p.lanes:
				if g = p.take(t.Context(), l, now); g != nil {
					busy[l] = g
				}
			case g == nil:
			case g.owner != l || g.complete():
				delete(busy, l)
			case l.way != nil && g.Length > wayLeg:
				t.Fatalf("seed %d: %d bytes by another way", seed, g.Length)
			case chance.IntN(20) == 0: // it breaks off
				p.split(g)
			default:
				n := 1 + chance.Int64N(int64(len(g.space())))
				g.came(n, now)
				if g.complete() {
					p.finish(g)
				}
			}
			if b, _ := p.unread(); b != nil && chance.IntN(3) > 0 {
				if at := p.legs[0].Offset + p.legs[0].read; at != read {
					t.Fatalf("seed %d: byte %d is next after %d", seed, at, read)
				}
				n := 1 + chance.IntN(len(b))
				p.took(n)
				read += int64(n)
			}
			if p.room.used > memory/2 || len(p.legs) > 100 {
				t.Fatalf("seed %d: %d bytes are used for %d legs", seed, p.room.used, len(p.legs))
			}
		}
		if _, end := p.unread(); read != size || !end || !p.over() || p.room.used != 0 {
			t.Errorf("seed %d: %d bytes of %d were read, %d are used", seed, read, size, p.room.used)
		}
	}
}

// A leg that lanes take and leave stays one leg.
func TestLeftLegsDoNotPileUp(t *testing.T) {
	t.Parallel()
	p := newPlan(t, 8<<20, 2)
	for range 1000 {
		g := p.take(t.Context(), &lane{}, time.Now())
		if g == nil || g.Offset != 0 {
			t.Fatalf("%+v is next", g)
		}
		p.split(g)
	}
	if len(p.legs) != 1 {
		t.Errorf("%d legs", len(p.legs))
	}
}

func TestLegIsLate(t *testing.T) {
	t.Parallel()
	now := time.Now()
	usual := pace{speed: 1e6, delay: 100 * time.Millisecond}
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for name, c := range map[string]struct {
		leg  leg
		pace pace
		late bool
	}{
		"just asked":            {leg{asked: ago(still - 1)}, usual, false},
		"no answer":             {leg{asked: ago(still)}, usual, true},
		"nothing is known":      {leg{asked: ago(time.Hour)}, pace{}, false},
		"far away":              {leg{asked: ago(3 * time.Second)}, pace{1e6, time.Second}, false},
		"still":                 {leg{asked: ago(9 * time.Second), first: ago(8 * time.Second), last: ago(still), got: 4e6}, usual, true},
		"not yet still":         {leg{asked: ago(5 * time.Second), first: ago(4 * time.Second), last: ago(still - 1), got: 4e6}, usual, false},
		"still for once more":   {leg{asked: ago(9 * time.Second), first: ago(8 * time.Second), last: ago(still), got: 4e6, moves: 1}, usual, false},
		"still too often":       {leg{asked: ago(99 * time.Second), first: ago(98 * time.Second), last: ago(90 * time.Second), moves: maxMoves}, usual, false},
		"crawls":                {leg{asked: ago(3 * time.Second), first: ago(2 * time.Second), last: now, got: 1e5}, usual, true},
		"crawls, near its end":  {leg{asked: ago(30 * time.Second), first: ago(29 * time.Second), last: now, got: 7.95e6 / 2, Span: oci.Span{Length: 4e6}}, usual, false},
		"half as fast":          {leg{asked: ago(3 * time.Second), first: ago(2 * time.Second), last: now, got: 1e6}, usual, false},
		"crawls, just at first": {leg{asked: ago(time.Second), first: ago(crawlFor - 1), last: now, got: 1e3}, usual, false},
	} {
		g := c.leg
		g.owner = &lane{}
		if g.Length == 0 {
			g.Length = 8e6
		}
		if late := g.late(&c.pace, now); late != c.late {
			t.Errorf("%s: late %t", name, late)
		}
	}
	if (&leg{asked: ago(time.Hour)}).late(&usual, now) {
		t.Error("a leg that nobody brings is late")
	}
}

func TestLegsFitTheWay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		speed float64
		delay time.Duration
		want  int64
	}{
		{0, 0, firstLeg},
		{1e3, time.Second, minLeg},
		{1e6, 100 * time.Millisecond, whole(2e6)},
		{1e7, 0, whole(5e6)},
		{1e9, time.Second, maxLeg},
	} {
		if got := (&pace{c.speed, c.delay}).length(); got != c.want {
			t.Errorf("%v bytes a second after %v: %d, want %d", c.speed, c.delay, got, c.want)
		}
	}
}
