package grants

import (
	"context"
	"time"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// ask asks a private registry whether the repository has the digest, and returns
// since when it is known to. Zero means that the registry has to deliver it.
func (g *Grants) ask(ctx context.Context, q Request, as oci.Resource) (at time.Time, err error) {
	own := func(ctx context.Context) (time.Time, error) {
		asked := time.Now()
		d, err := g.cfg.Upstream.Stat(ctx, q.Ref, as == oci.BlobResource, oci.ManifestTypes)
		if err == nil && !fits(d, q) {
			return time.Time{}, nil
		}
		return asked, err
	}
	at, _, err = g.asking.Do(ctx, question{ref: q.Ref, resource: as, member: q.Member}, func(ctx context.Context) (time.Time, error) {
		if q.Member {
			return own(ctx)
		}
		return mesh.Direct(ctx, g.cfg.Mesh, q.Ref, own, func(ctx context.Context, p mesh.Peer) (time.Time, error) {
			return askPeer(ctx, p, q.Ref, as)
		})
	})
	last := g.At(q, as)
	switch {
	case err == nil && !at.IsZero():
		g.Grant(q, as, at)
		return at, nil
	case err == nil && within(last, q.StaleIfError):
		return last, nil // the registry could not be asked
	case err == nil:
		return time.Time{}, nil // nobody vouches for it, so the GET decides
	}
	err = oci.Lateness(q.Ref, err)
	e, isError := oci.AsError(err)
	if !isError || !e.LastWordCounts() {
		return time.Time{}, err
	}
	if !within(last, q.StaleIfError) {
		last = askMembers(ctx, g, q, as)
	}
	if within(last, q.StaleIfError) {
		return last, nil
	}
	return time.Time{}, err
}

// fits reports whether an answer to HEAD can be the registry's word on q: a portal's
// page is not, and neither is what tells of other content than the shard holds.
func fits(d oci.Descriptor, q Request) bool {
	size, held := q.Shard.Stat(q.Digest)
	return d.By != oci.Middlebox && (d.Digest == "" || d.Digest == q.Digest) && (!held || d.Size <= 0 || d.Size == size)
}

// askPeer asks another node, which may ask the registry, whether that vouches.
func askPeer(ctx context.Context, p mesh.Peer, ref oci.Ref, as oci.Resource) (time.Time, error) {
	asked := time.Now()
	var how oci.Provenance
	if as == oci.BlobResource {
		var err error
		if _, how, err = p.Stat(ctx, ref); err != nil {
			return time.Time{}, err
		}
	} else {
		found, err := p.Manifest(ctx, ref, mesh.Terms{})
		if err != nil {
			return time.Time{}, err
		}
		how = found.Provenance
	}
	if how.At.IsZero() && how.Origin == oci.Miss {
		return asked, nil // the peer asked the registry for this answer
	}
	return how.At, nil
}

// membersWithin is how long members are asked in the registry's place: the client may have
// waited for the registry already.
const membersWithin = 5 * time.Second

// askMembers returns when the registry vouched for q, as the members that hold its content
// know: the registry cannot or must not be asked. Zero means that none of them knows, or that
// a refusal is newer.
func askMembers(ctx context.Context, g *Grants, q Request, as oci.Resource) time.Time {
	if q.Member {
		return time.Time{}
	}
	at, _, _ := g.asking.Do(ctx, question{ref: q.Ref, resource: as, instead: true}, func(ctx context.Context) (time.Time, error) {
		ctx, cancel := context.WithTimeout(ctx, membersWithin)
		defer cancel()
		for p := range g.cfg.Mesh.Held(ctx, q.Ref, g.cfg.Mesh.Members()) {
			if at, err := lastWord(ctx, p, q.Ref, as); err == nil && !at.IsZero() {
				return at, nil
			}
		}
		return time.Time{}, nil
	})
	g.Grant(q, as, at)
	return g.At(q, as)
}

// lastWord returns when the registry vouched for ref, as a member that holds its content
// knows by itself.
func lastWord(ctx context.Context, p mesh.Peer, ref oci.Ref, as oci.Resource) (time.Time, error) {
	asked := time.Now()
	known, err := p.Progress(ctx, ref)
	ago := known.Manifest
	if as == oci.BlobResource {
		ago = known.Blob
	}
	if err != nil || ago <= 0 {
		return time.Time{}, err
	}
	return asked.Add(-time.Duration(min(ago, longAgo)) * time.Millisecond), nil
}

// longAgo is further back than any answer counts, in milliseconds.
const longAgo = 100 * 365 * 24 * 3600 * 1000
