package oci

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"
)

// A Kept is content that this node has verified and holds, offered to an Archive.
type Kept struct {
	Ref
	MediaType string // of a manifest, "" for a blob
	Size      int64  // in bytes
	Private   bool   // its registry is private
	// Open opens it. It fails if the node does not hold it any more, or must not show it
	// any more.
	Open func() (Body, error)
}

// A TagWord is what a tag of a public registry meant when that was asked.
type TagWord struct {
	Registry   string        `json:"registry"`
	Repository string        `json:"repository"`
	Tag        string        `json:"tag"`
	Key        string        `json:"key"` // what it is asked for by: it depends on more than the tag
	Digest     digest.Digest `json:"digest"`
	MediaType  string        `json:"media_type"`
	Size       int64         `json:"size"`
	Checked    time.Time     `json:"checked"`
}

// An Archive keeps content outside of the cluster. Its methods may be called from any
// goroutine.
type Archive interface {
	// Offer offers content to be kept. It returns at once. Nobody hears whether it is kept.
	Offer(k Kept)
	// OpenKept is Upstream.Open for a registry that is not to be asked. Only what the
	// archive has counts; if it has nothing, or mirrors must not answer (see WithMirrors),
	// the error is OfflineError.
	OpenKept(ctx context.Context, ref Ref, offset int64) (*Stream, error)
	// KeptManifest is Upstream.Manifest for a registry that is not to be asked, as OpenKept.
	KeptManifest(ctx context.Context, ref Ref) (Manifest, error)
	// OfferTag offers what a tag means, as Offer does.
	OfferTag(w TagWord)
	// LastTag returns what was last offered by that key, by any node with the same secret.
	LastTag(ctx context.Context, key string) (TagWord, bool)
}

// NoArchive is the Archive of a node that has none.
type NoArchive struct{}

// Offer implements Archive.
func (NoArchive) Offer(Kept) {}

// OfferTag implements Archive.
func (NoArchive) OfferTag(TagWord) {}

// LastTag implements Archive.
func (NoArchive) LastTag(context.Context, string) (TagWord, bool) { return TagWord{}, false }

// OpenKept implements Archive.
func (NoArchive) OpenKept(_ context.Context, ref Ref, _ int64) (*Stream, error) {
	return nil, OfflineError(ref)
}

// KeptManifest implements Archive.
func (NoArchive) KeptManifest(_ context.Context, ref Ref) (Manifest, error) {
	return Manifest{}, OfflineError(ref)
}
