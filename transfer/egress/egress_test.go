package egress_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// bubble runs a test with a rig in virtual time.
func bubble(t *testing.T, n int, own bool, test func(t *testing.T, r *rig)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, n, own)
		defer r.Close()
		test(t, r)
	})
}

func TestTheOwnWayIsTakenWhileItLeadsThere(t *testing.T) {
	bubble(t, 2, true, func(t *testing.T, r *rig) {
		for range 3 {
			r.mustTag("own")
			if b, relay, err := r.read(0); err != nil || relay != "" || !bytes.Equal(b, content) {
				t.Errorf("%d bytes by way of %q: %v", len(b), relay, err)
			}
		}
		for _, m := range r.members {
			if n := m.total(); n != 0 {
				t.Errorf("%s was asked %d times", m.Name(), n)
			}
		}
	})
}

// A registry's refusal is an answer, whoever hears it. No other way is tried.
func TestWhatARegistrySaysIsFinal(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]oci.Error{
		"no such thing": {Kind: oci.NotFound, By: oci.Registry, Status: 404},
		"refused":       {Kind: oci.Denied, By: oci.Registry, Status: 403},
		"no login":      {Kind: oci.Denied, By: oci.TokenServer, Status: 401},
		"storage fails": {Kind: oci.Unavailable, By: oci.Storage, Status: 503},
		"too many":      {Kind: oci.Limited, By: oci.Registry, Status: 429, RetryAfter: time.Minute},
		"no turn":       {Kind: oci.Busy},
		"guarded":       {Kind: oci.Denied, Unreached: true},
		"looped":        {Kind: oci.Looped, By: oci.Registry},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 2, true, func(t *testing.T, r *rig) {
				e.Registry = host
				r.own.set(&e)
				_, err := r.tag()
				if got, ok := oci.AsError(err); !ok || got.Kind != e.Kind || got.By != e.By || got.Status != e.Status || got.RetryAfter != e.RetryAfter {
					t.Errorf("by this node's own way: %v", err)
				}
				if n := r.members[0].total() + r.members[1].total(); n != 0 {
					t.Errorf("other nodes were asked %d times", n)
				}
				if e.Kind == oci.Busy { // between nodes, a node that is busy fails itself
					return
				}
				r.own.set(errNoWay())
				r.members[0].set(&e)
				if _, err = r.tag(); e.Unreached && err == nil {
					return // a guard is a node's own
				}
				if got, ok := oci.AsError(err); !ok || got.Kind != e.Kind || got.By != e.By || got.Status != e.Status {
					t.Errorf("by way of another node: %v", err)
				}
			})
		})
	}
}

// Once the own way is known to be down, nobody waits for it. It is tried in the background,
// and taken again once it is up.
func TestAWayThatIsDownIsNotWaitedForAndComesBack(t *testing.T) {
	bubble(t, 2, true, func(t *testing.T, r *rig) {
		r.own.set(errNoWay())
		r.own.delay = 1500 * time.Millisecond
		if took := took(func() { r.mustTag("a") }); took > 2*time.Second {
			t.Errorf("the first answer took %v", took)
		}
		for range 20 {
			if took := took(func() { r.mustTag("a") }); took > 0 {
				t.Errorf("a later answer took %v", took)
			}
			time.Sleep(time.Second) // in the bubble's time
		}
		if n := r.own.total(); n < 3 || n > 6 {
			t.Errorf("the own way was tried %d times in 20 s", n)
		}
		r.own.set(nil)
		time.Sleep(6 * time.Second) // in the bubble's time
		_, _ = r.tag()
		time.Sleep(2 * time.Second) // in the bubble's time
		r.mustTag("own")
	})
}

