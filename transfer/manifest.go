package transfer

import (
	"context"
	"fmt"
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
	// Calls for clients may wait for another node; calls for members must not.
	forClients, forMembers *wait.Calls[manifestKey, *oci.Found]
}

// A manifestKey says which requests share one download of a manifest.
type manifestKey struct {
	registry, repository string
	digest               digest.Digest
}

func newManifests(r *rooms) *manifests {
	return &manifests{
		rooms:      r,
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
	if found, ok := m.kept(q, pass); ok {
		return found, nil
	}
	key := manifestKey{q.Registry, q.Repository, q.Digest}
	if !member && !m.mesh.Only(q.Registry, q.Digest.String()) {
		return shared(m.forClients.Do(ctx, key, func(ctx context.Context) (*oci.Found, error) { return m.fromOwner(ctx, q, key) }))
	}
	if head {
		if found, err := m.head(ctx, q); found != nil || err != nil {
			return found, err
		}
	}
	return m.own(ctx, q, key)
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
		return nil, oci.OfflineError(q.Ref)
	}
	asked := time.Now()
	d, err := m.upstream.Stat(ctx, q.Ref, false, oci.ManifestTypes)
	switch {
	case err != nil:
		return nil, err
	case d.Manifest != nil:
		return m.take(ctx, q, *d.Manifest, asked)
	case d.Size >= 0 && oci.ToldType(d.MediaType) != oci.Untold:
		return &oci.Found{
			Manifest: oci.Manifest{Digest: q.Digest, MediaType: d.MediaType, By: d.By}, Size: d.Size, Provenance: oci.Provenance{Host: q.Registry},
		}, nil
	default:
		return nil, nil
	}
}

// fromOwner gets a manifest from the first node on its route that has it or gets it.
func (m *manifests) fromOwner(ctx context.Context, q grants.Request, key manifestKey) (*oci.Found, error) {
	return mesh.Along(ctx, m.mesh, q.Ref, q.Digest.String(),
		func(ctx context.Context) (*oci.Found, error) { return m.own(ctx, q, key) },
		func(ctx context.Context, p mesh.Peer) (*oci.Found, error) { return m.fromPeer(ctx, p, q, mesh.Terms{}) })
}

// fromPeer gets a manifest from another node and keeps it.
func (m *manifests) fromPeer(ctx context.Context, p mesh.Peer, q grants.Request, terms mesh.Terms) (*oci.Found, error) {
	found, err := p.Manifest(ctx, q.Ref, terms)
	if err != nil {
		return nil, err
	}
	found.MediaType = oci.KeptType(found.MediaType, found.Bytes)
	if terms.Held {
		found.At = m.grants.At(q, oci.ManifestResource) // nobody asked the registry for this
	}
	if _, err := m.keep(ctx, q, &found.Manifest, found.At); err != nil {
		return nil, mesh.Lied(p, err)
	}
	found.Size = int64(len(found.Bytes))
	return found, nil
}

// fromUpstream gets a manifest for all who ask: from another node that holds it
// although it is not its owner, or else from the registry.
func (m *manifests) fromUpstream(ctx context.Context, q grants.Request) (*oci.Found, error) {
	if found, ok := m.kept(q, m.grants.Recent(q, oci.ManifestResource)); ok { // it came since we looked
		return found, nil
	}
	if found, ok := m.fromHolders(ctx, q); ok {
		return found, nil
	}
	if q.Offline {
		return nil, oci.OfflineError(q.Ref)
	}
	return m.fetch(ctx, q, oci.ManifestTypes)
}

// fromHolders gets a manifest from a node that holds it. Such a node asks nobody: it
// would wait for this one.
func (m *manifests) fromHolders(ctx context.Context, q grants.Request) (*oci.Found, bool) {
	nodes := m.holders(ctx, q)
	if len(nodes) == 0 || !m.grants.MayShow(ctx, q, oci.ManifestResource) {
		return nil, false
	}
	return m.fromNodes(ctx, q, nodes)
}

// holders returns the nodes that hold a manifest, or can be followed.
func (m *manifests) holders(ctx context.Context, q grants.Request) []mesh.Peer {
	return m.mesh.Peek(ctx, q.Ref, m.flights.Candidates(q.Content()))
}

// fromNodes gets a manifest from one of the nodes that hold it. Whether it may be served
// for q is for the caller to see.
func (m *manifests) fromNodes(ctx context.Context, q grants.Request, nodes []mesh.Peer) (*oci.Found, bool) {
	terms := mesh.Terms{Held: true, Vouched: q.Private}
	for _, p := range nodes {
		found, err := mesh.Tend(ctx, m.mesh, p, q.Ref, func(ctx context.Context, p mesh.Peer) (*oci.Found, error) { return m.fromPeer(ctx, p, q, terms) })
		if err == nil {
			return found, true
		}
		m.mesh.PassOver(q.Ref, p, err)
	}
	return nil, false
}

// kept returns the manifest that the pass opens, if there is one and the shard has it.
func (m *manifests) kept(q grants.Request, pass *grants.Pass) (*oci.Found, bool) {
	if pass == nil {
		return nil, false
	}
	content, mediaType, err := pass.Manifest()
	if err != nil {
		return nil, false
	}
	m.sizes.Learn(q.Registry, q.Digest, mediaType, content)
	return &oci.Found{
		Manifest:   oci.Manifest{Digest: q.Digest, MediaType: mediaType, Bytes: content},
		Provenance: oci.Provenance{Origin: oci.Hit, At: pass.At()}, Size: int64(len(content)),
	}, true
}

// fetch gets a manifest from upstream and keeps it.
func (m *manifests) fetch(ctx context.Context, q grants.Request, accept []string) (*oci.Found, error) {
	asked := time.Now()
	got, err := m.upstream.Manifest(ctx, q.Ref, accept)
	if err != nil {
		return nil, err
	}
	return m.take(ctx, q, got, asked)
}

// take keeps a manifest that upstream was asked for at that time.
func (m *manifests) take(ctx context.Context, q grants.Request, got oci.Manifest, asked time.Time) (*oci.Found, error) {
	q.Digest, got.MediaType = got.Digest, oci.KeptType(got.MediaType, got.Bytes)
	stored, err := m.keep(ctx, q, &got, asked)
	if err != nil {
		return nil, &oci.Error{Kind: oci.Corrupt, Registry: q.Registry, By: got.By, Reason: flight.WrongBytes, Err: err}
	}
	return &oci.Found{Manifest: got, Size: int64(len(got.Bytes)), Provenance: oci.Provenance{Stored: stored, Host: q.Registry, At: asked}}, nil
}

// keep puts a manifest that came for q into the shard; at is when the registry vouched
// for it. The error says that it is not what q's digest names.
func (m *manifests) keep(ctx context.Context, q grants.Request, got *oci.Manifest, at time.Time) (stored bool, err error) {
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
		if stored, err = q.Shard.Put(ctx, q.Digest, q.Registry, got.MediaType, got.Bytes); err != nil {
			return false, err
		}
	}
	m.grants.Delivered(q, oci.ManifestResource, at)
	m.grants.GrantParts(q, got.MediaType, got.Bytes, at)
	m.sizes.Learn(q.Registry, q.Digest, got.MediaType, got.Bytes)
	return stored, nil
}
