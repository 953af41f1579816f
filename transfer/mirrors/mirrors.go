// Package mirrors asks the other places that hold a registry's repositories: mirrors that
// the operator named, and the registry itself as one place among them.
//
// It is an oci.Upstream over another one, which asks a single host: a mirror is asked by
// the mirror's own name, so its login, proxy and certificates are those of its own entry in
// the config, and no credential of the registry ever gets there.
//
// The story of a question: mirrors.go says which places may answer it, order.go in which
// order, by health and measured speed (place.go), and errand.go goes from one to the next
// until one has an answer. A blob's bytes are timed as they come, and a place that stands
// still or crawls is left (stream.go). Places that are out of use, or were never used, are
// tried in the background (probe.go).
//
// Who may answer what:
//
//   - A blob or manifest by digest: any place, because its bytes are checked by whoever takes
//     them. Whoever finds them wrong says so, and that place is passed over (grudges.go).
//   - What nobody can check (what a tag means, lists, a range, a size): the registry, and
//     mirrors that the operator trusts for tags.
//   - Anything of a private registry for which that has not vouched: the registry alone. The
//     caller says so, by not saying oci.WithMirrors.
//
// That a mirror has nothing, or refuses, is not the registry's word: the next place is asked.
// What the registry says is final, and only its errors are returned.
package mirrors

