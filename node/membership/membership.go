// Package membership is the node's place among the members of the mesh: who is
// there, how they are reached, and who owns what among them.
//
// A [Membership] gossips by github.com/hashicorp/memberlist, and looks for
// other members for ever. What it knows at a moment is a [View]: immutable,
// one atomic load away. A member that is down keeps its place in the ring for
// a while (Config.Grace), so that a restart moves nothing; its keys are served
// by whom the ring names next.
//
// What counts for a member is its id, kept on disk, and of its starts the
// latest. To memberlist each start is a node of its own.
//
// Start with membership.go (starting, ending, what a node says of itself) and
// view.go (what others see), then roster.go (who is there), down.go (who is
// not), build.go (the ring), join.go (how the others are found), gossip.go
// (memberlist and its traps), gate.go (what it is shielded from), meta.go (what
// travels), files.go and book.go (what survives a restart), keys.go,
// address.go, log.go.
package membership

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"oci-proxy/ring"
)

const (
	defaultGrace = 120 * time.Second
	announceTime = 2 * time.Second // how long a change of state is waited for
	leaveTime    = 2 * time.Second
	aloneFor     = 15 * time.Second // how long it may take to find a seed
	saveEvery    = 10 * time.Second
	contestedFor = time.Minute // a conflict of names is seen at each push/pull
)

// Config says who a node is and where it finds the others.
type Config struct {
	Dir         string               // where the identity and the known members are kept; if it is "" or can't be used, they are not, and a warning says so
	Name        string               // what people call the node
	BindAddr    string               // host:port of gossip; host "": all interfaces; port 0: a free one
	Advertise   string               // host or IP that others reach this node at; "": BindAddr's if specific, else the first private address
	Seeds       []string             // host:port of members; a name stands for all its addresses
	Secrets     []string             // of at least 16 bytes; all are accepted, the first that all members accept is used; none only on loopback
	PeerAddr    string               // host:port that peers reach this node's peer listener at; host "" or unspecified: the advertised one
	Fingerprint [32]byte             // SHA-256 of the peer listener's certificate; zero: plain HTTP
	Zone        string               // for people, at most 64 bytes, as Name and Version
	Version     string               // of this program
	Weight      int                  // ring units (ring.Units)
	Egress      bool                 // this node may ask upstream
	Whitelist   bool                 // only its own registries may be asked
	Registries  []Registry           // what it is configured for
	Grace       time.Duration        // how long a member that is down keeps its place; 0: 120 s. The same at all nodes, or rings disagree
	Log         *slog.Logger         // nil: none
	Transport   memberlist.Transport // for tests; nil: the network
	// Resolve is for tests; nil: the system's resolver.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)
}

// A Registry is one that the node is configured for.
type Registry struct {
	Host    string // canonical host or host:port
	Login   bool   // the node has credentials
	Private bool   // its content is served only for repositories it vouched for
}

// A Membership is a running node's place among the members. All its methods
// may be called at the same time.
type Membership struct {
	cfg    Config
	at     endpoint
	gossip string // host:port of this node, told
	log    *slog.Logger
	murmur *murmur
	roster *roster
	book   *book
	list   *memberlist.Memberlist
	next   func(*ring.Ring, []ring.Member) (*ring.Ring, error) // (*ring.Ring).Next but in tests of many nodes

	view        atomic.Pointer[View]
	meta        atomic.Pointer[[]byte]
	ringFailure atomic.Pointer[string]
	joinFailure atomic.Pointer[string]
	seedless    atomic.Bool // the seeds stand for this node only

	keys     *memberlist.Keyring // nil: plaintext
	rekeying sync.Mutex          // held while keys change; guards the two below
	secrets  []string
	tried    int // secrets tried while alone

	telling sync.Mutex // held while something is told; guards self
	self    Member

	sought chan struct{}   // closed when others have been looked for once
	ctx    context.Context // ends when it does
	stop   context.CancelFunc
	tasks  sync.WaitGroup
	ended  sync.Once
}