// However late this node's own way fails, another's is tried: it may have waited for a second
// connection, or for an answer.
func TestAnOwnWayThatFailsLateIsNotTheLast(t *testing.T) {
	t.Parallel()
	for _, late := range []time.Duration{3400 * time.Millisecond, 30 * time.Second} {
		t.Run(late.String(), func(t *testing.T) {
			bubble(t, 2, true, func(t *testing.T, r *rig) {
				r.own.delay = late
				r.own.set(&oci.Error{Kind: oci.Timeout, Registry: host, Host: host, Reason: "no connection in time", Unreached: true})
				if b, relay, err := r.read(0); err != nil || !bytes.Equal(b, content) || relay != "node-a" {
					t.Errorf("%d bytes by way of %q: %v", len(b), relay, err)
				}
			})
		})
	}
}

// If another way then takes too long, the error is that of this node's own.
func TestALateEndTellsOfTheOwnWay(t *testing.T) {
	bubble(t, 2, true, func(t *testing.T, r *rig) {
		r.own.delay = 30 * time.Second
		r.own.set(&oci.Error{Kind: oci.Timeout, Registry: host, Host: "front." + host, Reason: "no answer in time"})
		r.ways.Hear("a", host, mesh.Way{State: mesh.WayUp})
		r.members[0].delay = time.Hour
		var err error
		took := took(func() { _, err = r.tag() })
		if e, ok := oci.AsError(err); !ok || e.Host != "front."+host || took > 39*time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// However many nodes have no way out, the one that has is found soon; and only a few are
// asked where most have one.
func TestTheOneWayIsFound(t *testing.T) {
	t.Parallel()
	for _, only := range []int{0, 4, 9} {
		t.Run(fmt.Sprint(only), func(t *testing.T) {
			bubble(t, 10, true, func(t *testing.T, r *rig) {
				r.own.set(errNoWay())
				r.own.delay = 1500 * time.Millisecond
				for i, m := range r.members {
					if m.delay = 20 * time.Millisecond; i != only {
						m.delay = 1500 * time.Millisecond
						m.set(errNoWay())
					}
				}
				if took := took(func() { r.mustTag(r.members[only].name) }); took > 3*time.Second {
					t.Errorf("it took %v", took)
				}
				asked := 0
				for _, m := range r.members {
					asked += m.count("head")
				}
				if asked > only+2 {
					t.Errorf("%d nodes asked for the way of number %d", asked, only)
				}
				if b, relay, err := r.read(0); err != nil || !bytes.Equal(b, content) || relay != r.members[only].Name() {
					t.Errorf("%d bytes by way of %q: %v", len(b), relay, err)
				}
			})
		})
	}
}

// The error names the host, and each way with what became of it. It comes in time, and later
// ones at once.
func TestNoWayAtAll(t *testing.T) {
	t.Parallel()
	for _, own := range []bool{true, false} {
		t.Run(fmt.Sprint(own), func(t *testing.T) {
			bubble(t, 3, own, func(t *testing.T, r *rig) {
				r.own.set(errNoWay())
				r.own.delay = 1500 * time.Millisecond
				for _, m := range r.members {
					m.delay = 1500 * time.Millisecond
					m.set(&oci.Error{Kind: oci.Timeout, Registry: host, Host: host, Reason: "no connection in time", Unreached: true})
				}
				r.members[2].dead.Store(true)
				var err error
				if took := took(func() { _, err = r.tag() }); took > 4*time.Second {
					t.Errorf("it took %v", took)
				}
				e, ok := oci.AsError(err)
				if !ok || !e.Unreached || !e.Passing() {
					t.Fatal(err)
				}
				for _, part := range []string{host, "node-a (no connection in time)", "node-b (no connection in time)", "node-c (the node does not answer)"} {
					if !strings.Contains(err.Error(), part) || part != host && !strings.Contains(e.Reason, part) {
						t.Errorf("%q is not in %v", part, err)
					}
				}
				if want := map[bool]string{true: "connection refused", false: "egress: false"}[own]; !strings.Contains(e.Reason, want) {
					t.Errorf("%q is not in %q", want, e.Reason)
				}
				if n := r.own.total(); !own && n != 0 {
					t.Errorf("the own way was taken %d times", n)
				}
				r.own.delay = 0
				if took := took(func() { _, err = r.tag() }); took > 0 || err == nil {
					t.Errorf("the next error took %v: %v", took, err)
				}
				r.members[1].set(nil)
				time.Sleep(1100 * time.Millisecond) // in the bubble's time
				r.mustTag("b")
			})
		})
	}
}

// A search ends in time, whatever members do, and the error names those that did not answer.
func TestMembersThatDoNotAnswerAreNamed(t *testing.T) {
	bubble(t, 2, true, func(t *testing.T, r *rig) {
		r.own.set(errNoWay())
		for _, m := range r.members {
			m.delay = 30 * time.Second
		}
		var err error
		if took := took(func() { _, err = r.tag() }); took > 4*time.Second {
			t.Errorf("it took %v", took)
		}
		if e, ok := oci.AsError(err); !ok || !strings.Contains(e.Reason, "node-a (no answer in time), node-b (no answer in time)") {
			t.Error(err)
		}
	})
}

// The way out moves between nodes while a blob is read. Each byte comes once.
func TestTheWayMovesWhileABlobIsRead(t *testing.T) {
	bubble(t, 3, true, func(t *testing.T, r *rig) {
		all := []*place{r.own, r.members[0].place, r.members[1].place, r.members[2].place}
		const piece = 5000
		var got []byte
		for turn := 0; len(got) < len(content); turn++ {
			for i, p := range all {
				p.set(errNoWay())
				if i == turn%len(all) {
					p.set(nil)
				}
				p.cut = piece
			}
			b, relay, err := r.read(int64(len(got)))
			if len(b) == 0 || err != nil && !errors.Is(err, errCut) {
				t.Fatalf("turn %d by way of %q: %d bytes, %v", turn, relay, len(b), err)
			}
			got = append(got, b...)
			time.Sleep(time.Second) // in the bubble's time
		}
		if !bytes.Equal(got, content) {
			t.Error("wrong bytes")
		}
	})
}

// Something on the way answers for the registry: a page that says the site is blocked, a proxy
// that wants another login. Another way is better then, if it gets further.
func TestAWayOnWhichSomethingElseAnswers(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]oci.Error{
		"blocked":     {Kind: oci.Denied, By: oci.Middlebox, Status: 403},
		"illegal":     {Kind: oci.Denied, By: oci.Middlebox, Status: 451},
		"proxy login": {Kind: oci.Unavailable, By: oci.Middlebox, Status: 407},
		"no storage":  {Kind: oci.Unavailable, By: oci.Storage, Status: 403},
		"no answer":   {Kind: oci.Timeout, Reason: "no answer in time"},
		"reset":       {Kind: oci.Unavailable, Reason: "the connection broke"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 2, true, func(t *testing.T, r *rig) {
				e.Registry = host
				r.own.set(&e)
				r.mustTag("a")
				before := r.own.total()
				r.mustTag("a")
				if r.own.total() != before {
					t.Error("the way that is no good was taken again")
				}
				for _, m := range r.members { // it is the registry's own balancer
					m.set(&e)
				}
				_, err := r.tag()
				if got, ok := oci.AsError(err); !ok || got.Kind != e.Kind || got.By != e.By || got.Status != e.Status {
					t.Errorf("%v", err)
				}
			})
		})
	}
}

