package mesh

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// A member is a peer that answers as a test wants. It has no other methods.
type member struct {
	Peer
	id       string
	presence Presence
	peekErr  error
	peekTime time.Duration
	peeked   *atomic.Int64 // counts peeks; may be nil
	progress func(ctx context.Context) (Progress, error)

	mu     sync.Mutex
	faults []error
	asked  int // how often it was asked for its progress
}

func (p *member) ID() string   { return p.id }
func (p *member) Name() string { return p.id }

func (p *member) Peek(ctx context.Context, _ oci.Ref) (Presence, error) {
	if p.peeked != nil {
		p.peeked.Add(1)
	}
	select {
	case <-time.After(p.peekTime):
		return p.presence, p.peekErr
	case <-ctx.Done():
		return Absent, context.Cause(ctx)
	}
}

func (p *member) Progress(ctx context.Context, _ oci.Ref) (Progress, error) {
	p.mu.Lock()
	p.asked++
	p.mu.Unlock()
	return p.progress(ctx)
}

func (p *member) Fault(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = append(p.faults, err)
}

// wantFault fails the test unless the peer was called faulty for that reason, once, or
// never if it is nil.
func (p *member) wantFault(t *testing.T, want error) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if want == nil && len(p.faults) > 0 || want != nil && (len(p.faults) != 1 || !errors.Is(p.faults[0], want)) {
		t.Errorf("faults %v, want %v", p.faults, want)
	}
}

// A routing has one route for all keys. nil on it is this node.
type routing struct {
	alone
	route []Peer
}

func (r routing) Route(string, string) []Peer { return r.route }

// passed counts peers that were passed over.
type passed struct{ n int }

func newMesh(route ...Peer) (*Mesh, *passed) {
	var p passed
	m := New(Config{Router: routing{route: route}, Log: slog.New(slog.DiscardHandler), Passed: func(string) { p.n++ }})
	return m, &p
}

var ref = oci.Ref{Registry: "reg.example.com", Repository: "team/app", Digest: digest.FromString("content")}

// failure is what a peer says for the registry.
func failure(kind oci.Kind) error { return &oci.Error{Kind: kind, Registry: ref.Registry} }

// errNoWay is what this node says if no connection came about.
var errNoWay = &oci.Error{Kind: oci.Unavailable, Registry: ref.Registry, Reason: "connection refused", Unreached: true}

var errGone = &PeerError{Peer: "a", Err: errors.New("connection refused")}

