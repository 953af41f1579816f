package cache

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// A Manifest is what the shard knows of a manifest.
type Manifest struct {
	MediaType string
	Size      int64  // in bytes
	Content   []byte // nil if it is larger than 64 KiB: Open it
}

// Manifest returns what the shard knows of a manifest, or ErrNotFound, and counts as
// use. It does not find what the shard holds only as a blob. All bytes of a large one
// have been checked. Do not change the Content. It may read the disk.
func (s *Store) Manifest(d digest.Digest) (Manifest, error) {
	n, err := nameOf(d)
	if err != nil {
		return Manifest{}, err
	}
	return s.shard.opener.manifest(n)
}

// MediaType returns the media type of a manifest of the shard, "" if the digest
// names a blob or nothing. It reads the disk.
func (s *Store) MediaType(d digest.Digest) string {
	n, err := nameOf(d)
	disk := s.shard.dir.inUse()
	if err != nil || disk == nil {
		return ""
	}
	m, err := disk.readMeta(n)
	if err != nil {
		return ""
	}
	return m.MediaType
}

// Put keeps a manifest, or a small blob if mediaType is "". It reports whether the
// shard has it now. Only content that does not match d is an error.
func (s *Store) Put(ctx context.Context, d digest.Digest, registry, mediaType string, content []byte) (stored bool, err error) {
	return s.PutOf(ctx, d, registry, "", mediaType, content)
}

// PutOf is Put for a manifest of a repository, which is noted with it.
func (s *Store) PutOf(ctx context.Context, d digest.Digest, registry, repository, mediaType string, content []byte) (stored bool, err error) {
	n, err := nameOf(d)
	if err != nil {
		return false, err
	}
	in := newIngest(ctx, s.shard, label{name: n, digest: d, registry: registry, repository: repository, mediaType: mediaType})
	if got := d.Algorithm().FromBytes(content); got != d {
		return false, in.fail(fmt.Errorf("keeping a manifest: %w: want %s, got %s", ErrDigest, d, got))
	}
	if m, err := s.Manifest(d); err == nil && m.MediaType == mediaType {
		in.Abort(nil)
		return true, nil
	}
	in.stream.expectNobody()
	in.SetSize(int64(len(content)))
	if !in.Keeping() {
		in.Abort(errNoRoom)
		return false, nil
	}
	if _, err := in.Write(content); err != nil {
		in.Abort(err)
		return false, nil // the disk failed, and nobody reads from the window
	}
	if err := in.Commit(); err != nil {
		return false, err
	}
	return in.Stored(), nil
}