// A member that does not get to the registry for reasons of its own, such as its guard or its
// config, says nothing of the registry. The next one is asked.
func TestAMembersOwnTroubleIsNotTheRegistrys(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]oci.Error{
		"its guard refuses":           {Kind: oci.Denied, Reason: "it leads to a private address"},
		"a certificate is not known":  {Kind: oci.Unavailable, Reason: "the TLS certificate is not trusted"},
		"its config says never":       {Kind: oci.Offline},
		"the name leads back to it":   {Kind: oci.Looped},
		"it has no connection either": {Kind: oci.Unavailable, Unreached: true},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 2, true, func(t *testing.T, r *rig) {
				e.Registry = host
				r.own.set(errNoWay())
				r.members[0].set(&e)
				r.mustTag("b")
				if b, relay, err := r.read(0); err != nil || relay != "node-b" || !bytes.Equal(b, content) {
					t.Errorf("%d bytes by way of %q: %v", len(b), relay, err)
				}
			})
		})
	}
}

// A member that has no room for one request is asked for the next at once.
func TestAMemberThatIsBusyIsAskedAgain(t *testing.T) {
	bubble(t, 1, false, func(t *testing.T, r *rig) {
		r.mustTag("a")
		for range 3 {
			r.members[0].set(&mesh.PeerError{Peer: "node-a", Busy: true, Err: errors.New("busy")})
			if by, err := r.tag(); err == nil {
				t.Errorf("%q answered", by)
			}
			r.members[0].set(nil)
			r.mustTag("a")
		}
	})
}

