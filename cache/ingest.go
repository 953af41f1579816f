package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
)

// An Ingest is a blob on its way in: one writer, any number of followers, who
// read what has arrived while the rest is still coming.
//
// With room and a disk the bytes go to a file in tmp, and every follower reads
// that file. Without (the blob is larger than the bound, all is being read, the
// disk is full or broken) they pass through a window in memory: see window.go.
// It may change from the one to the other at any byte, never back.
//
// Resume, Replica, Doubt, Agrees, Forget, SetSize, Write, Wrong, Commit and
// Abort are the writer's: one at a time. The writer works on the sink, those
// who read along see the stream alone.
type Ingest struct {
	sink   *sink
	stream *stream
}

// A label says what an ingest brings in.
type label struct {
	name      name
	digest    digest.Digest
	registry  string
	mediaType string
}

// newIngest begins the way in of a blob.
func newIngest(ctx context.Context, s *shard, l label) *Ingest {
	readers := newStream(ctx)
	return &Ingest{stream: readers, sink: newSink(ctx, s, l, readers)}
}

// Replica says, before the first byte, that the blob is another node's to keep.
// It is kept where there is room, and is the first to go until it is read here
// again.
func (in *Ingest) Replica() { in.sink.replica = true }

// Doubt says, before the first byte, that the size which will be told may be
// made up: room is made as the bytes come, so that others' blobs go for what is
// there, not for what is announced.
func (in *Ingest) Doubt() { in.sink.doubted = true }

// Resume takes up what an earlier download of the blob from the same registry
// left, before a restart or in this life, and returns where to go on: Offset.
// It reads those bytes and compares them with the sums noted when they came;
// from the first chunk that differs on they are dropped. Nobody gets any of
// them before SetSize tells that a source agrees on the size. Call it first.
func (in *Ingest) Resume() int64 {
	if !in.Begun() {
		in.sink.resume()
	}
	return in.Offset()
}

// Agrees reports whether a source that says that the blob has n bytes, -1 if it
// does not know, can go on where Resume ended.
func (in *Ingest) Agrees(n int64) bool { return in.sink.progress.agrees(n) }

// Forget drops what Resume took up, before SetSize: no source goes on from
// there.
func (in *Ingest) Forget() {
	if !in.Begun() {
		in.sink.forget()
	}
}

// SetSize tells the blob's size in bytes before the first Write, -1 if it is
// not known, and makes room for it. Followers wait for it. Only the first call
// counts.
func (in *Ingest) SetSize(n int64) {
	if in.Begun() {
		return
	}
	if n = max(n, -1); !in.Agrees(n) {
		in.Forget()
	}
	in.stream.begin(in.sink.begin(n))
}

// Write takes the next bytes. It fails with ErrDigest if they are more than
// were announced, with ErrAbandoned if nothing keeps them and nobody has read
// for a while, and at the ingest's context's end; never because of the disk.
func (in *Ingest) Write(p []byte) (int, error) {
	if !in.Begun() {
		in.SetSize(-1)
	}
	if size := in.sink.size; size >= 0 && int64(len(p)) > size-in.sink.written {
		return 0, fmt.Errorf("more than the %d bytes announced: %w", size, ErrDigest)
	}
	n := 0
	for q := range slices.Chunk(p, batch) { // followers of a window see one while the next waits for its place
		if err := in.sink.write(q); err != nil {
			return n, err
		}
		n += len(q)
	}
	return n, nil
}

// Offset returns how many bytes have come: where the next source continues.
func (in *Ingest) Offset() int64 { return in.stream.look().written }

// Size returns the size told, -1 if none was.
func (in *Ingest) Size() int64 { return in.stream.look().size }

// Sendable returns how many of the blob's first bytes its readers can get by
// now: all but what is held back.
func (in *Ingest) Sendable() int64 { return in.stream.look().sendable() }

// Begun reports whether SetSize was called.
func (in *Ingest) Begun() bool { return in.stream.look().begun }

// Keeping reports whether the blob entered the shard or, as far as can be seen
// by now, will.
func (in *Ingest) Keeping() bool { return in.stream.look().keeping() }

// Stored reports whether the blob entered the shard.
func (in *Ingest) Stored() bool { return in.stream.look().stored }

// Follow returns the blob as it arrives. It waits until the size has been told
// and bytes can be sent, so that a failure before the first byte is an error
// here. Those of a blob no longer than HoldBack can be sent only once it is
// known to be right. A blob that has come in meanwhile is opened in the shard;
// ErrNotFound says that it came and was not kept. Close the blob.
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
