package transfer

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/flight"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// manifests gets manifests by their digest.
type manifests struct {
	*rooms
	parts   *parts
	awaited *awaited
	back    *handBack
	// Calls for clients may wait for another node; calls for members must not.
	forClients, forMembers *wait.Calls[manifestKey, *oci.Found]
}

// A manifestKey says which requests share one download of a manifest.
type manifestKey struct {
	registry, repository string
	digest               digest.Digest
}

// keyOf is the key of a request for a digest.
func keyOf(q grants.Request) manifestKey { return manifestKey{q.Registry, q.Repository, q.Digest} }

func newManifests(r *rooms, back *handBack) *manifests {
	return &manifests{
		rooms:      r,
		parts:      newParts(r),
		awaited:    newAwaited(),
		back:       back,
		forClients: wait.NewCalls[manifestKey, *oci.Found](r.life, answerWithin),
		forMembers: wait.NewCalls[manifestKey, *oci.Found](r.life, answerWithin),
	}
}

// byDigest gets a manifest, which can't go stale. member says that another node wants
// it.
func (m *manifests) byDigest(ctx context.Context, q grants.Request, head, member bool) (*oci.Found, error) {
	pass, err := m.grants.Allowed(ctx, q, oci.ManifestResource)
	if err != nil {
		return nil, err
	}
	if found, ok := m.kept(ctx, q, pass); ok {
		return found, nil
	}
	key := keyOf(q)
	if q.Offline { // it may be that nobody can get it anew, so whoever has it is asked
		if found, ok := m.fromHolders(ctx, q); ok {
			return found, nil
		}
	}
	if !member && !m.mesh.Only(q.Registry, q.Digest.String()) {
		return shared(m.forClients.Do(ctx, key, func(ctx context.Context) (*oci.Found, error) { return m.fromOwner(ctx, q, key) }))
	}
	if head {
		if found, err := m.head(ctx, q); found != nil || err != nil {
			return m.orHolders(ctx, q, found, err)
		}
	}
	return m.own(ctx, q, key)
}

// orHolders returns what came of asking for a manifest, unless the registry failed, and did not
// say no: then any node that holds it will do. One may have been late before, or out of the reach
// of those that looked.
func (m *manifests) orHolders(ctx context.Context, q grants.Request, found *oci.Found, err error) (*oci.Found, error) {
	if e, ok := oci.AsError(err); ok && e.LastWordCounts() && ctx.Err() == nil {
		if held, ok := m.fromHolders(ctx, q); ok {
			return held, nil
		}
	}
	return found, err
}

// own gets a manifest by this node's own means, once for all who ask.
func (m *manifests) own(ctx context.Context, q grants.Request, key manifestKey) (*oci.Found, error) {
	return shared(m.forMembers.Do(ctx, key, func(ctx context.Context) (*oci.Found, error) { return m.fromUpstream(ctx, q) }))
}

// shared returns one caller's own copy of what a call gave.
func shared(found *oci.Found, joined bool, err error) (*oci.Found, error) {
	if err != nil {
		return nil, err
	}
	own := *found
	own.Collapsed = own.Collapsed || joined
	return &own, nil
}

// head asks the registry by HEAD. If it returns neither an error nor a Found, the
// registry does not tell what a client's HEAD needs.
func (m *manifests) head(ctx context.Context, q grants.Request) (*oci.Found, error) {
	if q.Offline {
		return nil, nil
	}
	d, found, err := m.stat(ctx, q, oci.ManifestTypes)
	switch {
	case err != nil || found != nil:
		return found, err
	case d.Size >= 0 && oci.ToldType(d.MediaType) != oci.Untold:
		return &oci.Found{
			Manifest: oci.Manifest{Digest: q.Digest, MediaType: d.MediaType, By: d.By}, Size: d.Size, Provenance: oci.Provenance{Host: q.Registry},
		}, nil
	default:
		return nil, nil
	}
}

// stat asks the registry by HEAD what q means. It returns the manifest, too, if it took a
// GET to learn that.
func (m *manifests) stat(ctx context.Context, q grants.Request, accept []string) (d oci.Descriptor, found *oci.Found, err error) {
	asked, claim := time.Now(), m.memory.Claim()
	ctx = m.grants.WithMirrors(ctx, q, oci.ManifestResource)
	d, err = m.upstream.Stat(wait.WithClaim(ctx, claim), q.Ref, false, accept)
	if err != nil || d.Manifest == nil {
		claim.Release()
		return d, nil, err
	}
	found, err = m.take(ctx, q, *d.Manifest, asked, claim)
	return d, found, err
}

