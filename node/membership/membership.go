// Package membership makes the node a member of the mesh. It knows which members
// there are, how to reach them, and which of them owns what.
//
// A [Membership] gossips by github.com/hashicorp/memberlist, and never stops
// looking for other members. What it knows at a moment is a [View]: immutable,
// and one atomic load away. A member that is down keeps its place in the ring
// for a while (Config.Grace), so a restart moves no keys; meanwhile the next
// owners in the ring serve its keys.
//
// A member is identified by its id, which is kept on disk. Of several starts of
// one id, the latest counts. To memberlist each start is a different node.
//
// Start with membership.go (start, end, what a node says of itself) and view.go
// (what the rest of the program sees). Then meet.go (when the others are met), roster.go (which members are alive),
// down.go (reports of those that are down), build.go (views and the ring), former.go (rings before; they
// are built in formerbuild.go and kept by formerfile.go),
// gone.go (those that died), join.go (how a node finds the others), seeds.go (which
// seeds it met), twins.go (another node with its id), reach.go (members whose address
// does not answer), gossip.go (memberlist and its traps), session.go (a run of
// memberlist), gate.go and strangers.go (what is kept from memberlist), meta.go (what
// travels), identity.go and addressbook.go (what survives a restart), times.go, keys.go,
// address.go, logbridge.go.
package membership

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"oci-proxy/node/health"
	"oci-proxy/ring"
)

// Config says who a node is and where it finds the others.
type Config struct {
	Cluster      string               // the cluster's id, at most 64 bytes; nodes with another one are not members. "": oci-proxy, which nodes of versions without ids have
	Dir          string               // keeps the identity and the known members; if "" or unusable, they are not kept and a warning says so
	Name         string               // for people
	BindAddr     string               // host:port of gossip; host "": all interfaces; port 0: a free one
	Advertise    string               // host or IP at which others reach this node; "": BindAddr's if specific, else the first private address
	Seeds        []string             // host:port of members; a name stands for all its addresses
	Secrets      []string             // each of at least 16 bytes; all are accepted, and the first that all members accept is used; may be empty on loopback only
	PeerAddr     string               // host:port at which others reach this node's peer listener; host "" or unspecified: the advertised one
	Fingerprint  [32]byte             // SHA-256 of the peer listener's certificate; zero: plain HTTP
	Zone         string               // for people; at most 64 bytes, as are Name and Version
	Version      string               // of this program
	Weight       int                  // ring units, see ring.Units
	Size         int                  // of the cache, see ring.Size; 0: it is not told, as by earlier versions
	Egress       bool                 // this node may ask upstream
	Whitelist    bool                 // this node asks only its own registries
	Certificates bool                 // this node keeps certificates for the clients' port
	Registries   []Registry           // the registries that this node is configured for
	Grace        time.Duration        // how long a member that is down keeps its place; 0: 120 s. Must be the same at all nodes, or their rings differ
	Log          *slog.Logger         // nil: none
	Transport    memberlist.Transport // for tests; nil: the network
	// Gossip is for simulations of more nodes than gossip can be run for; nil: memberlist's.
	Gossip func(*memberlist.Config) (Gossip, error)
	// Rings is for simulations, whose nodes share the rings that they build; nil: (*ring.Ring).Next.
	Rings func(*ring.Ring, []ring.Member) (*ring.Ring, error)
	// Resolve is for tests; nil: the system's resolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
}

// A Registry is one that the node is configured for.
type Registry struct {
	Host    string // canonical host or host:port
	Login   bool   // the node has credentials for it
	Private bool   // its content is served only for repositories that have been granted
}

// A Membership is a running node's membership of the mesh. Its methods are safe
// for concurrent use.
type Membership struct {
	cfg     Config
	at      endpoint
	log     *slog.Logger
	bridge  *logBridge
	roster  *roster
	book    *addressBook
	keys    *gossipKeys
	twins   *twins
	seeds   *seedBook
	reach   *reach
	gossip  *sessions
	rumours *rumours
	vigils  *vigils
	formers *formers
	rings   *ringsKeeper                                        // keep's
	next    func(*ring.Ring, []ring.Member) (*ring.Ring, error) // (*ring.Ring).Next, except in tests of many nodes

	view        atomic.Pointer[View]
	meta        atomic.Pointer[[]byte] // what this node says of itself, encoded
	ringFailure atomic.Pointer[string]

	announcing chan struct{} // holds a value while a change is announced, for announceTime at most; guards self
	self       Member

	anew   chan struct{}   // holds a value if the search for other members begins anew
	sought chan struct{}   // closed after the first search for other members
	passes passes          // of the builder
	ctx    context.Context // ends with the Membership
	stop   context.CancelFunc
	tasks  sync.WaitGroup
	ended  sync.Once // held while the Membership ends: see Close
}

