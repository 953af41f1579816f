package membership

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
)

// label separates the cluster of that id from others, and from other programs that
// use memberlist. It travels in the clear, and is authenticated with what is encrypted.
func label(cluster string) string {
	if cluster == defaultCluster {
		return program
	}
	return program + "/" + cluster
}

// program begins every label of ours.
const program = "oci-proxy"

// A member is suspected for at least suspicionMult probe intervals, and for at most
// suspicionMaxMult times that, before it counts as dead. Beyond ten members, both
// grow with their logarithm. With a maximum of 6, a second loss within 30 s would
// take 14 s to notice.
const (
	retransmitMult   = 8 // how often a node tells of a change, times the logarithm of their number
	suspicionMult    = 4
	suspicionMaxMult = 3
)

// settings returns memberlist's settings. For the times see times.go.
func (m *Membership) settings(d delegate) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.BindAddr, c.BindPort = m.at.bind.Addr().String(), int(m.at.bind.Port())
	c.AdvertiseAddr, c.AdvertisePort = m.at.advertise.String(), int(m.at.bind.Port())
	c.Label = label(m.cfg.Cluster)
	c.Keyring = m.keys.ring
	c.GossipVerifyIncoming, c.GossipVerifyOutgoing = true, true

	c.RetransmitMult = retransmitMult
	c.GossipNodes = 4
	c.GossipInterval = gossipInterval
	c.PushPullInterval = pushPullInterval
	c.ProbeInterval = probeInterval
	c.ProbeTimeout = probeTimeout
	c.SuspicionMult = suspicionMult
	c.SuspicionMaxTimeoutMult = suspicionMaxMult
	c.TCPTimeout = streamTimeout
	c.GossipToTheDeadTime = gossipToDead
	c.DeadNodeReclaimTime = reclaimAfter
	c.UDPBufferSize = 1400
	c.EnableCompression = false // most bytes are random: it would cost a quarter of gossip's CPU and save little

	c.Delegate, c.Events, c.Alive, c.Conflict, c.Merge = d, d, d, d, d
	c.Logger = log.New(m.bridge, "", 0)
	return c
}

// A delegate receives memberlist's calls. They come under memberlist's lock, so a
// delegate must not call memberlist.
type delegate struct {
	m       *Membership
	current func() bool // its session is the current one: an earlier one has no say
}

var (
	_ memberlist.Delegate         = delegate{}
	_ memberlist.EventDelegate    = delegate{}
	_ memberlist.AliveDelegate    = delegate{}
	_ memberlist.ConflictDelegate = delegate{}
	_ memberlist.MergeDelegate    = delegate{}
)

// NodeMeta returns what this node says of itself.
func (d delegate) NodeMeta(int) []byte { return *d.m.meta.Load() }

// NotifyAlive refuses a node that is not a member of this mesh.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	if d.m.roster.knows(n.Name, n.Meta) {
		return nil
	}
	m, err := decode(n.Meta)
	if err != nil {
		return fmt.Errorf("the node at %s: %w", n.Address(), err)
	}
	if title(m.ID, m.Epoch) != n.Name {
		return fmt.Errorf("the node at %s: %w: its name does not match its id", n.Address(), errMeta)
	}
	return nil
}

// NotifyJoin notes the member as alive.
func (d delegate) NotifyJoin(n *memberlist.Node) {
	if d.current() && d.m.roster.live(n) {
		d.m.reach.doubt(n.Name, n.Address())
	}
}

// NotifyUpdate does what NotifyJoin does.
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.NotifyJoin(n) }

// NotifyLeave notes the member as lost, or keeps a vigil for it.
func (d delegate) NotifyLeave(n *memberlist.Node) {
	if d.current() {
		d.m.vigils.found(n.Name)
	}
}

// NotifyConflict is called when another node has the name of a live one.
func (d delegate) NotifyConflict(existing, other *memberlist.Node) {
	switch {
	case !d.current():
	case d.m.roster.conflicts(existing.Name):
		d.m.twins.look(other.Address())
	default:
		d.m.twins.clash(existing.Name, existing.Address(), other.Address())
	}
}

// NotifyMerge looks through the members that the other node knows, as one of the two joins. A
// member that is suspected there, and not known here, memberlist passes over: this node
// would not count it until it was found dead, and have another ring for so long. So it
// counts as down, until it says that it lives.
func (d delegate) NotifyMerge(nodes []*memberlist.Node) error {
	for _, n := range nodes {
		if n.State == memberlist.StateSuspect && d.current() && d.NotifyAlive(n) == nil {
			d.suspect(n)
		}
	}
	return nil
}

