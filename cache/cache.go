// Package cache is one node's shard: complete, verified blobs in a directory,
// bounded in bytes. The least recently used blobs are evicted first.
//
// The directory is the index; there is no database to disagree with the files:
//
//	lock                         held by the one process that uses the directory
//	tmp/                         blobs on their way in, and parts: see parts.go
//	blobs/<alg>/<xx>/<hex>       a blob: exactly its bytes
//	blobs/<alg>/<xx>/<hex>.meta  what belongs to it: registry, media type, chunk sums
//	tags/<xx>/<hash>             what a tag last meant
//	notes/<name>                 notes of the store's owner: see folder.go
//	pages/<name>                 pages of the store's owner: see folder.go, draft.go
//
// A blob comes in by an [Ingest]: one writer, any number of readers that follow
// it. It counts when its digest is right: a large one is renamed then, a small one written,
// and its meta after it, without which it is none. It is read through a [Blob]. Each chunk on disk is checked against its sum before it
// leaves: see fileblob.go. Nothing is fsynced. The sums find torn files, so a
// power cut costs cached data, never a right answer.
//
// A Store never fails a caller: without a usable disk it misses, and its
// ingests pass through memory. A small blob is gathered in memory anyhow, and written once
// it is right.
//
// # Where to find what
//
//   - store.go: what a [Store] does. shard.go: the parts it is made of.
//   - ingest.go, sink.go, commit.go, resume.go: where the bytes of a blob on its
//     way in go. Only the writer has the sink.
//   - stream.go, view.go, window.go, follow.go: what its readers see.
//   - opener.go, fileblob.go, checks.go, small.go: reading a blob of the shard.
//   - index.go, entry.go, table.go: what the shard holds, in the order of use.
//     room.go, shares.go, load.go: how much more fits.
//   - allocator.go, remover.go, pressure.go: making room. idle.go: what nobody asks for.
//   - caretaker.go, listing.go, directory.go: the directory in use. disk.go,
//     root.go, descriptor.go, file.go: the file calls.
//   - watch.go: who hears what comes and goes.
//   - tags.go, folder.go, draft.go: what is kept beside the blobs.
//
// # Locks
//
// No lock lies over a file call, a network call or another lock. Each guards
// memory alone:
//
//   - index.mu: the entries, the shares and who reads what
//   - stream.mu: how far an ingest is, its window and its followers
//   - checks.mu: which chunks of a blob are right
//   - small.mu: the small blobs in memory
//   - partList.mu and strays.mu: their lists
//   - turns.mu: whose turn it is
//
// Where the order of file calls matters, goroutines take turns by key instead:
// commits (one blob's files are put in place or removed by one at a time) and
// tags (the file has what was told last). Waiting for a turn holds no lock. A file
// that one goroutine removes is awaited by another for 50 ms for its room, and for
// two seconds for its name: see index.wait.
package cache

import (
	"context"
	"errors"
	"io"

	// go-digest knows only the algorithms that are linked in.
	_ "crypto/sha256"
	_ "crypto/sha512"
)

// HoldBack is how many bytes at a blob's end no reader gets before the blob's
// digest is known to be right, so that nobody ever completes a wrong body.
const HoldBack = 64 << 10

// Errors that a caller decides on. After each of them the caller can go on with
// another source, at the byte that Send reached.
var (
	// ErrNotFound: the shard does not hold the blob.
	ErrNotFound = errors.New("blob is not in the cache")
	// ErrDamaged: bytes on disk are not those that were written. They have
	// not been sent, and the blob has left the shard.
	ErrDamaged = errors.New("blob is damaged on disk")
	// ErrBehind: the reader fell behind an ingest that passes through memory,
	// and the bytes it wants are gone.
	ErrBehind = errors.New("the reader was too slow: the bytes are no longer in memory")
	// ErrDigest: the bytes that came in are not those that the digest names.
	ErrDigest = errors.New("content does not match its digest")
	// ErrAbandoned: an ingest was stopped because nobody reads it and nothing
	// keeps it.
	ErrAbandoned = errors.New("download stopped: nobody reads the blob any more")
)

// A Blob is an open blob: complete in the shard, or still arriving.
type Blob interface {
	// Size returns the blob's size in bytes, -1 while it is not known.
	Size() int64
	// Send writes the bytes [off, off+n) to w and returns how many it wrote;
	// n < 0 stands for all that follow off. It waits for bytes that are not
	// here yet, and before it sends the last HoldBack bytes of the blob it
	// waits until the digest is known to be right. It uses w's io.ReaderFrom
	// with an *os.File if there is one, so that the kernel copies. Errors
	// are w's, ctx's, the ingest's or one of this package's. A Blob is one
	// reader's: one Send at a time, and none during Close.
	Send(ctx context.Context, w io.Writer, off, n int64) (int64, error)
	// Verdict waits until it is known whether the blob's bytes are right. It
	// returns nil, or why they are not.
	Verdict(ctx context.Context) error
	// Close lets the blob go; until then it is not evicted.
	Close() error
}
