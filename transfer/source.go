package transfer

import (
	"context"
	"io"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"
)

// A Ref names a blob, a manifest or a repository of a registry.
type Ref struct {
	Registry   string        // canonical host[:port], for example "registry-1.docker.io"
	Repository string        // as upstream knows it, for example "library/nginx"
	Tag        string        // of a manifest asked for by tag, else ""
	Digest     digest.Digest // of a blob, or of a manifest asked for by digest, else ""
}

// A Source can open a blob: upstream, or (in a mesh) a peer.
type Source interface {
	// Open returns the blob's bytes from offset on. It returns as soon as the
	// answer's header is there; errors are *Error, at the latest after 40 s.
	// ctx bounds the whole stream, not only the header.
	Open(ctx context.Context, ref Ref, offset int64) (*Stream, error)
}

// A Stream is a blob on its way to us, from some offset on.
type Stream struct {
	Body     io.ReadCloser
	Offset   int64     // where Body begins: what was asked for, or 0 from a source that ignores Range
	Size     int64     // of the whole blob, -1 where the source does not tell
	Host     string    // the host the bytes come from, for the log; a peer's name
	Hit      bool      // it comes from a peer's shard
	At       time.Time // as a Way's
	Via      string    // Cache-Status of the nodes passed, "" from upstream
	Redirect string    // set, and Body nil, where the registry's redirects go to the client (follow_redirects: false)
}

// A Descriptor is what a HEAD tells.
type Descriptor struct {
	Digest    digest.Digest // "" where upstream does not tell a valid one
	MediaType string        // exactly as upstream sent it
	Size      int64         // -1 where upstream does not tell
	Redirect  string        // of a blob: where the registry sends the client (follow_redirects: false); nothing else is told then
}

// A Manifest is a manifest's bytes, exactly as upstream sent them.
type Manifest struct {
	Digest    digest.Digest // of Bytes, computed by us
	MediaType string        // exactly as upstream sent it
	Bytes     []byte
}

// A Page is upstream's answer to a listing (tags, referrers).
type Page struct {
	MediaType string
	Bytes     []byte
	Next      url.Values // the query of the Link to the next page, nil on the last one
	Filters   string     // OCI-Filters-Applied
}

// An Upstream is all that is asked of registries. Its methods build each
// request from the fields given and from nothing else; their errors are
// *Error; each returns within 40 s (Open: its header), retries included.
type Upstream interface {
	Source
	// Stat asks by HEAD: for a blob if blob is set, else for the manifest that
	// ref's tag or digest names, with accept as the Accept list. A registry
	// that does not offer HEAD gives an *Error of kind Invalid with Status 405 or 501.
	Stat(ctx context.Context, ref Ref, blob bool, accept []string) (Descriptor, error)
	// Manifest gets the manifest that ref's digest or else tag names, at most
	// 4 MiB. If ref.Digest is set the bytes are checked against it.
	Manifest(ctx context.Context, ref Ref, accept []string) (Manifest, error)
	// Tags gets a page of the repository's tags, at most 32 MiB.
	Tags(ctx context.Context, ref Ref, query url.Values) (*Page, error)
	// Referrers gets a page of the manifests that refer to ref.Digest, at most 4 MiB.
	Referrers(ctx context.Context, ref Ref, query url.Values) (*Page, error)
}
