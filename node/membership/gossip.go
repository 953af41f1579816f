package membership

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/hashicorp/memberlist"
)

// label keeps other users of memberlist apart from us.
const label = "oci-proxy"

// settings are memberlist's: LAN timing, but more gossip, as its defaults let
// one of seven updates miss somebody in a mesh of nine.
func (m *Membership) settings() *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = title(m.roster.self, m.roster.epoch)
	c.BindAddr, c.BindPort = m.at.bind.Addr().String(), int(m.at.bind.Port())
	c.AdvertiseAddr, c.AdvertisePort = m.at.advertise.String(), int(m.at.bind.Port())
	c.Label = label
	c.Keyring = m.keys
	c.GossipVerifyIncoming, c.GossipVerifyOutgoing = true, true

	c.RetransmitMult = 8
	c.GossipNodes = 4
	c.GossipInterval = 100 * time.Millisecond
	c.PushPullInterval = 10 * time.Second
	c.ProbeInterval = time.Second
	c.ProbeTimeout = 500 * time.Millisecond
	c.SuspicionMult = 4
	c.SuspicionMaxTimeoutMult = 3 // with 6, a second loss within 30 s takes 14 s to see
	c.TCPTimeout = 3 * time.Second
	c.GossipToTheDeadTime = 30 * time.Second
	c.DeadNodeReclaimTime = time.Second
	c.UDPBufferSize = 1400
	c.EnableCompression = false // most of it is random: that costs a quarter of gossip's CPU and saves little

	d := delegate{m}
	c.Delegate, c.Events, c.Alive, c.Conflict = d, d, d, d
	c.Logger = log.New(m.murmur, "", 0)
	return c
}

// A delegate is what memberlist calls, under its own lock: it may not call
// back.
type delegate struct{ m *Membership }

var (
	_ memberlist.Delegate         = delegate{}
	_ memberlist.EventDelegate    = delegate{}
	_ memberlist.AliveDelegate    = delegate{}
	_ memberlist.ConflictDelegate = delegate{}
)

// NodeMeta is what this node tells of itself.
func (d delegate) NodeMeta(int) []byte { return *d.m.meta.Load() }

// NotifyAlive refuses who is no member of ours.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	if d.m.roster.knows(n.Name, n.Meta) {
		return nil
	}
	m, err := decode(n.Meta)
	if err != nil {
		return fmt.Errorf("the node at %s: %w", n.Address(), err)
	}
	if title(m.ID, m.Epoch) != n.Name {
		return fmt.Errorf("the node at %s: %w: it is not who it says", n.Address(), errMeta)
	}
	return nil
}

// NotifyJoin, NotifyUpdate and NotifyLeave write to the roster.
func (d delegate) NotifyJoin(n *memberlist.Node) { d.m.roster.live(n) }

// NotifyUpdate see NotifyJoin.
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.m.roster.live(n) }

// NotifyLeave see NotifyJoin.
func (d delegate) NotifyLeave(n *memberlist.Node) { d.m.roster.lost(n.Name) }

// NotifyConflict is called when another node has the name of one that lives.
func (d delegate) NotifyConflict(existing, _ *memberlist.Node) { d.m.roster.conflicts(existing.Name) }

// NotifyMsg gets none: nothing here rests on a single message.
func (d delegate) NotifyMsg([]byte) {}

// GetBroadcasts has none.
func (d delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState is this node's report of who is down.
func (d delegate) LocalState(bool) []byte {
	b, err := json.Marshal(report{d.m.roster.absent(time.Now())})
	if err != nil {
		d.m.log.Error("report of who is down not made", "error", err)
		return nil
	}
	return b
}

// MergeRemoteState takes another node's report.
func (d delegate) MergeRemoteState(b []byte, _ bool) {
	var r report
	if len(b) == 0 {
		return
	}
	if err := json.Unmarshal(b, &r); err != nil {
		d.m.murmur.tell(slog.LevelWarn, "report of who is down not understood", "error", err)
		return
	}
	d.m.roster.hear(r.Down, time.Now())
}

// announceOrWarn is for where nobody waits for the error.
func (m *Membership) announceOrWarn(change func(self *Member)) {
	if err := m.announce(change); err != nil {
		m.log.Warn("not all members may know of this node's change yet", "error", err)
	}
}

// announce tells the others of a change to this node. It returns when they
// have been told, as far as gossip knows, or after announceTime.
func (m *Membership) announce(change func(self *Member)) error {
	m.telling.Lock()
	defer m.telling.Unlock()
	self := m.self
	change(&self)
	b, err := encode(&self)
	if err != nil {
		return err
	}
	if m.stopped() {
		return errors.New("it has ended")
	}
	m.self = self
	m.meta.Store(&b)
	return m.list.UpdateNode(announceTime)
}