func TestAlongGoesOnWhereAnotherNodeMayHelp(t *testing.T) {
	t.Parallel()
	a, b, c := &member{id: "a"}, &member{id: "b"}, &member{id: "c"}
	for name, test := range map[string]struct {
		route  []Peer
		says   map[string]error // a peer that is not listed answers
		want   string           // who answered; "": nobody
		kind   oci.Kind         // else of the error
		passed int
	}{
		"the first answers":                       {[]Peer{a, b, nil}, nil, "a", 0, 0},
		"the first is this node":                  {[]Peer{nil, a}, nil, "own", 0, 0},
		"a peer fails":                            {[]Peer{a, b, nil}, map[string]error{"a": errGone}, "b", 0, 1},
		"all peers fail":                          {[]Peer{a, b, nil}, map[string]error{"a": errGone, "b": errGone}, "own", 0, 2},
		"nobody is left":                          {[]Peer{a, b}, map[string]error{"a": errGone, "b": errGone}, "", oci.Unavailable, 2},
		"nobody may ask":                          {nil, nil, "", oci.Unavailable, 0},
		"the registry says no":                    {[]Peer{a, b, nil}, map[string]error{"a": failure(oci.NotFound)}, "", oci.NotFound, 0},
		"the registry asks to wait":               {[]Peer{a, b, nil}, map[string]error{"a": failure(oci.Limited)}, "", oci.Limited, 0},
		"a peer's way out fails":                  {[]Peer{a, b, nil}, map[string]error{"a": failure(oci.Timeout)}, "b", 0, 1},
		"the registry fails, two nodes say":       {[]Peer{a, b, c, nil}, map[string]error{"a": failure(oci.Timeout), "b": failure(oci.Unavailable)}, "", oci.Unavailable, 1},
		"peers and the way out of another fail":   {[]Peer{a, b, c}, map[string]error{"a": errGone, "b": failure(oci.Timeout)}, "c", 0, 2},
		"this node takes all ways there are":      {[]Peer{nil, a, b}, map[string]error{"own": errNoWay}, "", oci.Unavailable, 0},
		"after a peer without this node is asked": {[]Peer{a, b, c, nil}, map[string]error{"a": errNoWay}, "own", 0, 1},
		"and no third":                            {[]Peer{a, b, nil, c}, map[string]error{"own": errNoWay, "a": errNoWay}, "", oci.Unavailable, 1},
		"a peer without, this node may not ask":   {[]Peer{a, b}, map[string]error{"a": errNoWay}, "b", 0, 1},
		"nor has the next":                        {[]Peer{a, b, c}, map[string]error{"a": errNoWay, "b": errNoWay}, "", oci.Unavailable, 1},
		"a peer without, the next hears a no":     {[]Peer{a, b, c}, map[string]error{"a": errNoWay, "b": failure(oci.NotFound)}, "", oci.NotFound, 1},
		"the registry fails this node":            {[]Peer{nil, a}, map[string]error{"own": failure(oci.Unavailable)}, "", oci.Unavailable, 0},
		"the last one's way out fails, no other":  {[]Peer{a}, map[string]error{"a": failure(oci.Timeout)}, "", oci.Timeout, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, passed := newMesh(test.route...)
			who, err := Along(t.Context(), m, ref, "key",
				func(context.Context) (string, error) { return "own", test.says["own"] },
				func(_ context.Context, p Peer) (string, error) { return p.ID(), test.says[p.ID()] })
			if test.want != "" && (err != nil || who != test.want) || test.want == "" && (err == nil || oci.KindOf(err) != test.kind) {
				t.Errorf("%q, %v", who, err)
			}
			if passed.n != test.passed {
				t.Errorf("%d peers passed over, want %d", passed.n, test.passed)
			}
		})
	}
}

// A node that has no way out has asked the others for theirs. So this node is the last to be
// asked, and a client hears of it in time.
func TestNodesWithoutAWayOutAreNotAskedInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const tour = 2 * time.Second
		a := &member{id: "a", progress: func(context.Context) (Progress, error) { return Progress{}, nil }}
		m, _ := newMesh(a, &member{id: "b"}, &member{id: "c"}, nil, &member{id: "d"})
		var asked []string
		start := time.Now()
		_, err := Along(t.Context(), m, ref, "key",
			func(context.Context) (int, error) {
				time.Sleep(tour) // in the bubble's time
				asked = append(asked, "own")
				return 0, errNoWay
			},
			func(_ context.Context, p Peer) (int, error) {
				time.Sleep(tour) // in the bubble's time
				asked = append(asked, p.ID())
				return 0, errNoWay
			})
		if e, _ := oci.AsError(err); e == nil || !e.Unreached || time.Since(start) > 5*time.Second || !slices.Equal(asked, []string{"a", "own"}) {
			t.Errorf("%v asked in %v: %v", asked, time.Since(start), err)
		}
	})
}

// The client has gone: no more nodes are asked.
func TestAlongEndsWithItsContext(t *testing.T) {
	t.Parallel()
	m, passed := newMesh(&member{id: "a"}, &member{id: "b"}, nil)
	ctx, end := context.WithCancelCause(t.Context())
	left := errors.New("the client has left")
	_, err := Along(ctx, m, ref, "key",
		func(context.Context) (int, error) { return 1, nil },
		func(context.Context, Peer) (int, error) { end(left); return 0, errGone })
	if !errors.Is(err, left) || passed.n != 0 {
		t.Errorf("%v, %d passed over", err, passed.n)
	}
}

