package oci

import (
	"context"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
)

// A Span is the bytes [Offset, Offset+Length) of a blob.
type Span struct{ Offset, Length int64 }

// End returns the offset of the byte after the span.
func (s Span) End() int64 { return s.Offset + s.Length }

// A Stream is a blob on its way to this node, from some offset on.
type Stream struct {
	Body     io.ReadCloser
	Offset   int64     // where Body begins: as asked, or 0 if the source ignores Range
	Size     int64     // of the whole blob, -1 if the source does not tell
	Host     string    // the host that sends the bytes, for the log; of a peer its name
	By       Party     // who sends the bytes
	Coding   string    // what is odd about their encoding, "" if nothing is: only the digest can tell whether they are right
	Hit      bool      // a peer sends it from its shard
	At       time.Time // as Provenance.At
	Relay    string    // the member whose way out was taken, "" for this node's own
	Via      string    // Cache-Status of the nodes passed, "" from upstream
	Archived bool      // it comes from the archive
	Redirect string    // where the registry sends the client (follow_redirects: false); Body is nil then
	// Feeding says who sends the rest, of a large blob that a member gives. If it names a
	// feeder, Body is nil.
	Feeding Feeding
	// Wrong is told if the whole blob came out wrong to which the stream contributed, and
	// whether all of the blob is from it. nil: the source is the registry, or does not care.
	Wrong func(all bool)
}

// A Descriptor is the answer to a HEAD.
type Descriptor struct {
	Digest    digest.Digest // "" if upstream tells no valid one
	MediaType string        // exactly as upstream sent it
	Size      int64         // -1 if upstream does not tell
	By        Party         // who answered
	Redirect  string        // of a blob: where the registry sends the client (follow_redirects: false); nothing else is known then
	Manifest  *Manifest     // set if it took a GET to learn this; MediaType and Size are its own then
}

// A Manifest is a manifest's bytes, exactly as upstream sent them.
type Manifest struct {
	Digest    digest.Digest // of Bytes, computed by this node; of what was signed, as Matches says
	MediaType string        // exactly as upstream sent it; once this node has taken it in, its KeptType
	Bytes     []byte
	By        Party // who sent it
}

// An Upstream asks registries. Each method builds its request from the fields it
// is given and nothing else. Errors are *Error, unless it says otherwise. Each method returns within 40 s,
// retries included; Open and Range return within that time once the header is there.
type Upstream interface {
	// Open returns the blob's bytes from offset on. ctx bounds the whole stream,
	// not only the header.
	Open(ctx context.Context, ref Ref, offset int64) (*Stream, error)
	// Range returns the bytes of span and no others, for a span of at least one byte
	// that lies within the blob. If the registry answers with the whole instead, or
	// knows no such bytes, the *Error is of kind Invalid. ctx bounds the whole stream.
	Range(ctx context.Context, ref Ref, span Span) (*Stream, error)
	// Stat asks by HEAD: for a blob if blob is set, else for the manifest that
	// ref's tag or digest names, with accept as the Accept list. What HEAD does not
	// tell, a GET does: its error is final. Of a tag the digest is always told.
	Stat(ctx context.Context, ref Ref, blob bool, accept []string) (Descriptor, error)
	// Manifest gets the manifest that ref's digest or else its tag names, at most
	// 4 MiB. If ref has a digest, the bytes are checked against it.
	Manifest(ctx context.Context, ref Ref, accept []string) (Manifest, error)
	// Tags gets a page of the repository's tags, at most 32 MiB. Its bytes go to to; if
	// that fails, its error is returned as it is.
	Tags(ctx context.Context, ref Ref, query Query, to Sink) (*Page, error)
	// Referrers gets a page of the manifests that refer to ref.Digest, at most 4 MiB, as
	// Tags does.
	Referrers(ctx context.Context, ref Ref, query Query, to Sink) (*Page, error)
}
