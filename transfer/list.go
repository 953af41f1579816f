package transfer

import (
	"context"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// Tags gets a page of upstream's list of the repository's tags. Errors are *oci.Error,
// or ctx's, and come within 40 s.
func (f *Fetcher) Tags(ctx context.Context, ref oci.Ref, query oci.Query) (*oci.Page, error) {
	return f.list(ctx, ref,
		func(ctx context.Context) (*oci.Page, error) { return f.upstream.Tags(ctx, ref, query) },
		func(ctx context.Context, p mesh.Peer) (*oci.Page, error) { return p.Tags(ctx, ref, query) })
}

// Referrers gets a page of upstream's list of manifests that refer to ref.Digest. Errors
// are as for Tags.
func (f *Fetcher) Referrers(ctx context.Context, ref oci.Ref, query oci.Query) (*oci.Page, error) {
	return f.list(ctx, ref,
		func(ctx context.Context) (*oci.Page, error) { return f.upstream.Referrers(ctx, ref, query) },
		func(ctx context.Context, p mesh.Peer) (*oci.Page, error) { return p.Referrers(ctx, ref, query) })
}

// list gets a page from the registry, by own or through another node. A refusal says
// nothing about the right to pull: some roles may pull and not list.
func (f *Fetcher) list(ctx context.Context, ref oci.Ref, own func(context.Context) (*oci.Page, error), ask func(context.Context, mesh.Peer) (*oci.Page, error)) (*oci.Page, error) {
	limited, cancel := inTime(ctx, ref) // for all nodes that are asked together
	defer cancel()
	page, err := mesh.Direct(limited, f.mesh, ref, func(ctx context.Context) (*oci.Page, error) {
		if f.site(ref.Registry).Offline {
			return nil, oci.OfflineError(ref)
		}
		return own(ctx)
	}, ask)
	return page, explain(ctx, ref, "", err)
}
