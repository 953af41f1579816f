package mirrors

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"oci-proxy/transfer/oci"
)

// errStill is the cause of a stream that stood still while another place is well.
var errStill = errors.New("the download stood still, and another place can be asked")

// errHandsOver: a mirror's redirects are followed here, or not at all.
var errHandsOver = errors.New("the mirror sends clients elsewhere (follow_redirects: false)")

// stream opens a blob, or a part of one, at the first of the places that has it. Its body
// fails if the place turns out to be much slower than another: whoever reads goes on from
// the byte reached, as with any stream that breaks off.
func (s *site) stream(ctx context.Context, ref oci.Ref, places []*place, open asker[*oci.Stream]) (*oci.Stream, error) {
	r, err := walk(ctx, s, ref, places, func(ctx context.Context, p *place, at oci.Ref) (*oci.Stream, error) {
		got, err := open(ctx, p, at)
		if err == nil && got.Redirect != "" && !p.own {
			return nil, &oci.Error{Kind: oci.Unavailable, Registry: ref.Registry, Host: p.host, By: oci.Mirror, Reason: errHandsOver.Error()}
		}
		return got, err
	})
	if err != nil {
		return nil, err
	}
	got, p := r.value, r.place
	if got.Redirect != "" {
		r.end(nil)
		return got, nil
	}
	got.By = p.party(got.By)
	if !p.own {
		got.Wrong = func(all bool) { s.lie(p, ref, all) }
	}
	got.Body = s.timed(r, got.Body)
	s.probe(ctx, p, subject{ref, true, max(got.Size, 0)})
	return got, nil
}

// A body is one that is timed as it comes. Its methods belong to one goroutine at a time.
type body struct {
	io.ReadCloser
	ctx   context.Context // of the request
	end   context.CancelCauseFunc
	site  *site
	place *place
	still *time.Timer // ends the request, nil while no other place is well

	all, lap speed
}

// A speed is how much came in what time. The time is that spent in reading: what the reader
// does in between is not the place's fault.
type speed struct {
	bytes int64
	took  time.Duration
}

// add adds what came.
func (s *speed) add(n int, took time.Duration) {
	s.bytes += int64(n)
	s.took += took
}

// timed returns the body of a reply as one that is timed.
func (s *site) timed(r reply[*oci.Stream], from io.ReadCloser) *body {
	b := &body{ReadCloser: from, ctx: r.ctx, end: r.end, site: s, place: r.place}
	if _, others := s.best(r.place); others {
		b.still = time.AfterFunc(time.Hour, func() { r.end(errStill) })
		b.still.Stop() // until something is read
	}
	return b
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	began := time.Now()
	if b.still != nil {
		b.still.Reset(stillFor)
	}
	n, err := b.ReadCloser.Read(p)
	if b.still != nil {
		b.still.Stop()
	}
	took := time.Since(began)
	b.all.add(n, took)
	b.lap.add(n, took)
	switch {
	case err == nil:
		return n, b.judge()
	case errors.Is(err, io.EOF):
	case errors.Is(context.Cause(b.ctx), errStill):
		b.place.failed("a download stood still", 0)
		return n, fmt.Errorf("%s: %w", b.place.host, errStill)
	case b.ctx.Err() == nil:
		b.place.failed("a download broke off", 0)
	}
	return n, err
}

// muchFaster is how many times as fast another place must be for a stream to be left: the
// next one has to begin first, and speeds vary.
const muchFaster = 8

// judge ends a lap, and fails if another place is known to be much faster than that.
func (b *body) judge() error {
	if b.lap.took < crawlFor {
		return nil
	}
	rate := float64(b.lap.bytes) / b.lap.took.Seconds()
	b.lap = speed{}
	if best, _ := b.site.best(b.place); best < muchFaster*max(rate, 1) {
		return nil
	}
	b.place.crawls(rate)
	b.site.log.Info("slow download left for another place", "registry", b.site.registry, "host", b.place.host, "bytes_per_second", int64(rate))
	return fmt.Errorf("%s sends %d bytes a second, and another place is much faster", b.place.host, int64(rate))
}

// Close implements io.Closer.
func (b *body) Close() error {
	if b.still != nil {
		b.still.Stop()
	}
	b.place.sent(b.all.bytes, b.all.took)
	err := b.ReadCloser.Close()
	b.end(nil)
	return err
}
