// Package cache is one node's shard: complete, verified blobs in a directory,
// bounded in bytes, least recently used out first.
//
// The directory is the index; there is no database to disagree with the files:
//
//	lock                         held by the one process that uses the directory
//	tmp/                         what is on its way in, and parts: see part.go
//	blobs/<alg>/<xx>/<hex>       a blob: exactly its bytes
//	blobs/<alg>/<xx>/<hex>.meta  what belongs to it: registry, media type, chunk sums
//	tags/<xx>/<hash>             what a tag last meant
//	notes/<name>                 what the store's owner notes: see folder.go
//
// A blob enters by an [Ingest]: one writer, any number of readers that follow
// it. It counts when its digest is right; a rename is the only way in. It is
// read through a [Blob]; on disk each chunk is checked against its sum before
// it leaves (see file.go). Nothing is fsynced: torn files are found by the
// sums, so a power cut costs cached data, never a right answer.
//
// A Store never fails a caller: without a usable disk it misses, and its
// ingests pass through memory.
//
// Start with store.go (what a Store does), ingest.go, commit.go and follow.go (a
// blob on its way in, into the shard, and to those who read along), index.go and
// room.go (recency, room). Locks are taken in the order committing, an ingest's
// mu, the index's mu.
package cache

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	// go-digest knows only the algorithms that are linked in.
	_ "crypto/sha256"
	_ "crypto/sha512"
)

// HoldBack is how many bytes at a blob's end no reader gets before the blob's
// digest is known to be right, so that nobody ever completes a wrong body.
const HoldBack = 64 << 10

// Errors that a caller decides on. All say: continue elsewhere at the byte
// that Send reached.
var (
	// ErrNotFound: the shard does not hold the blob.
	ErrNotFound = errors.New("blob is not in the shard")
	// ErrDamaged: bytes on disk are not those that were written. They have
	// not been sent, and the blob has left the shard.
	ErrDamaged = errors.New("blob is damaged on disk")
	// ErrBehind: the reader fell behind an ingest that passes through memory,
	// and the bytes it wants are gone.
	ErrBehind = errors.New("bytes have passed")
	// ErrDigest: the bytes that came in are not those the digest names.
	ErrDigest = errors.New("content does not match its digest")
	// ErrAbandoned: an ingest that nobody reads and nothing keeps was stopped.
	ErrAbandoned = errors.New("nobody reads the blob any more")
)

// A Blob is an open blob: complete in the shard, or still arriving.
type Blob interface {
	// Size returns the blob's size in bytes, -1 while it is not known.
	Size() int64
	// Send writes the bytes [off, off+n) to w and returns how many it wrote;
	// n < 0 stands for all that follow off. It waits for bytes that are not
	// here yet, and before it sends the last HoldBack bytes of the blob it
	// waits until the digest is known to be right. It uses w's io.ReaderFrom
	// with an *os.File where there is one, so that the kernel copies. Errors
	// are w's, ctx's, the ingest's or one of this package's. A Blob is one
	// reader's: one Send at a time, and none during Close.
	Send(ctx context.Context, w io.Writer, off, n int64) (int64, error)
	// Verdict waits until it is known whether the blob's bytes are right: nil,
	// or why not.
	Verdict(ctx context.Context) error
	// Close lets the blob go; until then it is not evicted.
	Close() error
}

// A key is the first 32 bytes of a digest. No two blobs share one, a sha512
// cut to 256 bits being as hard to collide with as a sha256; but anybody can
// make up a digest that shares one, so a key alone does not name a blob.
type key [32]byte

// A name is a digest taken apart. It is only made from a valid digest, so
// that a path built from it can't lead elsewhere.
type name struct {
	key  key
	long bool // sha512: rest holds the digest's second half
	rest [32]byte
}

// nameOf takes d apart. Only sha256 and sha512 are known.
func nameOf(d digest.Digest) (name, error) {
	var n name
	if err := d.Validate(); err != nil {
		return n, fmt.Errorf("digest %q: %w", d, err)
	}
	switch d.Algorithm() {
	case digest.SHA256:
		unhex(n.key[:], d.Encoded())
	case digest.SHA512:
		n.long = true
		unhex(n.key[:], d.Encoded()[:64])
		unhex(n.rest[:], d.Encoded()[64:])
	default:
		return n, fmt.Errorf("digest %q: %w", d, digest.ErrDigestUnsupported)
	}
	return n, nil
}

// digest puts the name together again.
func (n name) digest() digest.Digest {
	if n.long {
		return digest.NewDigestFromEncoded(digest.SHA512, fmt.Sprintf("%x%x", n.key[:], n.rest[:]))
	}
	return digest.NewDigestFromEncoded(digest.SHA256, fmt.Sprintf("%x", n.key[:]))
}

// path is the blob's file below the cache directory.
func (n name) path() string {
	d := n.digest()
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()[:2] + "/" + d.Encoded()
}
