package membership

import (
	"net"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"oci-proxy/ring"
)

// told returns what memberlist says of a member.
func told(m *Member) *memberlist.Node {
	b, _ := encode(m)
	return &memberlist.Node{Name: title(m.ID, m.Epoch), Addr: net.IPv4(10, 0, 0, 9), Port: 7946, Meta: b}
}

// Nodes see a loss at different times. Once a member has lost its place here, the
// late report of another node does not bring it back; a new start does.
func TestALateReportBringsNobodyBack(t *testing.T) {
	t.Parallel()
	const grace = time.Minute
	r := newRoster(identity{newID(), 1}, grace)
	m := someone()
	m.State = Active
	r.live(told(m))
	r.lost(title(m.ID, m.Epoch))
	now := time.Now()
	if c := r.snapshot(now); len(c.members) != 1 || c.members[0].Up || c.next.After(now.Add(grace)) {
		t.Fatalf("%+v", c)
	}
	report := r.absent(now)
	report[0].Left = 3000
	for _, after := range []time.Duration{grace, grace + time.Second, 2*grace - 5*time.Second} {
		r.merge(report, now.Add(after))
		if c := r.snapshot(now.Add(after)); len(c.members) != 0 {
			t.Errorf("a report %v after the loss brought the member back", after)
		}
	}
	m.Epoch++
	r.live(told(m))
	r.lost(title(m.ID, m.Epoch-1))
	if c := r.snapshot(now.Add(grace)); len(c.members) != 1 || !c.members[0].Up {
		t.Errorf("%+v", c)
	}
	if r.snapshot(now.Add(3 * grace)); len(r.boots[m.ID]) != 1 {
		t.Errorf("%d boots are remembered, want 1", len(r.boots[m.ID]))
	}
}

// If two nodes disagree on when a member loses its place, the earlier time holds.
// It is never later than this node's own grace time allows.
func TestTheEarlierEndHolds(t *testing.T) {
	t.Parallel()
	r := newRoster(identity{newID(), 1}, time.Minute)
	m := someone()
	m.State = Active
	b, _ := encode(m)
	now := time.Now()
	end := func() time.Duration { return r.snapshot(now).next.Sub(now) }
	for _, test := range []struct{ left, want time.Duration }{
		{time.Hour, time.Minute}, {30 * time.Second, 30 * time.Second}, {50 * time.Second, 30 * time.Second}, {time.Second, time.Second},
	} {
		r.merge([]absentee{{b, "10.0.0.9:7946", test.left.Milliseconds()}}, now)
		if got := end(); got != test.want {
			t.Errorf("after a report of %v, the place ends in %v", test.left, got)
		}
	}
}

// A member can't make the others remember more members than a ring takes.
func TestReportsFillTheRosterToItsBound(t *testing.T) {
	t.Parallel()
	r := newRoster(identity{newID(), 1}, time.Minute)
	m, now := someone(), time.Now()
	for range 2 * ring.MaxMembers {
		m.ID = newID()
		r.mergeOne(m, time.Minute, now)
	}
	if len(r.boots) != ring.MaxMembers {
		t.Errorf("%d members are remembered, want %d", len(r.boots), ring.MaxMembers)
	}
}
