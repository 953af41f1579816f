package memnet_test

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"oci-proxy/node/membership/memnet"
)

// A listener to what memberlist, or the oracle, says. It knows who is alive.
type witness struct {
	name string

	mu    sync.Mutex
	alive map[string]bool
}

func (*witness) NodeMeta(int) []byte               { return nil }
func (*witness) NotifyMsg([]byte)                  {}
func (*witness) GetBroadcasts(int, int) [][]byte   { return nil }
func (*witness) LocalState(bool) []byte            { return nil }
func (*witness) MergeRemoteState([]byte, bool)     {}
func (w *witness) NotifyUpdate(n *memberlist.Node) { w.NotifyJoin(n) }

func (w *witness) NotifyJoin(n *memberlist.Node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alive[n.Name] = true
}

func (w *witness) NotifyLeave(n *memberlist.Node) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.alive, n.Name)
}

func (w *witness) sees() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.alive)
}

// The oracle tells all nodes of one that joins, leaves or dies, when memberlist would.
func TestTheOracleTellsOfJoinsLeavesAndDeaths(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New(1)
		o := memnet.NewOracle(n)
		var all []*memnet.Oracled
		var seen []*witness
		begin := func(i int) {
			w := &witness{name: fmt.Sprint("n", i), alive: map[string]bool{}}
			c := memberlist.DefaultLANConfig()
			c.Name, c.AdvertiseAddr, c.AdvertisePort, c.Delegate, c.Events = w.name, fmt.Sprintf("10.0.0.%d", i+1), 7946, w, w
			c.Transport = n.Host(net.JoinHostPort(c.AdvertiseAddr, "7946"))
			one, err := o.Create(c)
			if err != nil {
				t.Fatal(err)
			}
			all, seen = append(all, one), append(seen, w)
		}
		want := func(after time.Duration, number int) {
			t.Helper()
			<-time.After(after)
			for i, w := range seen {
				if w != nil && w.sees() != number {
					t.Errorf("node %d sees %d nodes, want %d", i, w.sees(), number)
				}
			}
		}
		if err := o.Form(func() error {
			for i := range 9 {
				begin(i)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		want(0, 9)
		begin(9)
		if k, err := all[9].Join([]string{"10.0.0.1:7946"}); k != 1 || err != nil {
			t.Errorf("joined %d nodes: %v", k, err)
		}
		want(time.Second, 10)
		_ = all[3].Leave(time.Second)
		_ = all[3].Shutdown()
		seen[3] = nil
		want(time.Second, 9)
		_ = all[4].Shutdown()
		seen[4] = nil
		want(4*time.Second, 9)
		want(3*time.Second, 8)
		if k, err := all[9].Join([]string{"10.0.0.5:7946"}); k != 0 || err == nil {
			t.Errorf("joined %d nodes at a dead one's address", k)
		}
		for _, one := range all {
			_ = one.Shutdown()
		}
	})
}
