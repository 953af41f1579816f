package flight

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
)

// Until a flight is settled only higher ids follow it, and it defers to lower ones.
// Afterwards any node may follow it.
func TestAnUnsettledFlightDefersToLowerIDs(t *testing.T) {
	t.Parallel()
	f, _ := newFlights()
	q := request("app", "content")
	fl := f.list(q, true)
	for _, id := range []string{"z", "n"} {
		if !f.Peeked(q, id) {
			t.Errorf("%q may not follow", id)
		}
	}
	for _, id := range []string{"c", "b", "k"} {
		if f.Peeked(q, id) {
			t.Errorf("%q may follow", id)
		}
	}
	if got, _, err := f.Board(held(q, "b")); err == nil {
		t.Error("a lower id boarded", got)
	}
	if p := f.settle(fl, false); p == nil || p.ID() != "b" {
		t.Errorf("it defers to %v, want b", p)
	}
	if f.Peeked(q, "b") {
		t.Error("the flight is settled before it asked the node that it defers to")
	}
	if p := f.settle(fl, true); p != nil {
		t.Errorf("it defers twice, to %v", p)
	}
	if !f.Peeked(q, "b") || !f.Peeked(q, "z") {
		t.Error("the flight is settled, and some node may not follow it")
	}
	if got, joined, err := f.Board(held(q, "b")); got != fl || !joined || err != nil {
		t.Errorf("boarding a settled flight: %v, %v", joined, err)
	}
}

// A flight does not defer to a member that is gone.
func TestAFlightSettlesIfWhoItDefersToIsGone(t *testing.T) {
	t.Parallel()
	f, c := newFlights()
	q := request("app", "content")
	fl := f.list(q, true)
	f.Peeked(q, "b")
	delete(c.members, "b")
	if p := f.settle(fl, false); p != nil || !f.Peeked(q, "a") {
		t.Errorf("it defers to %v", p)
	}
}

// Two nodes that both believe that they lead never follow each other, whichever of them
// looks first.
func TestTwoLeadersNeverFollowEachOther(t *testing.T) {
	t.Parallel()
	q := request("app", "content")
	low, lows := newFlights()
	high, highs := newFlights()
	lows.self, highs.self = "a", "b"
	low.cfg.Mesh, high.cfg.Mesh = mesh.New(mesh.Config{Router: lows}), mesh.New(mesh.Config{Router: highs})
	_, atHigh := low.list(q, true), high.list(q, true)
	highFollows, lowFollows := low.Peeked(q, "b"), high.Peeked(q, "a")
	if !highFollows || lowFollows {
		t.Errorf("the higher id follows: %v, the lower id follows: %v", highFollows, lowFollows)
	}
	if p := high.settle(atHigh, false); p == nil || p.ID() != "a" {
		t.Errorf("the higher id defers to %v, want a", p)
	}
}

// A node may not follow a flight for another repository of a private registry.
func TestAPrivateFlightIsNotShownForAnotherRepository(t *testing.T) {
	t.Parallel()
	f, _ := newFlights()
	q := grants.Request{Ref: request("app", "content").Ref, Site: grants.Site{Private: true}}
	fl := f.list(q, true)
	another := q
	another.Repository = "other"
	if f.Peeked(another, "z") || f.Peeked(another, "a") {
		t.Error("a node may follow a flight for another repository")
	}
	if p := f.settle(fl, false); p != nil {
		t.Errorf("it defers to %v, which asked for another repository", p)
	}
	if !f.Peeked(q, "z") {
		t.Error("a node may not follow a flight for the same repository")
	}
}

// A node without a flight that a member peeks at remembers that member for a while: it
// is a candidate for the next flight.
func TestIntentsAreRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, c := newFlights()
		q, late, gone := request("app", "content"), request("app", "late"), request("app", "gone")
		c.holders = []mesh.Peer{c.members["h"]}
		want := func(q grants.Request, ids ...string) {
			t.Helper()
			peers := f.Candidates(t.Context(), q.Content())
			for i, p := range peers {
				if i >= len(ids) || p.ID() != ids[i] {
					t.Errorf("candidate %d is %q, want %q", i, p.ID(), ids)
				}
			}
			if len(peers) != len(ids) {
				t.Errorf("%d candidates, want %q", len(peers), ids)
			}
		}
		f.Peeked(q, "b")
		f.Peeked(late, "b")
		f.Peeked(gone, "b")
		want(q, "h", "b")
		want(q, "h") // b is a candidate once
		f.Peeked(q, "h")
		want(q, "h") // h holds the content, so it is a candidate anyway
		<-time.After(intentFor + time.Second)
		want(late, "h")
		f.Peeked(gone, "b")
		delete(c.members, "b")
		want(gone, "h")
	})
}

// A node that has just joined knows nobody, and is asked for blobs by members that know it. It
// looks for those that may hold them once it has met them.
func TestCandidatesAreThoseMetInTheEnd(t *testing.T) {
	t.Parallel()
	f, c := newFlights()
	c.settle = func() { c.holders = []mesh.Peer{c.members["h"]} }
	if peers := f.Candidates(t.Context(), request("app", "content").Content()); len(peers) != 1 || peers[0].ID() != "h" {
		t.Errorf("the candidates are %v", peers)
	}
}

func TestIntentsAreForgottenOneAtATime(t *testing.T) {
	t.Parallel()
	f, _ := newFlights()
	for i := range maxIntents + 1 {
		f.Peeked(request("app", strconv.Itoa(i)), "b")
	}
	for i, want := range map[int]int{0: 0, 1: 1, maxIntents: 1} {
		if n := len(f.Candidates(t.Context(), request("app", strconv.Itoa(i)).Content())); n != want {
			t.Errorf("intent %d: %d candidates, want %d", i, n, want)
		}
	}
}

// A flight that followed another node leads if this node has no other flight that leads.
func TestPromote(t *testing.T) {
	t.Parallel()
	f, _ := newFlights()
	q := request("app", "content")
	follower := f.list(q, false)
	if other := f.promote(follower); other != nil || f.at(flightKey{q.Content(), true}) != follower {
		t.Error("the flight does not lead")
	}
	if other := f.promote(follower); other != nil {
		t.Error("a flight has to follow itself")
	}
	leader := f.list(q, true)
	if other := f.promote(follower); other != leader {
		t.Error("two flights of one node lead")
	}
	private := q
	private.Private, private.Repository = true, "other"
	own := f.list(private, false)
	if other := f.promote(own); other != nil || f.at(flightKey{q.Content(), true}) != own {
		t.Error("a flight for private content follows one for another repository")
	}
}