// suspect notes a member as down, unless it is known.
func (d delegate) suspect(n *memberlist.Node) {
	r := d.m.roster
	m, err := decode(n.Meta)
	if err != nil || m.State == Draining || m.ID == r.me().id {
		return
	}
	m.meta, m.Gossip = string(n.Meta), net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
	r.mergeOne(m, r.grace, time.Now())
}

// NotifyMsg takes a rumour. memberlist uses the bytes again.
func (d delegate) NotifyMsg(b []byte) {
	if d.current() {
		d.m.rumours.hear(b)
	}
}

// GetBroadcasts returns the rumours that are to be passed on.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.m.rumours.queue.GetBroadcasts(overhead, limit)
}

// LocalState returns this node's report of the members that are down, and of rings.
func (d delegate) LocalState(join bool) []byte {
	now := time.Now()
	b, err := json.Marshal(report{Down: d.m.roster.absent(now), Gone: d.m.book.departed(now), Self: d.m.twins.card(), Clash: d.m.twins.seen(now), Mute: d.m.reach.mute(now), Rings: d.m.formers.tell(join, now)})
	if err != nil {
		d.m.log.Error("report of down members not encoded", "error", err)
		return nil
	}
	return b
}

// MergeRemoteState merges another node's report.
func (d delegate) MergeRemoteState(b []byte, _ bool) {
	var r report
	if len(b) == 0 {
		return
	}
	if err := json.Unmarshal(b, &r); err != nil {
		d.m.bridge.tell(slog.LevelWarn, "report of down members not understood: another version of oci-proxy?", "error", err)
		return
	}
	if !d.current() {
		return
	}
	now := time.Now()
	d.m.rumours.learn(r.Gone, now)
	d.m.roster.merge(r.Down, now)
	d.m.formers.hear(r.Rings, now)
	d.m.twins.meet(r.Self)
	d.m.twins.hear(r.Clash)
	d.m.reach.hear(r.Mute, r.Self, now)
}

var errEnded = errors.New("this node has left the mesh")

// Rekey replaces the secrets. All of them are accepted, and the first is used as
// soon as every other member accepts it too. So two steps at any pace, first
// [new, old] everywhere and then [new], keep the mesh together; restarts do as
// well. After an error the secrets are as before. A node that was started without
// a secret can't get one.
func (m *Membership) Rekey(secrets []string) error {
	if err := m.keys.replace(secrets, otherLive(m.View().Members, m.roster.me().id)); err != nil {
		return err
	}
	if m.keys.encrypted() {
		m.log.Info("gossip secrets replaced", "accepted", len(secrets))
		go m.announceOrWarn(func(self *Member) { self.keys = m.keys.sketch() })
	}
	return nil
}

// Serve tells the others which registries this node is configured for from now on, and whether
// it asks no others. It returns at once.
func Serve(m *Membership, registries []Registry, whitelist bool) {
	entries, left := pack(registries)
	go m.announceOrWarn(func(self *Member) {
		self.registries, self.any, self.anySecret, self.Whitelist = entries, left&anyRegistry != 0, left&anyPrivate != 0, whitelist
	})
}

// tellSecret logs that gossip now uses the secret of that number, if it is not 0,
// or why it can't.
func (m *Membership) tellSecret(number int, err error) {
	switch {
	case err != nil:
		m.log.Error("gossip secret not switched", "error", err)
	case number > 0:
		m.bridge.tell(slog.LevelDebug, "gossip switched to another of its secrets", "number", number)
	}
}

// announceOrWarn is announce for callers that can't use the error.
func (m *Membership) announceOrWarn(change func(self *Member)) {
	if err := m.announce(change); err != nil {
		m.log.Warn("change of this node announced to some members only: the others learn of it later", "error", err)
	}
}

// announce tells the others of a change to this node. It returns when they have
// been told, as far as gossip knows, or after announceTime. Only one change is
// announced at a time: memberlist could send two in the wrong order.
func (m *Membership) announce(change func(self *Member)) error {
	select {
	case m.announcing <- struct{}{}:
		defer func() { <-m.announcing }()
	case <-m.ctx.Done():
		return errEnded
	}
	self := m.self
	change(&self)
	b, err := encode(&self)
	if err != nil {
		return err
	}
	if m.stopped() {
		return errEnded
	}
	m.self = self
	m.meta.Store(&b)
	return m.gossip.list().UpdateNode(announceTime)
}
