package egress_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/egress"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const host = "reg.example.com"

// content is the blob that every way brings.
var content = bytes.Repeat([]byte("content "), 4096)

var (
	blobRef = oci.Ref{Registry: host, Repository: "team/app", Digest: digest.FromBytes(content)}
	tagRef  = oci.Ref{Registry: host, Repository: "team/app", Tag: "v1"}
)

// A place is a way to a registry that works or does not. It counts what is asked there.
type place struct {
	name  string
	delay time.Duration // until it answers

	mu    sync.Mutex
	fails error // what it answers instead
	cut   int64 // a blob breaks off after so many bytes, 0: not
	slow  time.Duration
	// redirect is what it hands over to a blob's client.
	redirect string
	mirror   bool // a mirror answers for it, if it may
	asked    map[string]int
}

func (p *place) set(fails error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fails = fails
}

func (p *place) count(what string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[what]
}

// total counts all requests.
func (p *place) total() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.asked {
		n += k
	}
	return n
}

func (p *place) ask(ctx context.Context, what string) error {
	p.mu.Lock()
	if p.asked == nil {
		p.asked = map[string]int{}
	}
	p.asked[what]++
	fails, delay := p.fails, p.delay
	p.mu.Unlock()
	if p.mirrored(ctx) {
		fails = nil
	}
	select {
	case <-time.After(delay):
		return fails
	case <-ctx.Done():
		return &oci.Error{Kind: oci.Timeout, Registry: host, Reason: "no answer in time", Err: context.Cause(ctx)}
	}
}

// mirrored reports whether a mirror answers.
func (p *place) mirrored(ctx context.Context) bool { return p.mirror && oci.Mirrors(ctx) }

// by is who answers.
func (p *place) by(ctx context.Context) oci.Party {
	if p.mirrored(ctx) {
		return oci.Mirror
	}
	return oci.Registry
}

func (p *place) Open(ctx context.Context, _ oci.Ref, offset int64) (*oci.Stream, error) {
	if err := p.ask(ctx, "open"); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.redirect != "" {
		return &oci.Stream{Redirect: p.redirect, Size: -1}, nil
	}
	return &oci.Stream{Body: &body{content[offset:], p.cut, p.slow}, Offset: offset, Size: int64(len(content)), Host: host, By: p.by(ctx)}, nil
}

func (p *place) Range(ctx context.Context, _ oci.Ref, span oci.Span) (*oci.Stream, error) {
	if err := p.ask(ctx, "range"); err != nil {
		return nil, err
	}
	return &oci.Stream{Body: &body{left: content[span.Offset:span.End()]}, Offset: span.Offset, Size: int64(len(content)), Host: host, By: oci.Registry}, nil
}

func (p *place) Stat(ctx context.Context, _ oci.Ref, blob bool, _ []string) (oci.Descriptor, error) {
	what := "head"
	if blob {
		what = "head of a blob"
	}
	if blob && p.redirect != "" {
		return oci.Descriptor{Redirect: p.redirect, Size: -1}, nil
	}
	return oci.Descriptor{Digest: blobRef.Digest, Size: 7, By: oci.Registry, MediaType: p.name}, p.ask(ctx, what)
}

func (p *place) Manifest(ctx context.Context, _ oci.Ref, _ []string) (oci.Manifest, error) {
	return oci.Manifest{Digest: blobRef.Digest, MediaType: p.name, By: oci.Registry}, p.ask(ctx, "manifest")
}

func (p *place) Tags(ctx context.Context, _ oci.Ref, _ oci.Query, to oci.Sink) (*oci.Page, error) {
	if _, err := to.Write([]byte(p.name)); err != nil {
		return nil, err
	}
	return &oci.Page{By: oci.Registry}, p.ask(ctx, "tags")
}

func (p *place) Referrers(ctx context.Context, ref oci.Ref, q oci.Query, to oci.Sink) (*oci.Page, error) {
	return p.Tags(ctx, ref, q, to)
}

// A body is what is left of a blob. It breaks off after cut bytes, and each read takes slow.
type body struct {
	left []byte
	cut  int64
	slow time.Duration
}

var errCut = errors.New("the connection was cut")

func (b *body) Read(p []byte) (int, error) {
	time.Sleep(b.slow) // in the bubble's time
	if len(b.left) == 0 {
		return 0, io.EOF
	}
	if b.cut > 0 {
		p = p[:min(int64(len(p)), b.cut)]
	}
	n := copy(p, b.left)
	b.left = b.left[n:]
	if b.cut > 0 {
		if b.cut -= int64(n); b.cut == 0 {
			return n, errCut
		}
	}
	return n, nil
}