func TestDirectAsksPeersOnlyIfThisNodeMayNot(t *testing.T) {
	t.Parallel()
	a := &member{id: "a"}
	for want, route := range map[string][]Peer{"own": {a, nil}, "a": {a}} {
		m, _ := newMesh(route...)
		got, err := Direct(t.Context(), m, ref,
			func(context.Context) (string, error) { return "own", nil },
			func(_ context.Context, p Peer) (string, error) { return p.ID(), nil })
		if err != nil || got != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
}

func TestPeekNamesHoldersFirst(t *testing.T) {
	t.Parallel()
	m, _ := newMesh(nil)
	peers := []Peer{
		&member{id: "arriving", presence: Arriving}, &member{id: "absent"},
		&member{id: "gone", presence: Held, peekErr: errGone}, &member{id: "held", presence: Held},
	}
	var got []string
	for p := range m.Peek(t.Context(), ref, peers) {
		got = append(got, p.ID())
	}
	if !slices.Equal(got, []string{"held", "arriving"}) {
		t.Errorf("%q", got)
	}
}

// Of many members only so many are asked at a time, the first ones first, and no more once
// one has the blob.
func TestPeekAsksABoundedNumberAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, _ := newMesh(nil)
		peers := make([]Peer, 3*peekWidth)
		for i := range peers {
			peers[i] = &member{id: "absent", peekTime: time.Second}
		}
		start := time.Now()
		for range m.Peek(t.Context(), ref, peers) {
			t.Error("nobody has it, and somebody answered")
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("three times as many as are asked at a time take %v", took)
		}
		peers[peekWidth-1] = &member{id: "held", presence: Held}
		peers[peekWidth+1] = &member{id: "never asked", presence: Held}
		start = time.Now()
		for p := range m.Peek(t.Context(), ref, peers) {
			if p.ID() != "held" || time.Since(start) > 0 {
				t.Errorf("%s after %v", p.ID(), time.Since(start))
			}
			break
		}
		<-time.After(2 * time.Second) // those that were asked have answered
	})
}

// Of very many members more are asked at a time, and none is waited for for long. The first
// are asked first.
func TestPeekAtVeryManyEndsInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, _ := newMesh(nil)
		peers := make([]Peer, 1000)
		var asked atomic.Int64
		for i := range peers {
			peers[i] = &member{id: "absent", peekTime: 10 * time.Millisecond, peeked: &asked}
		}
		start := time.Now()
		for range m.Peek(t.Context(), ref, peers) {
			t.Error("nobody has it, and somebody answered")
		}
		if took := time.Since(start); took != 80*time.Millisecond || asked.Load() != 1000 {
			t.Errorf("%d were asked in %v", asked.Load(), took)
		}
		for i := range peers {
			peers[i] = &member{id: "late", presence: Held, peekTime: time.Hour}
		}
		peers[7] = &member{id: "held", presence: Held, peekTime: 2 * time.Second}
		start = time.Now()
		var got []string
		for p := range m.Peek(t.Context(), ref, peers) {
			got = append(got, p.ID())
		}
		if took := time.Since(start); took != manyTime || !slices.Equal(got, []string{"held"}) {
			t.Errorf("%q in %v", got, took)
		}
	})
}

// Who has the blob is told at once, whoever else is late. One that is getting it is
// followed a little later, and not before one that has it.
func TestPeekDoesNotWaitForThoseThatAreLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m, _ := newMesh(nil)
		peers := []Peer{
			&member{id: "late", presence: Held, peekTime: time.Second}, &member{id: "arriving", presence: Arriving},
			&member{id: "held", presence: Held, peekTime: time.Millisecond},
		}
		start := time.Now()
		var got []string
		var at []time.Duration
		for p := range m.Peek(t.Context(), ref, peers) {
			got, at = append(got, p.ID()), append(at, time.Since(start))
		}
		if !slices.Equal(got, []string{"held", "arriving", "late"}) || !slices.Equal(at, []time.Duration{time.Millisecond, followAfter, time.Second}) {
			t.Errorf("%q at %v", got, at)
		}
		start = time.Now()
		for p := range m.Held(t.Context(), ref, peers) {
			if p.ID() != "held" || time.Since(start) > time.Millisecond {
				t.Errorf("%q after %v", p.ID(), time.Since(start))
			}
			break
		}
		for range m.Peek(t.Context(), ref, nil) {
			t.Error("nobody was asked, and somebody answered")
		}
		<-time.After(2 * time.Second) // the last answer comes
	})
}

// endless is a body that brings n bytes each time, d apart, until ctx ends.
type endless struct {
	ctx context.Context
	n   int
	d   time.Duration
}

func (b endless) Read(p []byte) (int, error) {
	select {
	case <-time.After(b.d):
		return min(b.n, len(p)), nil
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	}
}