// Mirrors are reached whatever is known of the way to the registry, and what they answer says
// nothing of that.
func TestMirrorsAreNotPassedOverForTheRegistrysSake(t *testing.T) {
	bubble(t, 1, true, func(t *testing.T, r *rig) {
		r.own.set(errNoWay())
		r.mustTag("a")
		r.members[0].set(errNoWay())
		r.own.mirror = true
		s, err := r.Open(oci.WithMirrors(t.Context()), blobRef, 0)
		if err != nil || s.By != oci.Mirror || r.members[0].count("open") != 0 {
			t.Fatalf("%+v, %v", s, err)
		}
		if b, err := io.ReadAll(s.Body); err != nil || s.Body.Close() != nil || !bytes.Equal(b, content) {
			t.Error(len(b), err)
		}
		if way := r.ways.Tell(host); way.State != mesh.WayDown {
			t.Errorf("other nodes are told of %+v", way)
		}
	})
}

// That a member does not reach the registry says nothing of its mirrors: what these may answer
// is asked of it at once, all the same.
func TestAMembersMirrorsAreNotPassedOverForTheRegistrysSake(t *testing.T) {
	bubble(t, 1, false, func(t *testing.T, r *rig) {
		r.members[0].set(errNoWay())
		r.members[0].mirror = true
		for range 2 {
			r.ways.Hear("a", host, mesh.Way{State: mesh.WayDown}) // as each answer tells
			if by, err := r.tag(); err == nil {
				t.Errorf("%q answered", by)
			}
			s, err := r.Open(oci.WithMirrors(t.Context()), blobRef, 0)
			if err != nil || s.By != oci.Mirror {
				t.Fatalf("%+v, %v", s, err)
			}
			_ = s.Body.Close()
		}
	})
}

// What a member's mirror sent wrong does not come from a mirror again.
func TestAMembersMirrorThatLiesIsNotAskedAgain(t *testing.T) {
	bubble(t, 1, false, func(t *testing.T, r *rig) {
		r.members[0].mirror = true
		ctx := oci.WithMirrors(t.Context())
		for _, by := range []oci.Party{oci.Mirror, oci.Mirror, oci.Registry} {
			s, err := r.Open(ctx, blobRef, 0)
			if err != nil || s.By != by || (s.Wrong != nil) != (by == oci.Mirror) {
				t.Fatalf("want it from the %v: %+v, %v", by, s, err)
			}
			if b, err := io.ReadAll(s.Body); err != nil || s.Body.Close() != nil || len(b) != len(content) {
				t.Error(len(b), err)
			}
			if r.members[0].count("open") == 2 {
				s.Wrong(true)
			}
		}
	})
}