// Open starts gossip. It looks for the other members in the background, for as
// long as it takes, so being alone is no error. An error is one that would not go
// away: an address in use or unknown, a missing or bad secret, or more to tell of
// this node than fits.
func Open(cfg Config) (*Membership, error) {
	m, err := prepare(cfg)
	if err == nil {
		err = m.start(m.cfg.Rings)
	}
	if err != nil {
		return nil, fmt.Errorf("joining the mesh: %w", err)
	}
	return m, nil
}

func (c *Config) fill() {
	c.Cluster = cmp.Or(c.Cluster, defaultCluster)
	if c.Grace == 0 {
		c.Grace = defaultGrace
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Gossip == nil {
		c.Gossip = func(settings *memberlist.Config) (Gossip, error) { return memberlist.Create(settings) }
	}
	if c.Rings == nil {
		c.Rings = (*ring.Ring).Next
	}
	if c.Resolve == nil {
		c.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
}

// prepare makes a Membership that does not run yet.
func prepare(cfg Config) (*Membership, error) {
	cfg.fill()
	m := &Membership{
		cfg: cfg, log: cfg.Log, bridge: newLogBridge(cfg.Log),
		announcing: make(chan struct{}, 1), sought: make(chan struct{}), anew: make(chan struct{}, 1),
	}
	var err error
	if m.seeds, err = newSeedBook(cfg.Seeds); err != nil {
		return nil, err
	}
	if m.at, err = place(&cfg); err != nil {
		return nil, err
	}
	if err := m.at.guarded(cfg.Secrets); err != nil {
		return nil, err
	}
	if m.keys, err = newGossipKeys(cfg.Cluster, cfg.Secrets); err != nil {
		return nil, err
	}
	now := time.Now()
	who, err := identify(cfg.Dir, now)
	if err != nil {
		m.log.Warn("identity not saved: after a restart this node may count as a new member", "error", err)
	}
	if m.book, err = openAddressBook(cfg.Dir, cfg.Grace, now); err != nil {
		m.log.Warn("known members not read: only the seeds are tried", "error", err)
	}
	m.roster = newRoster(who, cfg.Grace)
	m.twins, m.reach = newTwins(m), newReach(m)
	m.rumours = newRumours(m)
	m.formers, m.rings = newFormers(), &ringsKeeper{dir: cfg.Dir, cluster: cfg.Cluster}
	kept, err := m.rings.read(now)
	if err != nil {
		m.log.Warn("rings before not read: this node learns of them from the others", "error", err)
	}
	m.formers.hear(kept, now)
	m.vigils = newVigils(m)
	m.bridge.misplaced = m.reach.misplaced
	return m, m.describe(who)
}

// describe sets what this node tells of itself.
func (m *Membership) describe(who identity) error {
	c := &m.cfg
	m.self = Member{
		ID: who.id, Epoch: who.epoch, Name: c.Name, Peer: m.at.peer, Zone: c.Zone, Version: c.Version,
		Weight: c.Weight, Size: c.Size, Egress: c.Egress, Relays: true, Hears: true, Certificates: c.Certificates, Whitelist: c.Whitelist, Fingerprint: c.Fingerprint,
		Nonce: make([]byte, nonceSize), keys: sketch(c.Secrets),
	}
	rand.Read(m.self.Nonce)
	entries, left := pack(c.Registries)
	m.self.registries, m.self.any, m.self.anySecret = entries, left&anyRegistry != 0, left&anyPrivate != 0
	b, err := encode(&m.self)
	if err != nil {
		return err
	}
	if _, err := decode(b); err != nil {
		return fmt.Errorf("the other members would refuse this node: %w", err)
	}
	m.meta.Store(&b)
	return nil
}

// start starts gossip. next is (*ring.Ring).Next, or what stands for it.
func (m *Membership) start(next func(*ring.Ring, []ring.Member) (*ring.Ring, error)) (err error) {
	m.next = next
	first, err := ring.New(placed([]Member{m.self}, m.self.ID))
	if err != nil {
		return fmt.Errorf("making a ring of this node: %w", err)
	}
	if m.gossip, err = m.openSessions(); err != nil {
		return fmt.Errorf("listening on %s: %w", m.at.bind, err)
	}
	m.formers.use(first, time.Now())
	m.passes.done()
	m.publish(m.roster.snapshot(time.Now()).members, first, nil)
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.tasks.Go(func() { (&builder{m: m}).run(m.ctx) })
	m.tasks.Go(func() { (&seeker{m: m}).run(m.ctx) })
	m.tasks.Go(func() { m.formers.run(m.ctx, m.next, m.roster.changed) })
	m.tasks.Go(m.keep)
	m.tasks.Go(func() { m.twins.run(m.ctx) })
	m.tasks.Go(func() { m.reach.run(m.ctx) })
	m.tasks.Go(func() { m.vigils.run(m.ctx) })
	return nil
}

// keep saves the known members and the rings from time to time, and at the end.
func (m *Membership) keep() {
	t := time.NewTicker(saveEvery)
	defer t.Stop()
	for {
		select {
		case <-m.ctx.Done():
			m.save(0, 0)
			return
		case <-t.C:
			m.save(renewed, aged)
		}
	}
}

func (m *Membership) save(members, rings time.Duration) {
	now := time.Now()
	if err := m.book.save(now, members); err != nil {
		m.bridge.tell(slog.LevelWarn, "known members not saved: after a restart only the seeds are tried", "error", err)
	}
	if err := m.rings.save(m.formers.tell(true, now), now, rings); err != nil {
		m.bridge.tell(slog.LevelWarn, "rings before not saved: after a restart this node learns of them from the others", "error", err)
	}
}

// View returns what is known now.
func (m *Membership) View() *View { return m.view.Load() }

// Member returns another member as it is known at this moment. A member that has just
// joined is known here 50 ms, among many up to half a second, before it is in the View, and asks at once.
func (m *Membership) Member(id string) (Member, bool) { return m.roster.member(id, time.Now()) }

// publish makes the members and their ring the present View.
func (m *Membership) publish(members []Member, r *ring.Ring, former []*ring.Ring) {
	v := &View{Ring: r, Members: members, Former: former, next: make(chan struct{})}
	if self, ok := v.Member(m.roster.me().id); ok {
		v.Self = *self
	}
	if old := m.view.Swap(v); old != nil {
		close(old.next)
	}
}

// Changed returns a channel that is closed when there is a newer View than now. To
// miss no View, take the channel before the View.
func (m *Membership) Changed() <-chan struct{} { return m.view.Load().next }

// Restarting tells the others that this node stops for a moment: they send it no
// new requests, and it keeps its place. It returns when they have been told, after
// 2 s, or when ctx ends. After Draining it does nothing.
func (m *Membership) Restarting(ctx context.Context) { m.tell(ctx, Restarting) }

// Draining tells the others that this node leaves for good: it leaves the ring at
// once, but is a source until Close. It returns when Restarting would.
func (m *Membership) Draining(ctx context.Context) { m.tell(ctx, Draining) }

func (m *Membership) tell(ctx context.Context, s State) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.announceOrWarn(func(self *Member) {
			if self.State != Draining { // who leaves for good may be told to end meanwhile
				self.State = s
			}
		})
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

func (m *Membership) stopped() bool { return m.ctx.Err() != nil }

// Health returns everything that is wrong: another node has this node's identity, a
// seed was never met, the others don't reach this node at its address, the ring can't
// be built; each with its code.
func (m *Membership) Health() (wrong []error) {
	now := time.Now()
	others, alone := m.roster.company()
	for _, err := range append(m.seeds.health(now, others == 0 && alone >= aloneFor, m.roster.gossips()), health.Because(health.Identity, m.twins.health(now)), m.reach.health(now)) {
		if err != nil {
			wrong = append(wrong, err)
		}
	}
	if why := m.ringFailure.Load(); why != nil && *why != "" {
		wrong = append(wrong, health.Because(health.Ring, errors.New(*why)))
	}
	return wrong
}

// Gone lists the members that died, and have lost their place in the ring, by name.
func (m *Membership) Gone() []Gone {
	select {
	case <-m.sought:
		return m.book.gone(time.Now())
	default: // those that an earlier run knew may be met in a moment
		return nil
	}
}

// Close says good-bye and stops. It takes at most about 2 s, plus the time of joins
// under way, and no longer than ctx. Unless Draining was called before, the node
// keeps its place for the grace time.
func (m *Membership) Close(ctx context.Context) error { return m.end(ctx, leaveTime) }

// Kill stops without telling anybody, as a crash would. It is for tests.
func (m *Membership) Kill() error { return m.end(context.Background(), 0) }

func (m *Membership) end(ctx context.Context, leave time.Duration) (err error) {
	m.ended.Do(func() {
		m.stop()
		if until, ok := ctx.Deadline(); ok {
			leave = min(leave, time.Until(until))
		}
		if ctx.Err() != nil {
			leave = 0
		}
		if err = m.gossip.end(ctx, leave); err != nil {
			err = fmt.Errorf("leaving the mesh: %w", err)
		}
		done := make(chan struct{})
		go func() { m.tasks.Wait(); close(done) }()
		select {
		case <-done:
		case <-ctx.Done():
		}
	})
	return err
}