// Open starts gossip. Others are looked for in the background, for as long as
// it takes, so to be alone is no error. An error is what can't pass: an
// address in use or not known, a bad secret or none where one is needed, more
// to tell than fits.
func Open(cfg Config) (*Membership, error) {
	m, err := prepare(cfg)
	if err == nil {
		err = m.start((*ring.Ring).Next)
	}
	if err != nil {
		return nil, fmt.Errorf("joining the mesh: %w", err)
	}
	return m, nil
}

func (c *Config) fill() {
	if c.Grace == 0 {
		c.Grace = defaultGrace
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Resolve == nil {
		c.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
}

// prepare makes what is not running yet.
func prepare(cfg Config) (*Membership, error) {
	cfg.fill()
	m := &Membership{cfg: cfg, log: cfg.Log, murmur: &murmur{log: cfg.Log}, sought: make(chan struct{})}
	for _, seed := range cfg.Seeds {
		if _, _, err := splitAddress(seed); err != nil {
			return nil, fmt.Errorf("the seed %q: %w", seed, err)
		}
	}
	var err error
	if m.at, err = place(&cfg); err != nil {
		return nil, err
	}
	if err := m.at.guarded(cfg.Secrets); err != nil {
		return nil, err
	}
	if m.keys, err = newKeyring(cfg.Secrets); err != nil {
		return nil, err
	}
	m.secrets = slices.Clone(cfg.Secrets)
	now := time.Now()
	who, err := identify(cfg.Dir, now)
	if err != nil {
		m.log.Warn("this node will be another one after a restart", "error", err)
	}
	if m.book, err = openBook(cfg.Dir, now); err != nil {
		m.log.Warn("members of before are not known", "error", err)
	}
	m.roster = newRoster(who, cfg.Grace)
	return m, m.describe(who)
}

// describe makes what this node tells of itself.
func (m *Membership) describe(who identity) error {
	c := &m.cfg
	m.self = Member{
		ID: who.id, Epoch: who.epoch, Name: c.Name, Peer: m.at.peer, Zone: c.Zone, Version: c.Version,
		Weight: c.Weight, Egress: c.Egress, Whitelist: c.Whitelist, Fingerprint: c.Fingerprint,
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
		return fmt.Errorf("others would refuse this node: %w", err)
	}
	m.meta.Store(&b)
	return nil
}

// start begins to gossip. next is (*ring.Ring).Next.
func (m *Membership) start(next func(*ring.Ring, []ring.Member) (*ring.Ring, error)) (err error) {
	m.next = next
	first, err := ring.New([]ring.Member{{ID: m.self.ID, Weight: m.self.Weight}})
	if err != nil {
		return fmt.Errorf("making a ring of this node: %w", err)
	}
	settings := m.settings()
	network, err := m.network(settings)
	if err != nil {
		return fmt.Errorf("listening on %s: %w", m.at.bind, err)
	}
	settings.Transport = newGate(network, m.keys != nil, m.roster.friend)
	if m.list, err = memberlist.Create(settings); err != nil {
		return fmt.Errorf("listening on %s: %w", m.at.bind, errors.Join(err, settings.Transport.Shutdown()))
	}
	m.gossip = net.JoinHostPort(m.at.advertise.String(), strconv.Itoa(settings.AdvertisePort))
	m.publish(m.roster.count(time.Now()).members, first, nil)
	m.ctx, m.stop = context.WithCancel(context.Background())
	m.tasks.Go(func() { (&builder{m: m}).run(m.ctx) })
	m.tasks.Go(func() { (&seeker{m: m}).run(m.ctx) })
	m.tasks.Go(m.keep)
	return nil
}

// keep writes the known members to disk from time to time.
func (m *Membership) keep() {
	t := time.NewTicker(saveEvery)
	defer t.Stop()
	for {
		select {
		case <-m.ctx.Done():
			m.save(0)
			return
		case <-t.C:
			m.save(renewed)
		}
	}
}

func (m *Membership) save(after time.Duration) {
	if err := m.book.save(time.Now(), after); err != nil {
		m.murmur.tell(slog.LevelWarn, "members are not kept", "error", err)
	}
}

// View is what is known now.
func (m *Membership) View() *View { return m.view.Load() }

// Changed is closed when there is a newer View than at the call. Whoever
// wants to miss none takes the channel first and then the View.
func (m *Membership) Changed() <-chan struct{} { return m.view.Load().next }

// AwaitOthers returns when another member is seen, when there was none to be
// found, or when ctx ends.
func (m *Membership) AwaitOthers(ctx context.Context) {
	for sought := m.sought; ; {
		changed := m.Changed()
		if v := m.View(); slices.ContainsFunc(v.Members, func(o Member) bool { return o.Alive() && o.ID != v.Self.ID }) {
			return
		}
		select {
		case <-changed:
		case <-sought:
			if others, _ := m.roster.company(); others == 0 {
				return
			}
			sought = nil // they are about to be seen
		case <-ctx.Done():
			return
		}
	}
}

// Restarting tells the others that this node stops for a moment: they ask
// nothing new of it, and it keeps its place. It returns when they are told,
// after 2 s, or when ctx ends.
func (m *Membership) Restarting(ctx context.Context) { m.tell(ctx, Restarting) }

// Draining tells the others that this node leaves for good: it is out of the
// ring at once, but a source until Close. It returns as Restarting does.
func (m *Membership) Draining(ctx context.Context) { m.tell(ctx, Draining) }

func (m *Membership) tell(ctx context.Context, s State) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.announceOrWarn(func(self *Member) { self.State = s })
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

func (m *Membership) stopped() bool { return m.ctx.Err() != nil }

// Health is nil while all is well; else it says all that is not: the identity
// is another node's too, no seed answers, the ring could not be built.
func (m *Membership) Health() error {
	errs := []error{m.duplicate(time.Now())}
	if others, alone := m.roster.company(); others == 0 && alone >= aloneFor && len(m.cfg.Seeds) > 0 && !m.seedless.Load() {
		err := errors.New("no other member is found, though there are seeds")
		if why := m.joinFailure.Load(); why != nil {
			err = fmt.Errorf("%w; last tried %s", err, *why)
		}
		errs = append(errs, err)
	}
	if why := m.ringFailure.Load(); why != nil && *why != "" {
		errs = append(errs, errors.New(*why))
	}
	return errors.Join(errs...)
}

// duplicate says that another node has this one's identity.
func (m *Membership) duplicate(now time.Time) error {
	since := m.roster.overlap()
	contested := m.roster.contested()
	if !since.IsZero() && now.Sub(since) >= twiceFor || !contested.IsZero() && now.Sub(contested) < contestedFor {
		return fmt.Errorf("another node has this node's id %s: delete the file %s of one of them", m.roster.self, idFile)
	}
	return nil
}

// Close says good-bye and stops. It takes at most some 2 s, or until ctx ends,
// but for joins under way. Without Draining before it, the node keeps its
// place for the grace time.
func (m *Membership) Close(ctx context.Context) error { return m.end(ctx, leaveTime) }

// Kill stops without a word, as a crash would. It is for tests.
func (m *Membership) Kill() error { return m.end(context.Background(), 0) }

func (m *Membership) end(ctx context.Context, leave time.Duration) (err error) {
	m.ended.Do(func() {
		m.stop()
		if until, ok := ctx.Deadline(); ok {
			leave = min(leave, time.Until(until))
		}
		if leave > 0 && ctx.Err() == nil {
			if lerr := m.list.Leave(leave); lerr != nil {
				m.log.Debug("others may take this node for dead", "error", lerr)
			}
		}
		if err = m.list.Shutdown(); err != nil {
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
