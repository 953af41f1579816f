package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"

	"oci-proxy/cache"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// A holder is what a node does for the other members.
type holder struct{ f *Fetcher }

// Holder returns the Fetcher as other members see it.
func (f *Fetcher) Holder() mesh.Holder { return &holder{f} }

// What a node does for another member. Each of these asks the registry at
// most, never a third node to get something: no loop can come about, whatever
// the members believe of the ring.

// Blob is Blob for another member. What terms ask for that is held has to be
// here, or on its way from the registry so that the member of the id asker may
// follow (act.go): else the *Error is of kind NotFound.
func (m *holder) Blob(ctx context.Context, ref oci.Ref, terms mesh.Terms, asker string) (*mesh.Given, error) {
	t := m.f.ticket(ref)
	t.acts, t.Terms, t.asker = true, terms, asker
	a, err := m.f.open(ctx, t)
	if err != nil {
		return nil, m.f.toMember(ctx, ref, err)
	}
	return &mesh.Given{Provenance: a.Provenance, Redirect: a.Redirect, Blob: a}, nil
}

// toMember is explain for a member: a node that is shutting down fails itself,
// and does not speak for the registry.
func (f *Fetcher) toMember(ctx context.Context, ref oci.Ref, err error) error {
	if errors.Is(err, errClosed) {
		return errClosed
	}
	return f.explain(ctx, ref, "", err)
}

// toPeer counts what was sent to another member.
func (f *Fetcher) toPeer(registry string, n int64) {
	f.streams.Add(-1)
	one := f.counters.of(registry)
	one.ToPeers.Add(1)
	one.ToPeersBytes.Add(n)
}

// Stat is StatBlob for another member.
func (m *holder) Stat(ctx context.Context, ref oci.Ref) (int64, oci.Provenance, error) {
	wait, cancel := inTime(ctx, ref)
	defer cancel()
	s, known, err := m.f.stat(wait, ref)
	if err == nil && !known {
		s, err = m.f.statUpstream(wait, ref, true)
	}
	return s.Size, s.Provenance, m.f.toMember(ctx, ref, err) // a redirect is the GET's to tell
}

// Tag tells another member what a tag means, for a client's Accept list.
// The Found may lack Bytes.
func (m *holder) Tag(ctx context.Context, ref oci.Ref, accept []string) (*oci.Found, error) {
	found, err := m.f.byTag(ctx, ref, accept, true, true)
	return found, m.f.toMember(ctx, ref, err)
}

// Manifest gets the manifest of ref's digest for another member. terms are
// as FillBlob's.
func (m *holder) Manifest(ctx context.Context, ref oci.Ref, terms mesh.Terms) (*oci.Found, error) {
	if terms.Held {
		found, ok := m.f.kept(ref)
		if !ok || !m.f.gives(ref, terms) {
			return nil, oci.NotHeldError(ref)
		}
		found.Origin = oci.Hit
		return found, nil
	}
	wait, cancel := inTime(ctx, ref)
	defer cancel()
	found, err := m.f.byDigest(wait, ref, false, true)
	return found, m.f.toMember(ctx, ref, err)
}

// Tags is Tags for another member.
func (m *holder) Tags(ctx context.Context, ref oci.Ref, query url.Values) (*oci.Page, error) {
	if m.f.cfg.Policy(ref.Registry).Offline {
		return nil, oci.OfflineError(ref)
	}
	page, err := m.f.cfg.Upstream.Tags(ctx, ref, query)
	return page, m.f.toMember(ctx, ref, err)
}

// Referrers is Referrers for another member.
func (m *holder) Referrers(ctx context.Context, ref oci.Ref, query url.Values) (*oci.Page, error) {
	if m.f.cfg.Policy(ref.Registry).Offline {
		return nil, oci.OfflineError(ref)
	}
	page, err := m.f.cfg.Upstream.Referrers(ctx, ref, query)
	return page, m.f.toMember(ctx, ref, err)
}

// gives reports whether another member may have what is held for ref: if
// nobody knows ref's registry as private, the asker minds that itself, or this
// node would show it too. The registry is not asked: it is the asker's to do.
func (f *Fetcher) gives(ref oci.Ref, terms mesh.Terms) bool { return terms.Vouched || f.vouched(ref) }

// Take takes the blob of ref's registry and digest into the shard from the
// member that offers it; mediaType is that of a manifest, "" for a blob. nil
// means that the shard has it. It makes room as for any blob. What the other
// knows as private, this node gets only if it knows that too.
func (m *holder) Take(ctx context.Context, from mesh.Peer, ref oci.Ref, mediaType string) error {
	store := m.f.cfg.Store(ref.Registry)
	if _, ok := store.Stat(ref.Digest); ok {
		return nil
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	w := m.f.watch(ctx, end, from, ref, 0, true)
	s, err := from.Open(ctx, ref, 0, mesh.Terms{Held: true, Vouched: m.f.cfg.Policy(ref.Registry).Private})
	if err != nil {
		return fmt.Errorf("taking %s from %s: %w", ref.Digest, from.Name(), gaveUp(ctx, from, err))
	}
	if s.Redirect != "" {
		return fmt.Errorf("taking %s: %w", ref.Digest, lied(from, errElsewhere))
	}
	defer func() { _ = s.Body.Close() }() // only read
	w.begin(s.Body)
	if mediaType != "" {
		err = takeManifest(ctx, store, ref, mediaType, s.Size, w)
	} else {
		err = m.f.takeBlob(ctx, store, ref, s.Size, w)
	}
	if err != nil {
		return fmt.Errorf("taking %s from %s: %w", ref.Digest, from.Name(), gaveUp(ctx, from, err))
	}
	return nil
}

// errNoRoom: what was offered would have no place on the disk.
var errNoRoom = errors.New("no room for it here")

// takeBlob reads a blob into the shard.
func (f *Fetcher) takeBlob(ctx context.Context, store *cache.Store, ref oci.Ref, size int64, body io.Reader) error {
	in, err := store.Ingest(ctx, ref.Digest, ref.Registry, "")
	if err != nil {
		return err
	}
	in.SetSize(size)
	if err := f.takeIn(ctx, in, body); err != nil {
		in.Abort(err)
		return err
	}
	return nil
}

// takeIn reads the whole body into the shard.
func (f *Fetcher) takeIn(ctx context.Context, in *cache.Ingest, body io.Reader) error {
	if !in.Keeping() {
		return errNoRoom
	}
	if err := f.copyBody(ctx, in, body); err != nil {
		return err
	}
	if !in.Keeping() {
		return errNoRoom
	}
	return in.Commit()
}

// errNoManifest: what was offered as a manifest can't be one.
var errNoManifest = errors.New("no manifest is of that size")

// takeManifest reads a manifest into the shard. What the member says of its
// type counts only as in typeFrom.
func takeManifest(ctx context.Context, store *cache.Store, ref oci.Ref, mediaType string, size int64, body io.Reader) error {
	if size < 0 || size > cache.MaxManifest {
		return errNoManifest
	}
	content, err := io.ReadAll(io.LimitReader(body, size+1))
	if err != nil {
		return err
	}
	stored, err := store.Put(ctx, ref.Digest, ref.Registry, oci.TypeFrom(mediaType, content), content)
	if err == nil && !stored {
		err = errNoRoom
	}
	return err
}
