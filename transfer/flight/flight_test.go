package flight

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// A member is a peer that has a name and answers nothing.
type member struct {
	mesh.Peer
	id string
}

func (m *member) ID() string { return m.id }

// A cluster is the members that a node called self knows.
type cluster struct {
	self    string
	members map[string]*member
	holders []mesh.Peer
	settle  func() // nil: the node knows all
}

func (c *cluster) Self() string                       { return c.self }
func (c *cluster) Route(string, string) []mesh.Peer   { return []mesh.Peer{nil} }
func (c *cluster) Holders(string, string) []mesh.Peer { return c.holders }
func (c *cluster) Owner(string, string) mesh.Peer     { return nil }
func (c *cluster) Members() []mesh.Peer               { return nil }

func (c *cluster) Settle(context.Context) {
	if c.settle != nil {
		c.settle()
	}
}

func (c *cluster) Peer(id string) mesh.Peer {
	if m, ok := c.members[id]; ok {
		return m
	}
	return nil
}

// newFlights returns the flights of node "m" in a cluster of members "a" to "z".
func newFlights() (*Flights, *cluster) {
	c := &cluster{self: "m", members: map[string]*member{}}
	for id := 'a'; id <= 'z'; id++ {
		c.members[string(id)] = &member{id: string(id)}
	}
	delete(c.members, c.self)
	log := slog.New(slog.DiscardHandler)
	return New(Config{Mesh: mesh.New(mesh.Config{Router: c, Log: log}), Log: log}), c
}

// request asks for the content of that name in a repository.
func request(repository, content string) grants.Request {
	return grants.Request{Ref: oci.Ref{Registry: "reg.example.com", Repository: repository, Digest: digest.FromString(content)}}
}

// list lists a flight as begin does. Nothing fills it.
func (f *Flights) list(q grants.Request, leads bool) *Flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl := &Flight{key: flightKey{q.Content(), leads}, request: q}
	fl.entry = &entry{Flight: fl, aboard: 1}
	f.flights[fl.key] = fl.entry
	return fl
}

// held returns the ticket of a member that asks only for content that this node holds.
// Such a ticket begins no flight.
func held(q grants.Request, asker string) *Ticket {
	t := NewTicket(q)
	t.ForMember, t.Terms, t.Asker = true, mesh.Terms{Held: true}, asker
	return t
}

// Content that lands after the look into the shard and before boarding is not
// downloaded again.
func TestWhatHasLandedIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	f, _ := newFlights()
	q, other := request("app", "content"), request("app", "other")
	for name, test := range map[string]struct {
		lands  func()
		landed bool
	}{
		"nothing lands":          {func() {}, false},
		"another blob lands":     {func() { f.Landed(other.Content()) }, false},
		"it lands":               {func() { f.Landed(q.Content()) }, true},
		"its flight lands":       {func() { f.leave(f.list(q, true), true) }, true},
		"its flight does not":    {func() { f.leave(f.list(q, true), false) }, false},
		"another's flight lands": {func() { f.leave(f.list(other, true), true) }, false},
	} {
		ticket := held(q, "a")
		board := func() error { _, _, err := f.Board(ticket); return err }
		f.Look(ticket)
		if err := board(); oci.KindOf(err) != oci.NotFound {
			t.Errorf("%s: before it landed: %v", name, err)
		}
		test.lands()
		if err := board(); errors.Is(err, ErrLanded) != test.landed {
			t.Errorf("%s: %v", name, err)
		}
		if err := board(); errors.Is(err, ErrLanded) {
			t.Errorf("%s: a ticket is told twice that the content landed", name)
		}
	}
}

func TestAFlightIsBoardedAndDeserted(t *testing.T) {
	t.Parallel()
	f, _ := newFlights()
	q := request("app", "content")
	fl := f.list(q, true)
	got, joined, err := f.Board(NewTicket(q))
	if got != fl || !joined || err != nil || f.Aboard(q.Content()) != 2 {
		t.Fatalf("%v, %v, %v, %d aboard", got, joined, err, f.Aboard(q.Content()))
	}
	f.GetOff(fl)
	if f.deserted(fl) {
		t.Error("the flight is deserted although one is aboard")
	}
	f.GetOff(fl)
	if !f.deserted(fl) || f.at(fl.key) != nil {
		t.Error("the flight can still be boarded although nobody is aboard")
	}
}

// A ticket is valid for some flights only.
func TestTickets(t *testing.T) {
	t.Parallel()
	f, _ := newFlights()
	own, others := request("app", "content"), request("other", "content")
	private := own
	private.Private = true
	fl := f.list(others, true)
	if !NewTicket(own).mayBoard(fl) {
		t.Error("public content depends on who asked for it first")
	}
	if NewTicket(private).mayBoard(fl) {
		t.Error("a ticket for private content boards a flight of another repository")
	}
	once := NewTicket(own)
	if !once.Failed(fl) || once.mayBoard(fl) || once.mayBoard(f.list(others, true)) {
		t.Error("a ticket that failed for another repository boards such a flight again")
	}
	if !once.mayBoard(f.list(own, true)) {
		t.Error("a ticket that failed for another repository does not board a flight for its own")
	}
}