// A member that hangs or dies costs a moment.
func TestAMemberThatFailsIsLeft(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func(*member){
		"dead": func(m *member) { m.dead.Store(true) },
		"hung": func(m *member) { m.hung.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 2, true, func(t *testing.T, r *rig) {
				r.own.set(errNoWay())
				r.mustTag("a")
				fail(r.members[0])
				if took := took(func() { r.mustTag("b") }); took > 5*time.Second {
					t.Errorf("it took %v", took)
				}
				if b, relay, err := r.read(100); err != nil || relay != "node-b" || !bytes.Equal(b, content[100:]) {
					t.Errorf("%d bytes by way of %q: %v", len(b), relay, err)
				}
			})
		})
	}
}

// A member may hand redirects over where this node follows them. No client is sent there.
func TestNoMemberSendsClientsElsewhere(t *testing.T) {
	bubble(t, 2, false, func(t *testing.T, r *rig) {
		r.members[0].redirect = "https://evil.example/"
		for range 2 {
			s, err := r.Open(t.Context(), blobRef, 0)
			if err != nil || s.Redirect != "" || s.Relay != "node-b" {
				t.Fatalf("%+v, %v", s, err)
			}
			_ = s.Body.Close()
			d, err := r.Stat(t.Context(), blobRef, true, nil)
			if err != nil || d.Redirect != "" {
				t.Errorf("%+v, %v", d, err)
			}
		}
		r.members[1].redirect = "https://evil.example/"
		if _, err := r.Stat(t.Context(), blobRef, true, nil); err == nil || !strings.Contains(err.Error(), "follow_redirects") {
			t.Error(err)
		}
	})
}

// Where a blob came whole and is asked for again at once, its bytes may have been wrong.
func TestABlobThatIsAskedForAgainGoesAnotherWay(t *testing.T) {
	bubble(t, 2, false, func(t *testing.T, r *rig) {
		var by []string
		for range 2 {
			_, relay, err := r.read(0)
			if err != nil {
				t.Fatal(err)
			}
			by = append(by, relay)
		}
		if by[0] == by[1] {
			t.Errorf("by way of %v", by)
		}
	})
}

// A way that is slow is left for one that is better by far, as members tell, and tried again
// later.
func TestASlowWayIsLeft(t *testing.T) {
	bubble(t, 2, true, func(t *testing.T, r *rig) {
		r.own.slow = time.Second // for each read
		for range 2 {
			if _, relay, err := r.read(0); err != nil || relay != "" {
				t.Fatalf("by way of %q: %v", relay, err)
			}
		}
		if way := r.ways.Tell(host); way.State != mesh.WayUp || way.Rate == 0 || way.Rate > 1<<20 {
			t.Errorf("it tells %+v", way)
		}
		r.ways.Hear("b", host, mesh.Way{State: mesh.WayUp, Rate: 2 * r.ways.Tell(host).Rate})
		if _, relay, _ := r.read(0); relay != "" {
			t.Errorf("by way of %q, which is hardly better", relay)
		}
		r.ways.Hear("a", host, mesh.Way{State: mesh.WayUp}) // how fast, nobody knows
		r.ways.Hear("b", host, mesh.Way{State: mesh.WayUp, Rate: 50 << 20})
		if _, relay, _ := r.read(0); relay != "node-b" {
			t.Errorf("by way of %q", relay)
		}
		r.members[1].set(errNoWay())
		r.members[0].set(errNoWay())
		if _, relay, err := r.read(1); relay != "" || err != nil {
			t.Errorf("a slow way is better than none: by way of %q, %v", relay, err)
		}
		time.Sleep(6 * time.Minute) // in the bubble's time
		r.own.slow = 0
		if _, relay, _ := r.read(0); relay != "" {
			t.Errorf("by way of %q, long after the own way was measured", relay)
		}
	})
}

