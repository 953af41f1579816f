package membership

import (
	"net"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// told is what memberlist says of a member.
func told(m *Member) *memberlist.Node {
	b, _ := encode(m)
	return &memberlist.Node{Name: title(m.ID, m.Epoch), Addr: net.IPv4(10, 0, 0, 9), Port: 7946, Meta: b}
}

// Nodes see a loss at different times. Once its place is gone here, the late
// word of another node does not bring a member back; a new start does.
func TestALateWordBringsNobodyBack(t *testing.T) {
	t.Parallel()
	const grace = time.Minute
	r := newRoster(identity{newID(), 1}, grace)
	m := someone()
	m.State = Active
	r.live(told(m))
	r.lost(title(m.ID, m.Epoch))
	now := time.Now()
	if c := r.count(now); len(c.members) != 1 || c.members[0].Up || c.next.After(now.Add(grace)) {
		t.Fatalf("%+v", c)
	}
	word := r.absent(now)
	word[0].Left = 3000
	for _, after := range []time.Duration{grace, grace + time.Second, 2*grace - 5*time.Second} {
		r.hear(word, now.Add(after))
		if c := r.count(now.Add(after)); len(c.members) != 0 {
			t.Errorf("%v after the loss it is back", after)
		}
	}
	m.Epoch++
	r.live(told(m))
	r.lost(title(m.ID, m.Epoch-1))
	if c := r.count(now.Add(grace)); len(c.members) != 1 || !c.members[0].Up {
		t.Errorf("%+v", c)
	}
	if r.count(now.Add(3 * grace)); len(r.boots[m.ID]) != 1 {
		t.Errorf("%d boots are remembered", len(r.boots[m.ID]))
	}
}

// Of two opinions on when a place is lost the earlier holds, and none is
// longer than the grace here.
func TestTheEarlierEndHolds(t *testing.T) {
	t.Parallel()
	r := newRoster(identity{newID(), 1}, time.Minute)
	m := someone()
	m.State = Active
	b, _ := encode(m)
	now := time.Now()
	end := func() time.Duration { return r.count(now).next.Sub(now) }
	for _, test := range []struct{ left, want time.Duration }{
		{time.Hour, time.Minute}, {30 * time.Second, 30 * time.Second}, {50 * time.Second, 30 * time.Second}, {time.Second, time.Second},
	} {
		r.hear([]absentee{{b, "10.0.0.9:7946", test.left.Milliseconds()}}, now)
		if got := end(); got != test.want {
			t.Errorf("after %v is heard, it ends in %v", test.left, got)
		}
	}
}