// fromOwner gets a manifest from the first node on its route that has it or gets it, or else
// from any that holds it.
func (m *manifests) fromOwner(ctx context.Context, q grants.Request, key manifestKey) (*oci.Found, error) {
	looked := false // at the holders
	found, err := mesh.Along(ctx, m.mesh, q.Ref, q.Digest.String(),
		func(ctx context.Context) (*oci.Found, error) {
			looked = true
			return m.own(ctx, q, key)
		},
		func(ctx context.Context, p mesh.Peer) (*oci.Found, error) { return m.fromPeer(ctx, p, q, mesh.Terms{}) })
	if looked {
		return found, err
	}
	return m.orHolders(ctx, q, found, err)
}

// fromPeer gets a manifest from another node and keeps it.
func (m *manifests) fromPeer(ctx context.Context, p mesh.Peer, q grants.Request, terms mesh.Terms) (*oci.Found, error) {
	claim, err := m.claim(ctx, q.Registry)
	if err != nil {
		return nil, err
	}
	found, err := p.Manifest(wait.WithClaim(ctx, claim), q.Ref, terms)
	if errors.Is(err, wait.ErrFull) {
		err = oci.BusyError(q.Registry, wait.ErrFull)
	}
	if err != nil {
		claim.Release()
		return nil, err
	}
	found.MediaType = oci.KeptType(found.MediaType, found.Bytes)
	if terms.Held {
		found.At = m.grants.At(q, oci.ManifestResource) // nobody asked the registry for this
	}
	found.Size = int64(len(found.Bytes))
	stored, err := m.keep(ctx, q, &found.Manifest, found.At)
	if err != nil {
		claim.Release()
		return nil, mesh.Lied(p, err)
	}
	m.hand(q, found, stored, claim)
	return found, nil
}

// fromUpstream gets a manifest for all who ask: from another node that holds it
// although it is not its owner, or else from the registry.
func (m *manifests) fromUpstream(ctx context.Context, q grants.Request) (*oci.Found, error) {
	if found, ok := m.kept(ctx, q, m.grants.Recent(q, oci.ManifestResource)); ok { // it came since we looked
		return found, nil
	}
	if found, ok := m.fromHolders(ctx, q); ok {
		return found, nil
	}
	found, err := m.fetch(ctx, q, oci.ManifestTypes)
	return m.orHolders(ctx, q, found, err)
}

// fromHolders gets a manifest from a node that holds it. Such a node asks nobody: it
// would wait for this one.
func (m *manifests) fromHolders(ctx context.Context, q grants.Request) (*oci.Found, bool) {
	shown := false
	return m.fromNodes(ctx, q, func(yield func(mesh.Peer) bool) {
		for p := range m.holders(ctx, q) {
			if shown = shown || m.grants.MayShow(ctx, q, oci.ManifestResource); !shown || !yield(p) {
				return
			}
		}
	})
}

// holders returns the nodes that hold a manifest, or can be followed.
func (m *manifests) holders(ctx context.Context, q grants.Request) iter.Seq[mesh.Peer] {
	if q.Offline {
		return m.mesh.Held(ctx, q.Ref, m.mesh.Members())
	}
	return m.mesh.Peek(ctx, q.Ref, m.flights.Candidates(ctx, q.Content()))
}

// fromNodes gets a manifest from one of the nodes that hold it. Whether it may be served
// for q is for the caller to see.
func (m *manifests) fromNodes(ctx context.Context, q grants.Request, nodes iter.Seq[mesh.Peer]) (*oci.Found, bool) {
	terms := mesh.Terms{Held: true, Vouched: q.Private}
	for p := range nodes {
		found, err := mesh.Tend(ctx, m.mesh, p, q.Ref, func(ctx context.Context, p mesh.Peer) (*oci.Found, error) { return m.fromPeer(ctx, p, q, terms) })
		if err == nil {
			return found, true
		}
		m.mesh.PassOver(ctx, q.Ref, p, err)
	}
	return nil, false
}

// kept returns the manifest that the pass opens, if there is one and the shard has it.
func (m *manifests) kept(ctx context.Context, q grants.Request, pass *grants.Pass) (*oci.Found, bool) {
	return m.keptAt(ctx, q, pass, time.Time{})
}

// keptAt is kept for a manifest that q's registry vouched for at that time, and so for
// what it lists.
func (m *manifests) keptAt(ctx context.Context, q grants.Request, pass *grants.Pass, at time.Time) (*oci.Found, bool) {
	if pass == nil {
		return nil, false
	}
	held, err := pass.Manifest()
	if err != nil {
		return nil, false
	}
	m.parts.see(ctx, q, pass, held, at)
	found := &oci.Found{
		Manifest:   oci.Manifest{Digest: q.Digest, MediaType: held.MediaType, Bytes: held.Content},
		Provenance: oci.Provenance{Origin: oci.Hit, At: pass.At()}, Size: held.Size,
	}
	if held.Content == nil {
		found.Open = func() (oci.Body, error) { return pass.Blob() }
	}
	return found, true
}