// An answer takes seconds to begin here, and no time elsewhere.
func TestALateWayIsLeft(t *testing.T) {
	bubble(t, 1, true, func(t *testing.T, r *rig) {
		r.own.delay = 5 * time.Second
		r.mustTag("own")
		r.mustTag("own")
		r.ways.Hear("a", host, mesh.Way{State: mesh.WayUp, Latency: 100 * time.Millisecond})
		r.mustTag("a")
	})
}

// What a member tells counts: one that says its way is down is asked last.
func TestWhatMembersTellCounts(t *testing.T) {
	bubble(t, 3, false, func(t *testing.T, r *rig) {
		r.ways.Hear("a", host, mesh.Way{State: mesh.WayDown})
		r.ways.Hear("c", host, mesh.Way{State: mesh.WayUp})
		r.mustTag("c")
		if n := r.members[0].total() + r.members[1].total(); n != 0 {
			t.Errorf("the others were asked %d times", n)
		}
	})
}

// Names that clients make up do not fill the memory.
func TestWaysAreForgottenSingly(t *testing.T) {
	bubble(t, 0, true, func(t *testing.T, r *rig) {
		r.ways.Hear("a", "in-use.example", mesh.Way{State: mesh.WayUp})
		r.mustTag("own")
		for i := range 10_000 {
			ref := tagRef
			ref.Registry = fmt.Sprintf("made-up-%d.example", i)
			if _, err := r.Stat(t.Context(), ref, false, nil); err != nil {
				t.Fatal(err)
			}
			r.ways.Hear("a", ref.Registry, mesh.Way{State: mesh.WayDown})
			r.ways.Tell(host)
		}
		if r.ways.Tell(host).State != mesh.WayUp || r.ways.Tell("made-up-0.example").State != mesh.WayUnknown {
			t.Error("the registry in use was forgotten, or the others are all remembered")
		}
	})
}

// What a node lends is its own way and no other. Its bytes are counted.
func TestWhatIsLentIsNotPassedOn(t *testing.T) {
	bubble(t, 2, true, func(t *testing.T, r *rig) {
		var came atomic.Int64
		out := r.Out(func(string) *atomic.Int64 { return &came })
		s, err := out.Open(t.Context(), blobRef, 10)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := b.ReadFrom(s.Body); err != nil || s.Body.Close() != nil || came.Load() != int64(len(content)-10) {
			t.Errorf("%d bytes counted of %d: %v", came.Load(), b.Len(), err)
		}
		r.own.set(errNoWay())
		for what, ask := range map[string]func() error{
			"open":  func() error { _, err := out.Open(t.Context(), blobRef, 0); return err },
			"range": func() error { _, err := out.Range(t.Context(), blobRef, oci.Span{Length: 1}); return err },
			"head":  func() error { _, err := out.Stat(t.Context(), tagRef, false, nil); return err },
			"get":   func() error { _, err := out.Manifest(t.Context(), tagRef, nil); return err },
			"tags":  func() error { _, err := out.Tags(t.Context(), tagRef.Repo(), "", new(bytes.Buffer)); return err },
			"refs":  func() error { _, err := out.Referrers(t.Context(), blobRef, "", new(bytes.Buffer)); return err },
		} {
			if e, ok := oci.AsError(ask()); !ok || !e.Unreached {
				t.Errorf("%s: %v", what, e)
			}
		}
		if n := r.members[0].total() + r.members[1].total(); n != 0 {
			t.Errorf("other nodes were asked %d times", n)
		}
	})
}

// A page that came in part by another way is begun anew.
func TestAPageIsOfOneWay(t *testing.T) {
	bubble(t, 1, true, func(t *testing.T, r *rig) {
		r.own.set(errNoWay())
		var b bytes.Buffer
		if _, err := r.Tags(t.Context(), tagRef.Repo(), "", &b); err != nil || b.String() != "a" {
			t.Errorf("%q, %v", b.String(), err)
		}
	})
}

// took returns how long fn took.
func took(fn func()) time.Duration {
	start := time.Now()
	fn()
	return time.Since(start)
}
