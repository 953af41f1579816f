package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
)

// An Ingest is a blob on its way in. It has one writer and any number of followers,
// which read the bytes that have arrived while the rest is still coming.
//
// If there is room and a disk, the bytes go to a file in tmp, and every follower
// reads that file. If not (the blob is larger than the bound, all blobs are being
// read, the disk is full or broken), they pass through a window in memory: see
// window.go. An ingest may change from the file to the window at any byte, but
// never back.
//
// Resume, Replica, Own, Copy, Doubt, Agrees, Forget, SetSize, Write, Complete, Wrong, Commit and
// Abort belong to the writer; it calls one at a time. The writer uses the sink. Followers
// only have the stream.
type Ingest struct {
	sink   *sink
	stream *stream
}

// A label says what an ingest brings in.
type label struct {
	name       name
	digest     digest.Digest
	registry   string
	repository string // of a manifest, "" if it is not known
	mediaType  string
}

// newIngest begins the way in of a blob.
func newIngest(ctx context.Context, s *shard, l label) *Ingest {
	readers := newStream(ctx, s.windows)
	return &Ingest{stream: readers, sink: newSink(ctx, s, l, readers)}
}

// Replica says, before the first byte, that the blob is another node's to keep. It is
// kept if there is room beside what is this node's, and goes before all that is: until
// it is read here, before the other replicas too.
func (in *Ingest) Replica() { in.sink.replica = true }

// Own takes Replica back, if no size has been told: this node has to keep the blob after all.
func (in *Ingest) Own() {
	if !in.Begun() {
		in.sink.replica, in.sink.unasked = false, false
	}
}

// Copy says, before the first byte, that nobody asked for the blob here. It is kept as a
// Replica is, but nothing goes for it where the disk is full before the bound is reached; if own
// says that it is this node's to keep, it goes only after those.
func (in *Ingest) Copy(own bool) { in.sink.replica, in.sink.unasked, in.sink.own = true, true, own }

// Doubt says, before the first byte, that the size which will be told may be made
// up. Room is then made as the bytes come, 4 MiB at a time, so that an announcement alone
// evicts hardly anything.
func (in *Ingest) Doubt() { in.sink.doubted = true }

// Resume takes up the bytes that an earlier download of the blob from the same
// registry left, perhaps before a restart, and returns the offset to go on at. It
// compares those bytes with the sums noted when they came, and drops them from the
// first chunk that differs on. Nobody gets any of them before SetSize says that a
// source agrees on the size. Call it first.
func (in *Ingest) Resume() int64 {
	if !in.Begun() {
		in.sink.resume()
	}
	return in.Offset()
}

// Agrees reports whether a source can go on where Resume ended. The source says that
// the blob has n bytes, -1 if it does not know.
func (in *Ingest) Agrees(n int64) bool { return in.sink.progress.agrees(n) }

// Forget drops the bytes that Resume took up, because no source goes on from there.
// Call it before SetSize.
func (in *Ingest) Forget() {
	if !in.Begun() {
		in.sink.forget()
	}
}

// SetSize tells the blob's size in bytes before the first Write, -1 if it is not
// known, and makes room for it. Followers wait for this call. Later calls do
// nothing.
func (in *Ingest) SetSize(n int64) {
	if in.Begun() {
		return
	}
	if n = max(n, -1); !in.Agrees(n) {
		in.Forget()
	}
	in.stream.begin(in.sink.begin(n))
}

// Write takes the next bytes. It fails with ErrDigest if there are more than were
// announced, with ErrAbandoned if nothing keeps them and nobody has read for a
// while, and when the ingest's context ends. It never fails because of the disk.
func (in *Ingest) Write(p []byte) (int, error) {
	if !in.Begun() {
		in.SetSize(-1)
	}
	if size := in.sink.size; size >= 0 && int64(len(p)) > size-in.sink.written {
		return 0, fmt.Errorf("more than the %d bytes announced: %w", size, ErrDigest)
	}
	n := 0
	for q := range slices.Chunk(p, batch) { // followers can read one chunk while the next is written
		k, err := in.sink.write(q)
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Offset returns how many bytes have come. The next source continues there.
func (in *Ingest) Offset() int64 { return in.stream.look().written }

// Size returns the size told, -1 if none was.
func (in *Ingest) Size() int64 { return in.stream.look().size }

// Complete reports whether all bytes have come: as many as were announced or, if no size
// was told, those that match the digest.
func (in *Ingest) Complete() bool {
	if size := in.Size(); !in.Begun() || size >= 0 {
		return in.Begun() && in.Offset() == size
	}
	return in.sink.content.verdict() == nil
}

// Sendable returns how many of the blob's first bytes its readers can get now: all
// but those that are held back.
func (in *Ingest) Sendable() int64 { return in.stream.look().sendable() }

// Begun reports whether SetSize was called.
func (in *Ingest) Begun() bool { return in.stream.look().begun }

// Await waits until readers can get all bytes before end, or all of a blob that ends
// earlier. The error is ctx's, or why the ingest failed.
func (in *Ingest) Await(ctx context.Context, end int64) error {
	return in.stream.wait(ctx, end, func(v view) bool { return v.isRight() || v.begun && v.limit(end) >= end })
}

// Keeping reports whether the blob entered the shard, or will as far as can be seen
// now.
func (in *Ingest) Keeping() bool { return in.stream.look().keeping() }

// Stored reports whether the blob entered the shard.
func (in *Ingest) Stored() bool { return in.stream.look().stored }

// Follow returns the blob as it arrives. It waits until the size is told and a byte
// can be sent, so that a failure before the first byte is an error here. The bytes
// of a blob no longer than HoldBack can be sent only once they are known to be
// right. If the ingest has ended, Follow opens the blob in the shard; it returns
// ErrNotFound if the blob was not kept. Close the blob.
func (in *Ingest) Follow(ctx context.Context) (Blob, error) {
	m, err := in.stream.join()
	switch {
	case err != nil:
		return nil, err
	case m == nil:
		return in.sink.opener.open(in.sink.name)
	}
	f := &follower{s: in.stream, mark: m}
	if err := in.stream.wait(ctx, HoldBack+1, view.firstByte); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
