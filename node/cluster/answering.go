package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"oci-proxy/node/health"
	"oci-proxy/node/membership"
	"oci-proxy/transfer/mesh"
)

// maxNamed bounds the members that Health names.
const maxNamed = 4

// An answering watches whether members reach each other on the peers' port. Gossip may
// be well while that port is closed, or while the network swallows large packets. Then
// each node fetches all for itself.
type answering struct {
	began time.Time

	mu     sync.Mutex // guards the field below; never held during I/O
	silent map[string]silence
}

// A silence is that of a member that is alive, but has not answered of late.
type silence struct {
	since time.Time
	last  error // why the last question got no answer
}

func newAnswering() *answering {
	return &answering{began: time.Now(), silent: map[string]silence{}}
}

// note notes what came of asking all members.
func (a *answering) note(said []Report) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now, silent := time.Now(), map[string]silence{}
	for _, one := range said {
		if p, ok := errors.AsType[*mesh.PeerError](one.Err); one.Err == nil || errors.Is(one.Err, errDown) || ok && p.Busy {
			continue
		}
		s, known := a.silent[one.Member.ID]
		if !known {
			s.since = now
		}
		s.last = one.Err
		silent[one.Member.ID] = s
	}
	a.silent = silent
}

// health returns an error while members that are alive don't answer, or don't ask. asked
// is when one last asked this node something.
func (a *answering) health(v *membership.View, asked, now time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	alive, met := 0, now
	var mute []string
	for i := range v.Members {
		m := &v.Members[i]
		if m.ID == v.Self.ID || !m.Up {
			continue
		}
		alive++
		if m.Since.Before(met) {
			met = m.Since
		}
		// Who is down now and then has another fault, and says so itself.
		if s, ok := a.silent[m.ID]; ok && now.Sub(s.since) >= silentTime && now.Sub(m.Since) >= silentTime {
			mute = append(mute, fmt.Sprintf("%s (%s: %v)", m.Name, m.Peer, s.last))
		}
	}
	if len(mute) == 0 && alive > 0 {
		return a.unasked(v.Self.Peer, asked, met, now)
	}
	return complain(mute, alive)
}

// unasked returns an error if no member has asked anything for a while, though one has
// been alive since met: each asks for reports now and then.
func (a *answering) unasked(own string, asked, met, now time.Time) error {
	for _, t := range []time.Time{a.began, met} {
		if t.After(asked) {
			asked = t
		}
	}
	if now.Sub(asked) < unaskedTime {
		return nil
	}
	return health.Because(health.PeerPort, fmt.Errorf("no other member has reached this node on the peers' port (%s) for %s, though some are alive: open it for them, and check that large packets arrive (MTU)",
		own, now.Sub(asked).Round(time.Second)))
}

// complain names the members that don't answer, of so many that are alive.
func complain(mute []string, alive int) error {
	if len(mute) == 0 {
		return nil
	}
	who := "some members are alive but do not answer on the peers' port"
	if len(mute) == alive {
		who = "no other member answers on the peers' port, so this node fetches for itself"
	}
	slices.SortFunc(mute, cmp.Compare[string])
	if n := len(mute) - maxNamed; n > 0 {
		mute = append(mute[:maxNamed], fmt.Sprintf("and %d more", n))
	}
	return health.Because(health.PeerPort, fmt.Errorf("%s: %s: open it between all nodes, and check that large packets arrive (MTU)", who, strings.Join(mute, ", ")))
}
