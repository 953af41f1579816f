package flight

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// errNoRoom: the disk has no room for what was offered.
var errNoRoom = errors.New("there is no room for it here")

// errNoManifest: what was offered as a manifest can't be one.
var errNoManifest = errors.New("no manifest is of that size")

// Take takes the blob of q's registry and digest into the shard from the member that
// offers it; mediaType is that of a manifest, "" for a blob. nil means that the shard
// has it. It makes room as for any blob. What the other member knows as private, this
// node gets only if it knows that too.
func (f *Flights) Take(ctx context.Context, from mesh.Peer, q grants.Request, mediaType string) error {
	return take(ctx, f, from, q, mediaType, handed{
		pace: func(_ context.Context, r io.Reader) io.Reader { return r },
		as:   func(in *cache.Ingest) { in.Doubt() },
	})
}

// A handed says how what another member hands over is taken.
type handed struct {
	pace func(ctx context.Context, r io.Reader) io.Reader
	as   func(in *cache.Ingest)
}

// take takes the blob of q's registry and digest into the shard.
func take(ctx context.Context, f *Flights, from mesh.Peer, q grants.Request, mediaType string, how handed) error {
	if _, ok := q.Shard.Stat(q.Digest); ok {
		return nil
	}
	ctx, end := context.WithCancelCause(oci.CallerOf(ctx).As(oci.Node).Into(ctx))
	defer end(nil)
	watch := f.cfg.Mesh.WatchStream(ctx, end, from, q.Ref, 0, true)
	s, err := from.Open(ctx, q.Ref, 0, mesh.Terms{Held: true, Vouched: q.Private})
	if err != nil {
		return fmt.Errorf("taking %s from %s: %w", q.Digest, from.Name(), mesh.GaveUp(ctx, from, err))
	}
	if s.Redirect != "" {
		return fmt.Errorf("taking %s: %w", q.Digest, mesh.Lied(from, errElsewhere))
	}
	defer func() { _ = s.Body.Close() }() // only read
	watch.Begin(s.Body)
	body := how.pace(ctx, watch)
	if mediaType != "" {
		err = takeManifest(ctx, q, mediaType, s.Size, body, how)
	} else {
		err = takeBlob(ctx, q, "", s.Size, body, how)
	}
	if err != nil {
		return fmt.Errorf("taking %s from %s: %w", q.Digest, from.Name(), mesh.GaveUp(ctx, from, err))
	}
	f.Landed(q.Content())
	return nil
}

// takeBlob reads a blob into the shard; mediaType is that of a manifest.
func takeBlob(ctx context.Context, q grants.Request, mediaType string, size int64, body io.Reader, how handed) error {
	in, err := q.Shard.Ingest(ctx, q.Digest, q.Registry, mediaType)
	if err != nil {
		return err
	}
	how.as(in)
	in.SetSize(size)
	if err := takeIn(ctx, in, body); err != nil {
		in.Abort(err)
		return err
	}
	return nil
}

// takeIn reads the whole body into the shard.
func takeIn(ctx context.Context, in *cache.Ingest, body io.Reader) error {
	if !in.Keeping() {
		return errNoRoom
	}
	if err := copyBody(ctx, in, body); err != nil {
		return err
	}
	if !in.Keeping() {
		return errNoRoom
	}
	return in.Commit()
}

// takeManifest reads a manifest into the shard.
func takeManifest(ctx context.Context, q grants.Request, mediaType string, size int64, body io.Reader, how handed) error {
	if size < 0 || size > cache.MaxManifest {
		return errNoManifest
	}
	content, err := io.ReadAll(io.LimitReader(body, size+1))
	if err != nil {
		return err
	}
	kept := oci.Untold
	if json.Valid(content) { // a member's word does not make a manifest of a blob
		kept = oci.KeptType(mediaType, content)
	}
	return takeBlob(ctx, q, kept, size, bytes.NewReader(content), how)
}
