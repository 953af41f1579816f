// Package gate decides who is let in, and when.
//
// Every request first passes [Gate.Screen], which refuses what two hops could
// read in two ways. Then its [Class] decides: [Gate.Guard] puts in front of a
// handler what the class asks for, a known name in Host and a login (see hosts.go). A pull has
// more to say about a refusal and asks [Gate.Admit] itself. A pull that is let
// in waits for its turn ([Gate.Turn]): clients share the node's descriptors and
// pulls fairly.
//
// Wrong logins are counted by address and slow that address down. A client's
// address is its connection's, or what trusted load balancers say it is.
package gate

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"

	"oci-proxy/node/config"
	"oci-proxy/node/reply"
	"oci-proxy/transfer/wait"
)

// A Class says who may ask for a URL.
type Class int

// The classes.
const (
	Public    Class = iota // everybody
	Probe                  // everybody, by whatever name in Host
	Guarded                // a user, if a login is asked for
	Operators              // one of auth.admins; where no login is asked for, this machine
	Pullers                // a user, or an address in anonymous_from
)

// A Gate decides who is let in, and when.
type Gate struct {
	now     atomic.Pointer[policy]
	turns   *wait.Turns[Client]
	conns   *connections
	address string // that the node listens on, "" for all
	log     *slog.Logger
}

// New returns the gate that the config describes. Close it.
func New(cfg *config.Config, limits Limits, log *slog.Logger) (*Gate, error) {
	access, err := newAccess(cfg, log)
	if err != nil {
		return nil, err
	}
	conns := newConnections(limits)
	g := &Gate{
		address: cfg.Address, log: log,
		conns: conns, turns: wait.NewTurns[Client](wait.Bounds{Running: limits.Pulls, Waiting: limits.Waiting}, cfg.QueueTimeout, conns.reserve),
	}
	g.now.Store(&policy{access, newHosts(cfg), cfg.Auth})
	return g, nil
}

// Close ends what the gate has under way.
func (g *Gate) Close(ctx context.Context) { g.access().logins.life.Close(ctx) }

// Watch makes srv tell the gate of its connections. When descriptors run low the gate closes
// idle ones, and if there are none those of requests that have no turn and are no operator's:
// a client that does not read its answers would keep any number for minutes.
func (g *Gate) Watch(srv *http.Server) { g.conns.ledger.Watch(srv) }

// Screen is what every request passes first. It reports false if it refused the
// request and answered it.
func (g *Gate) Screen(w http.ResponseWriter, r *http.Request) bool {
	g.conns.ledger.Answer(r)
	boundBody(w, r)
	endUnclear(w, r)
	reason := misframed(r)
	if reason != "" {
		refuseMisframed(w, reason)
	}
	return reason == ""
}

