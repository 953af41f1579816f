package mesh

import (
	"context"
	"io"

	"oci-proxy/transfer/oci"
)

// A Holder is this node as the other members see it. No method makes a third node
// get anything: this node asks the registry, and others only for what they hold or
// are getting from it. So no loop can form, whatever the members believe about the
// ring. Errors are *oci.Error if the registry failed;
// any other error is this node's own failure.
type Holder interface {
	// Blob opens a blob. If terms ask for held content, the blob must be in the
	// shard, or on its way from the registry in a way that the member of the id
	// asker may follow; otherwise the *oci.Error is of kind NotFound.
	Blob(ctx context.Context, ref oci.Ref, terms Terms, asker string) (*Given, error)
	// Stat returns a blob's size, -1 if the registry does not tell.
	Stat(ctx context.Context, ref oci.Ref) (int64, oci.Provenance, error)
	// Tag returns what a tag means, for a client's Accept list. The Found may lack
	// Bytes.
	Tag(ctx context.Context, ref oci.Ref, accept []string) (*oci.Found, error)
	// Manifest gets the manifest of ref's digest. terms are as for Blob.
	Manifest(ctx context.Context, ref oci.Ref, terms Terms) (*oci.Found, error)
	// Tags gets a page of the registry's tags of the repository.
	Tags(ctx context.Context, ref oci.Ref, query oci.Query) (*oci.Page, error)
	// Referrers gets a page of the manifests that refer to ref.Digest.
	Referrers(ctx context.Context, ref oci.Ref, query oci.Query) (*oci.Page, error)
	// Presence answers the Peek of the member of the id asker, and notes that the
	// member is about to get the blob.
	Presence(ref oci.Ref, asker string) Presence
	// Progress returns how far this node is with the blob.
	Progress(ref oci.Ref) Progress
	// Take takes the blob that another member offers, as Peer.Offer says.
	Take(ctx context.Context, from Peer, ref oci.Ref, mediaType string) error
	// Refused hears that the registry refused another member ref's repository.
	Refused(ref oci.Ref)
	// Lost hears that the registry told another member that it does not have what
	// ref's digest, as that resource, or ref's tag names.
	Lost(ref oci.Ref, as oci.Resource)
}

// Given is a blob that a node gives to another member. Close it.
type Given struct {
	oci.Provenance
	Redirect string // where the registry sends the client; nothing can be sent then
	Blob
}

// A Blob can be sent from any offset. Its methods are those of cache.Blob.
type Blob interface {
	Size() int64
	Send(ctx context.Context, w io.Writer, off, n int64) (int64, error)
	Close() error
}
