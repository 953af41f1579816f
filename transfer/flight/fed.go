package flight

import (
	"cmp"
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"oci-proxy/transfer/feed"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

const (
	// sentOn is how often in a row the root may send a flight on in vain. Then the root
	// sends the bytes itself.
	sentOn = 3
	// sentOnInAll is how often it may do so at all.
	sentOnInAll = 16
)

// errSentOn: the node has the bytes, and named another to get them from, or is about to.
var errSentOn = errors.New("sent on to another node")

// A diner is a flight that follows a node which may feed it by way of others: the root of a
// tree, as transfer/feed says.
type diner struct {
	*filler
	root   mesh.Peer
	not    []string    // members that could not feed it
	feeder oci.Feeding // whom the root named last
	at     time.Time   // since when what the root says holds
	offset func() int64
	whole  func() bool // all has come
}

// fed lists the root, and those that it names, until the root fails. It reports whether
// more sources are wanted.
func fed(f *filler, root mesh.Peer, yield func(source) bool) bool {
	if told := f.cfg().Sizes.Get(f.key.Content); told >= 0 && told < feed.Least {
		return yield(f.fromPeer(root, mesh.Terms{}))
	}
	d := &diner{filler: f, root: root, offset: f.ingest.Offset, whole: func() bool { n := f.ingest.Size(); return n >= 0 && f.ingest.Offset() == n }}
	defer func() {
		if f.outcome != nil { // else whoever it feeds gets the rest as soon as the digest is known
			f.chair.sit("") // they have to ask anew as well
		}
	}()
	vain := 0
	for round := 0; ; round++ {
		d.feeder = oci.Feeding{}
		if !yield(d.fromRoot(vain >= sentOn || round >= sentOnInAll)) {
			return false
		}
		if d.feeder.Feeder == "" && errors.Is(f.outcome, errSentOn) { // in mid-body
			continue
		}
		if d.feeder.Feeder == "" {
			return true
		}
		before := f.ingest.Offset()
		if p := d.named(); p != nil && !yield(d.fromFeeder(p)) {
			return false
		}
		if errors.Is(f.outcome, mesh.ErrDrips) { // the registry may be at fault, and this node can ask it
			return true
		}
		d.not = append(d.not, d.feeder.Feeder)
		if vain++; f.ingest.Offset() > before {
			vain = 0
		}
	}
}

// named returns the feeder, nil if this node can't or does not want to ask it.
func (d *diner) named() mesh.Peer {
	p := d.cfg().Mesh.Peer(d.feeder.Feeder)
	if p == nil || len(d.trusted([]mesh.Peer{p})) == 0 {
		return nil
	}
	return p
}

// fromRoot returns the root as a source. here says that it is to send the bytes itself.
func (d *diner) fromRoot(here bool) source {
	return source{peer: d.root, open: func(ctx context.Context, offset int64) (*oci.Stream, error) {
		asked := time.Now()
		ask := mesh.Feed{Asks: true, Here: here, Zone: d.cfg().Zone, Seat: d.chair.ask(), Not: strings.Join(d.not, " ")}
		s, err := d.open(ctx, d.root, offset, mesh.Terms{Feed: ask})
		if err != nil {
			d.chair.sit("")
			return nil, err
		}
		d.chair.sit(s.Feeding.Seat)
		if s.Feeding.Feeder != "" {
			d.feeder, d.at = s.Feeding, cmp.Or(s.At, asked)
			return nil, errSentOn
		}
		return s, nil
	}}
}

// fromFeeder returns the feeder as a source. It gives only what it has, or gets. That this
// node may have it is the root's word.
func (d *diner) fromFeeder(p mesh.Peer) source {
	terms := mesh.Terms{Held: true, Vouched: d.request.Private, Feed: mesh.Feed{By: d.feeder.By}}
	return source{peer: p, terms: terms, fed: true, open: func(ctx context.Context, offset int64) (*oci.Stream, error) {
		s, err := d.open(ctx, p, offset, terms)
		if err == nil {
			s.At = d.at
		}
		return s, err
	}}
}

// open opens the blob at a node. While it comes, the root is told how far this node is.
func (d *diner) open(ctx context.Context, p mesh.Peer, offset int64, terms mesh.Terms) (*oci.Stream, error) {
	ctx, end := context.WithCancelCause(ctx)
	s, err := p.Open(ctx, d.request.Ref, offset, terms)
	if err != nil || s.Body == nil {
		end(nil)
		return s, err
	}
	if seat := cmp.Or(s.Feeding.Seat, d.feeder.Seat); seat != "" {
		go d.tell(ctx, end, seat, !terms.Feed.Here)
	}
	body := &ending{ReadCloser: s.Body, ctx: ctx, end: end, why: mesh.ErrSlow}
	if terms.Feed.By == "" { // who says so is the root itself, and it is well
		body.why = errSentOn
	}
	s.Body = body
	return s, nil
}

// An ending body ends what belongs to it when it is closed.
type ending struct {
	io.ReadCloser
	ctx context.Context
	end context.CancelCauseFunc
	why error // it is left in mid-body
}

// Read implements io.Reader.
func (b *ending) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && errors.Is(context.Cause(b.ctx), mesh.ErrSlow) {
		err = b.why
	}
	return n, err
}

// Close implements io.Closer.
func (b *ending) Close() error {
	b.end(nil)
	return b.ReadCloser.Close()
}

// tell tells the root how far this node is, as often as that wants, until the stream ends,
// and once more when all has come: then others do well to get it here. If the root says that the
// feeder is slow, and this node may leave it, the stream ends.
func (d *diner) tell(ctx context.Context, end context.CancelCauseFunc, seat string, mayLeave bool) {
	for pause := time.Duration(0); wait.For(ctx, pause) == nil; {
		at, err := d.report(ctx, seat)
		pause = max(feed.Soon, time.Duration(min(at.Next, feed.Every.Milliseconds()))*time.Millisecond)
		switch {
		case err != nil || at.Next == 0:
			pause = feed.Every
		case at.Leave && mayLeave:
			end(mesh.ErrSlow)
			return
		case at.Leave: // a root of an earlier version says so of itself
			pause = feed.Every
		}
	}
	if d.whole() {
		_, _ = d.report(d.ctx(), seat) // it only helps others
	}
}

// report tells the root once how far this node is.
func (d *diner) report(ctx context.Context, seat string) (mesh.Progress, error) {
	return d.root.Report(ctx, d.request.Ref, mesh.Report{Seat: seat, Came: d.offset()})
}
