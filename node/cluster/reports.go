package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"oci-proxy/node/figures"
	"oci-proxy/node/membership"
	"oci-proxy/transfer/wait"
)

// A Report is what another member said of itself.
type Report struct {
	Member  *membership.Member
	Figures *figures.Node // nil if Err is set
	Err     error         // why there is no answer
}

// reports are what the other members said of themselves.
type reports struct {
	net   *network
	age   time.Duration // for how long they are passed on
	heard *answering
	life  *wait.Life
	calls *wait.Calls[*membership.View, []Report]

	mu   sync.Mutex // guards the fields below; never held during I/O
	at   time.Time
	of   *membership.View // whose members were asked
	said []Report
	last map[string]*figures.Node // by member's id: what each said last
}

func newReports(net *network, age time.Duration) *reports {
	life := wait.NewLife()
	return &reports{net: net, age: age, heard: newAnswering(), life: life, calls: wait.NewCalls[*membership.View, []Report](life, fanTime)}
}

// Reports asks the other members for their figures, or returns what they said a
// moment ago. It takes fanTime at most.
func (c *Cluster) Reports(ctx context.Context) []Report {
	if c.reports == nil {
		return nil
	}
	return c.reports.ask(ctx)
}

// LastReports are the figures of the other members as they were last heard. It
// asks nobody.
func (c *Cluster) LastReports() []*figures.Node {
	if c.reports == nil {
		return nil
	}
	return c.reports.lastKnown()
}

// Listen asks for reports now and then until ctx ends, for LastReports: every ten
// seconds and when members come or go, and less often in a large cluster, so that
// no node answers more than twice a second.
func (c *Cluster) Listen(ctx context.Context) {
	if c.reports == nil {
		return
	}
	members := c.network.members
	for ctx.Err() == nil {
		changed := members.Changed()
		c.reports.ask(ctx)
		pause := time.Duration(len(members.View().Members)) * time.Second / 2
		if awaitChange(ctx, changed, max(listenTime, pause)) {
			_ = wait.For(ctx, max(reportAge, pause)) // more may change with it; the loop sees ctx's end
		}
	}
}

// awaitChange waits until changed is closed, d has passed or ctx ends. It reports
// whether it was the first.
func awaitChange(ctx context.Context, changed <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-changed:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// ask returns fresh reports. All who want them at a time share one round.
func (r *reports) ask(ctx context.Context) []Report {
	v := r.net.members.View()
	if said, fresh := r.fresh(v); fresh {
		return said
	}
	said, _, err := r.calls.Do(ctx, v, func(ctx context.Context) ([]Report, error) {
		said := r.round(ctx, v)
		r.note(v, said)
		r.heard.note(said)
		return said, nil
	})
	if err != nil { // the asker left or the node is closing
		return missing(v, err)
	}
	return said
}

// missing are reports that nobody made.
func missing(v *membership.View, err error) []Report {
	var out []Report
	for i := range v.Members {
		if m := &v.Members[i]; m.ID != v.Self.ID {
			out = append(out, Report{Member: m, Err: err})
		}
	}
	return out
}

// round asks each member once.
func (r *reports) round(ctx context.Context, v *membership.View) []Report {
	var out []Report
	for _, one := range fan(ctx, v, func(ctx context.Context, m *membership.Member) (*figures.Node, error) {
		raw, err := r.net.client.Stats(ctx, m.ID)
		if err != nil {
			return nil, err
		}
		f, err := figures.Parse(raw)
		if err != nil {
			return nil, fmt.Errorf("reading the figures of %s: %w", m.Name, err)
		}
		return f, nil
	}) {
		out = append(out, Report{Member: one.member, Figures: one.value, Err: one.err})
	}
	return out
}

// fresh returns the last reports if they are of that view's members and were made
// a moment ago.
func (r *reports) fresh(v *membership.View) ([]Report, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.said, r.of == v && time.Since(r.at) < r.age
}

// note remembers what each member said last, and forgets those that are gone.
func (r *reports) note(v *membership.View, said []Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := make(map[string]*figures.Node, len(said))
	for _, one := range said {
		if one.Err == nil {
			last[one.Member.ID] = one.Figures
		} else if old, ok := r.last[one.Member.ID]; ok {
			last[one.Member.ID] = old
		}
	}
	r.at, r.of, r.said, r.last = time.Now(), v, said, last
}

// lastKnown are the figures of each member as it told them last.
func (r *reports) lastKnown() []*figures.Node {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*figures.Node, 0, len(r.last))
	for _, f := range r.last {
		out = append(out, f)
	}
	return out
}
