package mirrors

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"oci-proxy/transfer/oci"
)

// probed is how much of a blob is read to learn a place's speed, in bytes.
const probed = 1 << 20

// probing is whether probes of a site's places are under way: one is at a time.
type probing struct{ atomic.Bool }

// A subject is what a place is probed with.
type subject struct {
	oci.Ref
	blob bool
	size int64 // of the blob, in bytes; 0: not known
}

// probe asks the places that are due, one after the other, for what another has just answered:
// whether they answer again, and how fast they are. Nobody waits for that. Of a blob it reads
// the beginning, of all else the header.
func (s *site) probe(ctx context.Context, but *place, of subject) {
	if of.Tag == "" && of.Digest == "" {
		return // a list has no header to ask for
	}
	span := oci.Span{Length: min(of.size, probed)}
	read := of.blob && span.Length >= leastMeasured
	var due []*place
	for _, p := range s.places {
		if p != but && (of.Digest != "" || p.trusted) && p.due(read) {
			due = append(due, p)
		}
	}
	if len(due) == 0 || !s.probing.CompareAndSwap(false, true) {
		return
	}
	client := oci.Caller{Client: oci.CallerOf(ctx).Client}
	if !s.life.Go(func() {
		defer s.probing.Store(false)
		for _, p := range due {
			ctx, cancel := context.WithTimeout(oci.Hurry(client.Into(s.life.Context())), probeFor)
			at := of.Ref
			at.Registry = p.host
			if read {
				p.reading()
				s.probeBlob(ctx, p, at, span)
			} else {
				s.probeHead(ctx, p, at, of.blob)
			}
			cancel()
		}
	}) {
		s.probing.Store(false)
	}
}

// probeHead asks a place for a header.
func (s *site) probeHead(ctx context.Context, p *place, at oci.Ref, blob bool) {
	began := time.Now()
	_, err := s.upstream.Stat(ctx, at, blob, oci.ManifestTypes)
	s.probedWith(p, at, time.Since(began), err)
}

// probeBlob asks a place for the beginning of a blob.
func (s *site) probeBlob(ctx context.Context, p *place, at oci.Ref, span oci.Span) {
	began := time.Now()
	got, err := s.upstream.Range(ctx, at, span)
	s.probedWith(p, at, time.Since(began), err)
	if err != nil || got.Body == nil {
		return
	}
	defer func() { _ = got.Body.Close() }() // only read
	began = time.Now()
	n, err := io.Copy(io.Discard, io.LimitReader(got.Body, span.Length))
	if err != nil && n < leastMeasured {
		p.crawls(float64(n) / probeFor.Seconds())
		return
	}
	p.sent(n, time.Since(began))
}

// probedWith notes what a probe ended with.
func (s *site) probedWith(p *place, at oci.Ref, took time.Duration, err error) {
	said, ok := oci.AsError(err)
	switch {
	case err == nil:
		p.answered(took)
	case s.life.Context().Err() != nil:
	case ok && (said.Kind == oci.NotFound || said.Kind == oci.Denied && said.Status != 0):
		p.answered(took)
		s.grudges.lack(p.host, at)
	case ok && (said.Kind == oci.Busy || said.Kind != oci.Limited && said.Status != 0 && said.Status < http.StatusInternalServerError):
		p.answered(took) // it has no time, serves no ranges, or the blob has another size than a mirror told
	default:
		p.failed(failure(err), 0)
	}
}