func (b *body) Close() error { return nil }

// A member is another node that lends its way out.
type member struct {
	mesh.Peer
	*place
	dead   atomic.Bool
	hung   atomic.Bool
	faults atomic.Int64
}

func (m *member) ID() string           { return m.name }
func (m *member) Name() string         { return "node-" + m.name }
func (m *member) Fault(error)          { m.faults.Add(1) }
func (m *member) Relay() oci.Upstream  { return lent{m.place, m} }
func (m *member) failed(e error) error { return &mesh.PeerError{Peer: m.Name(), Err: e} }

// Progress implements mesh.Peer.
func (m *member) Progress(ctx context.Context, _ oci.Ref) (mesh.Progress, error) {
	if m.hung.Load() {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // as a real one
		defer cancel()
		<-ctx.Done()
		return mesh.Progress{}, ctx.Err()
	}
	return mesh.Progress{}, nil
}

func (m *member) Open(context.Context, oci.Ref, int64, mesh.Terms) (*oci.Stream, error) {
	panic("asked for content, and not for its way out")
}

func (m *member) Stat(context.Context, oci.Ref) (int64, oci.Provenance, error) {
	panic("asked for content, and not for its way out")
}

func (m *member) Manifest(context.Context, oci.Ref, mesh.Terms) (*oci.Found, error) {
	panic("asked for content, and not for its way out")
}

// lent is the way out of a member that may be dead or hang itself.
type lent struct {
	*place
	m *member
}

func (l lent) reach(ctx context.Context) error {
	if l.m.dead.Load() {
		return l.m.failed(errors.New("connection refused"))
	}
	if l.m.hung.Load() {
		<-ctx.Done()
		return l.m.failed(ctx.Err())
	}
	return nil
}

func (l lent) Open(ctx context.Context, ref oci.Ref, offset int64) (*oci.Stream, error) {
	if err := l.reach(ctx); err != nil {
		return nil, err
	}
	s, err := l.place.Open(ctx, ref, offset)
	if err == nil {
		s.Relay = l.m.Name()
	}
	return s, err
}

func (l lent) Stat(ctx context.Context, ref oci.Ref, blob bool, accept []string) (oci.Descriptor, error) {
	if err := l.reach(ctx); err != nil {
		return oci.Descriptor{}, err
	}
	return l.place.Stat(ctx, ref, blob, accept)
}

// A rig is an Egress with its own way and members'.
type rig struct {
	*egress.Egress
	t       *testing.T
	own     *place
	members []*member
	ways    *egress.Ways
}

// newRig returns a rig with members a, b, … Close it in a bubble.
func newRig(t *testing.T, n int, own bool) *rig {
	r := &rig{t: t, own: &place{name: "own"}, ways: egress.NewWays()}
	for i := range n {
		r.members = append(r.members, &member{place: &place{name: string(rune('a' + i))}})
	}
	r.Egress = egress.New(egress.Config{
		Upstream: r.own, Own: own, Ways: r.ways, Log: slog.New(slog.DiscardHandler),
		Relays: func(string, string) (out []mesh.Relayer) {
			for _, m := range r.members {
				out = append(out, m)
			}
			return out
		},
	})
	return r
}

// errNoWay is the failure of a way that leads nowhere.
func errNoWay() error {
	return &oci.Error{Kind: oci.Unavailable, Registry: host, Host: host, Reason: "connection refused", Unreached: true}
}

// tag asks what a tag means, and returns who answered.
func (r *rig) tag() (string, error) {
	d, err := r.Stat(context.Background(), tagRef, false, nil)
	return d.MediaType, err
}

// mustTag fails the test unless that way answers.
func (r *rig) mustTag(by string) {
	r.t.Helper()
	if got, err := r.tag(); err != nil || got != by {
		r.t.Errorf("%q answered, want %q: %v", got, by, err)
	}
}

// read reads a blob from offset on. It returns what came, and by which way.
func (r *rig) read(offset int64) ([]byte, string, error) {
	s, err := r.Open(context.Background(), blobRef, offset)
	if err != nil {
		return nil, "", err
	}
	b, err := io.ReadAll(s.Body)
	return b, s.Relay, errors.Join(err, s.Body.Close())
}
