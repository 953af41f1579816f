package membership

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// sessions are the runs of memberlist, one after the other: one for each id that the
// node has. They share the network, whose ports stay open in between.
type sessions struct {
	m       *Membership
	network memberlist.Transport
	turn    chan struct{} // holds a value while a session begins or ends
	ended   bool          // guarded by turn
	gate    *gate         // of the session of now; guarded by turn
	current atomic.Pointer[session]
	running atomic.Pointer[Gossip]
}

// Gossip is what this package uses of memberlist. The methods are those of
// *memberlist.Memberlist.
type Gossip interface {
	Join(addresses []string) (int, error)
	UpdateNode(timeout time.Duration) error
	Leave(timeout time.Duration) error
	Shutdown() error
}

// A session is one run of memberlist. Its delegate's calls count as long as it is the
// current one.
type session struct{ name string }

// openSessions listens, and begins the first session.
func (m *Membership) openSessions() (*sessions, error) {
	s := &sessions{m: m, network: m.cfg.Transport, turn: make(chan struct{}, 1)}
	if s.network == nil {
		var err error
		if s.network, m.at.bind, err = listen(m.settings(delegate{})); err != nil {
			return nil, err
		}
	}
	m.at.gossip = net.JoinHostPort(m.at.advertise.String(), strconv.Itoa(int(m.at.bind.Port())))
	if err := s.begin(); err != nil {
		return nil, errors.Join(err, s.network.Shutdown())
	}
	return s, nil
}

// begin begins a session under the node's id of now.
func (s *sessions) begin() error {
	m, who := s.m, s.m.roster.me()
	one := &session{title(who.id, who.epoch)}
	s.gate = newGate(s.network, label(m.cfg.Cluster), m.keys.encrypted(), m.roster.friend)
	settings := m.settings(delegate{m, func() bool { return s.current.Load() == one }})
	settings.Name, settings.Transport = one.name, s.gate
	s.current.Store(one) // memberlist calls the delegate before Create returns
	list, err := m.cfg.Gossip(settings)
	if err != nil {
		return errors.Join(err, s.gate.detach())
	}
	s.running.Store(&list)
	return nil
}

// list is the memberlist of now.
func (s *sessions) list() Gossip { return *s.running.Load() }

// renew ends the session and begins one under a new id. alike says that the keeper of
// the old one has this node's title too.
func (s *sessions) renew(who identity, keeper *card, alike bool) error {
	m := s.m
	for _, turn := range []chan struct{}{s.turn, m.announcing} {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-m.ctx.Done():
			return errEnded
		}
	}
	if s.ended {
		return errEnded
	}
	s.withdraw(alike)
	s.gate.keep()
	if err := s.list().Shutdown(); err != nil {
		return err
	}
	before := m.roster.gossips()
	self := m.self
	self.ID, self.Epoch = who.id, who.epoch
	b, err := encode(&self)
	if err != nil {
		return err
	}
	m.self = self
	m.meta.Store(&b)
	self.alive, self.Gossip, self.meta = true, m.at.gossip, string(b)
	m.roster.rename(self, time.Now())
	if err := s.begin(); err != nil {
		return err
	}
	if _, err := netip.ParseAddrPort(keeper.At); err == nil {
		before[keeper.At] = true
	}
	for gossip := range before { // in random order
		if n, _ := s.list().Join([]string{gossip}); n > 0 || m.stopped() {
			break
		}
	}
	select {
	case m.anew <- struct{}{}: // the seeker goes on
	default:
	}
	return nil
}

// withdraw tells the others that this start has not been that of its id. Versions that
// don't know of this take it for one that leaves for good. If another node has the very
// title, the good-bye alone is sent: the other one refutes it, and those that had this
// node's address for the title then take the other's.
func (s *sessions) withdraw(alike bool) {
	var err error
	if !alike {
		err = s.void()
	}
	err = errors.Join(err, s.list().Leave(leaveTime))
	if err != nil {
		s.m.log.Debug("change of the id not told to all: the others find the old one dead later", "error", err)
	}
}

// void announces that this start takes another id.
func (s *sessions) void() error {
	self := s.m.self
	self.State, self.void = Draining, true
	b, err := encode(&self)
	if err != nil {
		return err
	}
	s.m.meta.Store(&b)
	return s.list().UpdateNode(announceTime)
}

// end ends the last session, with a good-bye that takes up to leave.
func (s *sessions) end(ctx context.Context, leave time.Duration) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
	}
	s.ended = true
	if leave > 0 {
		if err := s.list().Leave(leave); err != nil {
			s.m.log.Debug("good-bye not sent: the others find this node dead later", "error", err)
		}
	}
	return s.list().Shutdown()
}