import (
	"context"
	"log/slog"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// A Mirror is another place that holds a registry's repositories.
type Mirror struct {
	Host string // its canonical host[:port]
	Tags bool   // it is trusted for what nobody can check, such as tags
}

// Config is what Mirrors work with. All fields are needed.
type Config struct {
	Upstream oci.Upstream // asks the one host that a Ref names as its registry
	Of       map[string][]Mirror
	Log      *slog.Logger
}

// Mirrors ask registries, and the mirrors of those that have some. They are safe for
// concurrent use.
type Mirrors struct {
	upstream oci.Upstream
	sites    map[string]*site
	life     *wait.Life // of probes
}

var _ oci.Upstream = (*Mirrors)(nil)

// New returns Mirrors. Close them.
func New(cfg Config) *Mirrors {
	m := &Mirrors{upstream: cfg.Upstream, sites: map[string]*site{}, life: wait.NewLife()}
	for registry, list := range cfg.Of {
		s := &site{registry: registry, upstream: cfg.Upstream, life: m.life, log: cfg.Log, grudges: newGrudges()}
		for _, one := range list {
			s.places = append(s.places, &place{host: one.Host, trusted: one.Tags})
		}
		s.places = append(s.places, &place{host: registry, own: true, trusted: true})
		m.sites[registry] = s
	}
	return m
}

// Over returns the same Mirrors, with all that they know, over another Upstream: questions go
// by that, and probes as before. Close only the Mirrors that New has returned.
func (m *Mirrors) Over(upstream oci.Upstream) *Mirrors {
	over := *m
	over.upstream = upstream
	return &over
}

// A Place is how a mirror, or the registry as one place among its mirrors, does.
type Place struct {
	Host  string
	Well  bool   // it is not known to fail, or to send wrong bytes
	Wrong string // what was last wrong with it, "" if nothing was
}

// Places returns how the places of a registry do, the mirrors as New got them and then the
// registry. It is empty for a registry without mirrors.
func (m *Mirrors) Places(registry string) (out []Place) {
	s := m.sites[registry]
	if s == nil {
		return nil
	}
	for _, p := range s.places {
		out = append(out, p.describe())
	}
	return out
}

// Close ends the probes at once.
func (m *Mirrors) Close() {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	m.life.Close(now)
}

// site returns the registry's places, nil if only the registry is to be asked.
func (m *Mirrors) site(ctx context.Context, ref oci.Ref) *site {
	if !oci.Mirrors(ctx) {
		return nil
	}
	return m.sites[ref.Registry]
}

// Open implements oci.Upstream.
func (m *Mirrors) Open(ctx context.Context, ref oci.Ref, offset int64) (*oci.Stream, error) {
	s := m.site(ctx, ref)
	if s == nil {
		return m.upstream.Open(ctx, ref, offset)
	}
	return s.stream(ctx, ref, s.forBytes(ref), func(ctx context.Context, _ *place, at oci.Ref) (*oci.Stream, error) {
		return m.upstream.Open(ctx, at, offset)
	})
}

// Range implements oci.Upstream. A range of a blob can't be checked by the blob's digest.
func (m *Mirrors) Range(ctx context.Context, ref oci.Ref, span oci.Span) (*oci.Stream, error) {
	s := m.site(ctx, ref)
	if s == nil {
		return m.upstream.Range(ctx, ref, span)
	}
	return s.stream(ctx, ref, s.forWords(ref), func(ctx context.Context, _ *place, at oci.Ref) (*oci.Stream, error) {
		return m.upstream.Range(ctx, at, span)
	})
}

// Stat implements oci.Upstream. Mirrors that are not trusted for tags come last, and only
// what can be checked is believed: of a manifest its bytes, of a blob that it is there.
func (m *Mirrors) Stat(ctx context.Context, ref oci.Ref, blob bool, accept []string) (oci.Descriptor, error) {
	s := m.site(ctx, ref)
	if s == nil {
		return m.upstream.Stat(ctx, ref, blob, accept)
	}
	places := s.forWords(ref)
	if ref.Digest != "" {
		places = s.forSizes(ref)
	}
	return answer(ctx, s, subject{Ref: ref, blob: blob}, places, func(ctx context.Context, p *place, at oci.Ref) (oci.Descriptor, error) {
		if p.trusted || blob {
			d, err := m.upstream.Stat(ctx, at, blob, accept)
			if d.By = p.party(d.By); d.Manifest != nil {
				d.Manifest.By = d.By
			}
			if !p.trusted {
				d.Size = -1
			}
			return d, err
		}
		got, err := m.upstream.Manifest(ctx, at, accept)
		got.By = p.party(got.By)
		return oci.Descriptor{Digest: got.Digest, MediaType: got.MediaType, Size: int64(len(got.Bytes)), By: got.By, Manifest: &got}, err
	})
}

// Manifest implements oci.Upstream.
func (m *Mirrors) Manifest(ctx context.Context, ref oci.Ref, accept []string) (oci.Manifest, error) {
	s := m.site(ctx, ref)
	if s == nil {
		return m.upstream.Manifest(ctx, ref, accept)
	}
	places := s.forWords(ref)
	if ref.Digest != "" {
		places = s.forDocument(ref)
	}
	return answer(ctx, s, subject{Ref: ref}, places, func(ctx context.Context, p *place, at oci.Ref) (oci.Manifest, error) {
		got, err := m.upstream.Manifest(ctx, at, accept)
		got.By = p.party(got.By)
		return got, err
	})
}

// Tags implements oci.Upstream.
func (m *Mirrors) Tags(ctx context.Context, ref oci.Ref, query oci.Query, to oci.Sink) (*oci.Page, error) {
	return m.list(ctx, ref, func(ctx context.Context, at oci.Ref) (*oci.Page, error) { return m.upstream.Tags(ctx, at, query, to) })
}

// Referrers implements oci.Upstream.
func (m *Mirrors) Referrers(ctx context.Context, ref oci.Ref, query oci.Query, to oci.Sink) (*oci.Page, error) {
	return m.list(ctx, ref, func(ctx context.Context, at oci.Ref) (*oci.Page, error) {
		return m.upstream.Referrers(ctx, at, query, to)
	})
}

// list gets a page of a list.
func (m *Mirrors) list(ctx context.Context, ref oci.Ref, ask func(context.Context, oci.Ref) (*oci.Page, error)) (*oci.Page, error) {
	s := m.site(ctx, ref)
	if s == nil {
		return ask(ctx, ref)
	}
	return answer(ctx, s, subject{Ref: ref}, s.forWords(ref), func(ctx context.Context, p *place, at oci.Ref) (*oci.Page, error) {
		page, err := ask(ctx, at)
		if err == nil {
			page.By = p.party(page.By)
		}
		return page, err
	})
}
