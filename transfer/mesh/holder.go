package mesh

import (
	"context"
	"errors"
	"io"
	"time"

	"oci-proxy/transfer/oci"
)

// ErrUnwanted says that a node has no room for what it need not have.
var ErrUnwanted = errors.New("this node has other use for its room")

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
	// List gets a page of the registry's tags of the repository, or of the manifests that
	// refer to q.Digest. Close it.
	List(ctx context.Context, q oci.Question) (*List, error)
	// Kept opens the page that is the registry's last answer to q as this node knows it,
	// if it may be served. The *oci.Error is of kind NotFound if there is none. Close it.
	Kept(q oci.Question) (*List, error)
	// LastWord tells what this node knows of the registry's last answer to q.
	LastWord(q oci.Question) (Word, bool)
	// Presence answers the Peek of the member of the id asker, and notes that the
	// member is about to get the blob.
	Presence(ref oci.Ref, asker string) Presence
	// Progress returns how far this node is with the blob.
	Progress(ref oci.Ref) Progress
	// Report is Progress for the member of the id asker, which tells how far it is itself.
	Report(ref oci.Ref, how Report, asker string) Progress
	// Take takes the blob that another member offers, as Peer.Offer says.
	Take(ctx context.Context, from Peer, ref oci.Ref, mediaType string) error
	// TakeCopy is Take for a blob that another member holds and goes on holding: slowly,
	// and only into room that nothing else needs. If there is none for so many bytes (0: the
	// member does not tell) the error is ErrUnwanted.
	TakeCopy(ctx context.Context, from Peer, ref oci.Ref, mediaType string, size int64) error
	// Refused hears that the registry refused another member ref's repository.
	Refused(ref oci.Ref)
	// Lost hears that the registry told another member that it does not have what
	// ref's digest, as that resource, or ref's tag names.
	Lost(ref oci.Ref, as oci.Resource)
	// Told hears that the registry answered q at another member, and keeps the answer
	// too, soon. It returns at once.
	Told(from Peer, q oci.Question)
}

// A List is a page that a node gives to another member. Close it.
type List struct {
	oci.Page
	oci.Provenance
	Sheet
}

// A Sheet is a page's bytes. Its methods are those of pages.Sheet.
type Sheet interface {
	// Describe returns how many bytes they are, and their SHA-256 in hexadecimal.
	Describe() (size int64, sum string)
	Send(w io.Writer) error
	Close() error
}

// A Word is what a node knows of a registry's last answer to a question.
type Word struct {
	At  time.Time  // when the registry gave it
	Sum string     // of the page: SHA-256 in hexadecimal
	No  *oci.Error // set if it is no page: there is no such thing, or the registry refused
	// Tag is what a tag means, of a question about one. Loose says that the registry
	// was asked with another Accept list than the question's.
	Tag   *oci.Descriptor
	Loose bool
}

// Given is a blob that a node gives to another member. Close it.
type Given struct {
	oci.Provenance
	Redirect string // where the registry sends the client; nothing can be sent then
	Feeding  oci.Feeding
	Blob
}

// A Blob can be sent from any offset. Its methods are those of cache.Blob.
type Blob interface {
	Size() int64
	Send(ctx context.Context, w io.Writer, off, n int64) (int64, error)
	Close() error
}