// Guard returns h behind what its class asks for. Pullers pass: they are for
// Admit. What they and probes get holds nothing that a browser must not read.
func (g *Gate) Guard(class Class, h http.Handler) http.Handler {
	switch class {
	case Probe, Pullers:
		return h
	case Guarded:
		h = g.guarded(held(g, h))
	case Operators:
		h = g.operators(held(g, h))
	case Public:
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.hosts().allow(r) && !g.tellsLogin(class, r) {
			refuseHost(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// tellsLogin reports whether a request brings the login that its class asks for.
// Then the name in Host does not matter: a browser never sends another site the
// login that it has for this one. Whether the login is right is for h to judge.
// Without one there is no 401, by which a page could make a browser ask for it.
func (g *Gate) tellsLogin(class Class, r *http.Request) bool {
	return (class == Guarded || class == Operators) && !g.access().open && r.Header.Get("Authorization") != ""
}

// Admit lets a pull in. It reports false if it refused the request and answered
// it.
func (g *Gate) Admit(w http.ResponseWriter, r *http.Request) (Client, bool) {
	a := g.access()
	who, v, ok := a.puller(r)
	if !ok {
		a.refuse(w, r, v)
	}
	return who, ok
}

// MayPull is Admit for a request that only asks: it reports whether a pull would be let
// in, and answers nothing.
func (g *Gate) MayPull(r *http.Request) (Client, bool) {
	who, _, ok := g.access().puller(r)
	return who, ok
}

// Turn waits for the turn of a pull, whose connection is not closed to make room meanwhile.
// The caller calls end when the pull is answered. The error is ErrBusy if the node is at its
// limits.
func (g *Gate) Turn(r *http.Request, who Client) (end func(), err error) {
	let := g.conns.ledger.Begin(r)
	over, err := g.turns.Begin(r.Context(), who)
	if err != nil {
		let()
		if errors.Is(err, wait.ErrBusy) {
			err = ErrBusy
		}
		return nil, err
	}
	return func() {
		over() // first: it makes room, so that no answer is cut whose last bytes are on their way
		let()
	}, nil
}

// held keeps the connections of operators' requests from being closed to make room.
func held(g *Gate, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.Operator(r) {
			defer g.conns.ledger.Begin(r)()
		}
		h.ServeHTTP(w, r)
	})
}

// Open reports whether no login is asked for.
func (g *Gate) Open() bool { return g.access().open }

// Operator reports whether r comes from an operator: a user, or where no login
// is asked for a client on this machine. r has passed Guard.
func (g *Gate) Operator(r *http.Request) bool { return !g.access().open || local(r, g.address) }

// Admin reports whether r, which has passed Guard, comes from one of auth.admins, or where
// no login is asked for from this machine.
func (g *Gate) Admin(r *http.Request) bool {
	a := g.access()
	if a.open {
		return local(r, g.address)
	}
	return slices.Contains(a.admins, a.judge(r).user)
}

// Knows reports whether a pull's client, as Admit returned it, is an operator. A
// browser on this machine that was led here by another site's name is none.
func (g *Gate) Knows(r *http.Request, who Client) bool {
	return who.user != "" || g.access().open && local(r, g.address) && g.hosts().allow(r)
}

// Asks reports whether r, which has not passed Guard, comes from an operator.
func (g *Gate) Asks(r *http.Request) bool {
	v := g.access().judge(r)
	return g.Knows(r, Client{user: v.user})
}

// User is the name of the login that r brings, "" for none or a wrong one. It is for requests
// that have passed Guard.
func (g *Gate) User(r *http.Request) string { return g.access().judge(r).user }

// Address is the address of the client that sent r. It is not valid if no
// address can be told.
func (g *Gate) Address(r *http.Request) netip.Addr { return g.access().addresses.of(r) }

// Health returns what is wrong with the files that the gate reads, nil if
// nothing is.
func (g *Gate) Health() error {
	if users := g.access().logins.users; users != nil {
		return users.Health()
	}
	return nil
}

// Figures are what the gate counts.
type Figures struct {
	Connections  int   // of clients, now
	Pulls        int   // under way now
	Waiting      int   // pulls that wait for their turn now
	Refused      int64 // pulls that got no turn
	FailedLogins int64 // that were wrong, or not looked at any more
}

// Figures returns what the gate counts.
func (g *Gate) Figures() Figures {
	active, waiting, refused := g.turns.Figures()
	return Figures{
		Connections: g.conns.ledger.Len(), Pulls: active, Waiting: waiting,
		Refused: refused, FailedLogins: g.access().failures.Load(),
	}
}

// operators lets only operators through to h, and nobody from another site's
// page in a browser.
func (g *Gate) operators(h http.Handler) http.Handler {
	sameSite := http.NewCrossOriginProtection().Handler(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a := g.access(); !a.open {
			a.admit(sameSite).ServeHTTP(w, r)
			return
		}
		if !g.Operator(r) {
			reply.Fail(w, http.StatusForbidden, reply.Error{Code: "DENIED", Message: "no auth is configured: only clients on the node's own machine may do this"})
			return
		}
		sameSite.ServeHTTP(w, r)
	})
}