// fetch gets a manifest from upstream and keeps it.
func (m *manifests) fetch(ctx context.Context, q grants.Request, accept []string) (*oci.Found, error) {
	claim, err := m.claim(ctx, q.Registry)
	if err != nil {
		return nil, err
	}
	ctx = m.grants.WithMirrors(ctx, q, oci.ManifestResource)
	asked := time.Now()
	got, err := m.ask(wait.WithClaim(ctx, claim), q, accept)
	if err != nil {
		claim.Release()
		return nil, err
	}
	return m.take(ctx, q, got, asked, claim)
}

// ask asks upstream for a manifest, or the archive alone if upstream is never to be asked.
func (m *manifests) ask(ctx context.Context, q grants.Request, accept []string) (oci.Manifest, error) {
	if q.Offline {
		return m.archive.KeptManifest(ctx, q.Ref)
	}
	return m.upstream.Manifest(ctx, q.Ref, accept)
}

// take keeps a manifest that upstream was asked for at that time. claim is of its memory.
func (m *manifests) take(ctx context.Context, q grants.Request, got oci.Manifest, asked time.Time, claim *wait.Claim) (*oci.Found, error) {
	q.Digest, got.MediaType = got.Digest, oci.KeptType(got.MediaType, got.Bytes)
	asked = q.When(oci.ManifestResource, got.By, asked)
	stored, err := m.keep(ctx, q, &got, asked)
	if err != nil {
		claim.Release()
		return nil, &oci.Error{Kind: oci.Corrupt, Registry: q.Registry, By: got.By, Reason: flight.WrongBytes, Err: err}
	}
	found := &oci.Found{Manifest: got, Size: int64(len(got.Bytes)), Provenance: oci.Provenance{Stored: stored, Host: q.Registry, At: asked}}
	m.hand(q, found, stored, claim)
	if stored {
		m.back.offer(q, got.MediaType)
	}
	return found, nil
}

// firstClaim is how much memory is claimed before anybody is asked for a manifest: who
// has to wait for memory does so before somebody waits for it to read on.
const firstClaim = 16 << 10

// claim returns a claim for a manifest that is about to come.
func (m *manifests) claim(ctx context.Context, registry string) (*wait.Claim, error) {
	c := m.memory.Claim()
	err := c.Grow(ctx, firstClaim)
	if errors.Is(err, wait.ErrFull) {
		err = oci.BusyError(registry, err)
	}
	return c, err
}

// large is the size from which on a manifest's bytes don't stay in memory with each
// answer.
const large = 64 << 10

// hand decides where the answers find the bytes of a manifest that came: a large one in
// the shard, or else in a lease.
func (m *manifests) hand(q grants.Request, found *oci.Found, stored bool, claim *wait.Claim) {
	if found.Size <= large {
		claim.Release()
		return
	}
	if pass := m.grants.Recent(q, oci.ManifestResource); stored && pass != nil {
		claim.Release()
		found.Bytes, found.Open = nil, func() (oci.Body, error) { return pass.Blob() }
		return
	}
	found.Open = newLease(found.Bytes, claim).open
}

// keep puts a manifest that came for q into the shard; at is when the registry vouched
// for it. The error says that it is not what q's digest names.
func (m *manifests) keep(ctx context.Context, q grants.Request, got *oci.Manifest, at time.Time) (stored bool, err error) {
	if stored, err = m.put(ctx, q, got, at); err == nil {
		m.awaited.came(q)
	}
	return stored, err
}

// put is keep, but for the tags that wait for the manifest.
func (m *manifests) put(ctx context.Context, q grants.Request, got *oci.Manifest, at time.Time) (stored bool, err error) {
	is := q.Digest.Algorithm().FromBytes(got.Bytes)
	if is != q.Digest && !oci.Matches(q.Digest, got.Bytes) {
		return false, fmt.Errorf("%w: want %s, got %s", cache.ErrDigest, q.Digest, is)
	}
	origin, held := q.Shard.Origin(q.Digest)
	if is != q.Digest { // a signed one: a file holds exactly what its name says, so it has none
		m.grants.Grant(q, oci.ManifestResource, at)
		return false, nil
	}
	if !held || origin == q.Registry || oci.TypeAgrees(got.MediaType, got.Bytes) {
		if stored, err = q.Shard.PutOf(ctx, q.Digest, q.Registry, q.Repository, got.MediaType, got.Bytes); err != nil {
			return false, err
		}
	}
	m.grants.Delivered(q, oci.ManifestResource, at)
	m.grants.GrantParts(q, got.MediaType, got.Bytes, at)
	m.sizes.Learn(q.Registry, q.Digest, got.MediaType, got.Bytes)
	if stored && (m.mesh.Leads(q.Registry, q.Digest.String()) || q.Tag != "" && m.mesh.Leads(q.Registry, placeOf(q.Ref))) {
		m.archive.Offer(grants.Kept(m.grants, q, oci.ManifestResource, got.MediaType, int64(len(got.Bytes))))
	}
	return stored, nil
}
