package upstreamtest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
)

// The media types of PutImage.
const (
	TypeManifest = "application/vnd.oci.image.manifest.v1+json"
	TypeIndex    = "application/vnd.oci.image.index.v1+json"
	TypeConfig   = "application/vnd.oci.image.config.v1+json"
	TypeLayer    = "application/vnd.oci.image.layer.v1.tar"
)

// A content is what the registry holds.
type content struct {
	mu    sync.Mutex
	repos map[string]*repository
}

// A repository is what the registry holds under one name.
type repository struct {
	blobs     map[digest.Digest]blob
	manifests map[digest.Digest]manifest
	tags      map[string]digest.Digest
}

// A blob opens the bytes of one.
type blob func() io.ReadSeeker

// A manifest is its bytes and the media type that it is served under.
type manifest struct {
	mediaType string
	content   []byte
}

// An Image is what PutImage stored.
type Image struct {
	Manifest, Config digest.Digest
	Layers           []digest.Digest
	ManifestBytes    []byte
}

// PutBlob stores a blob and returns its digest. The bytes must not change afterwards.
func (c *content) PutBlob(repo string, b []byte) digest.Digest {
	d := digest.FromBytes(b)
	c.putBlob(repo, d, func() io.ReadSeeker { return bytes.NewReader(b) })
	return d
}

// PutRandomBlob stores the blob Random(seed, size), which takes no memory, and
// reads it once for its digest.
func (c *content) PutRandomBlob(repo string, seed uint64, size int64) digest.Digest {
	d, err := digest.FromReader(Random(seed, size))
	if err != nil {
		panic("upstreamtest: reading random bytes: " + err.Error()) // Random does not fail
	}
	c.putBlob(repo, d, func() io.ReadSeeker { return Random(seed, size) })
	return d
}

func (c *content) putBlob(repo string, d digest.Digest, b blob) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.repo(repo).blobs[d] = b
}

// PutManifest stores a manifest under its digest and, unless reference is "" or a
// digest, under that tag. It is served under mediaType as given. A "subject" in the
// bytes makes it a referrer.
func (c *content) PutManifest(repo, reference, mediaType string, b []byte) digest.Digest {
	d := digest.FromBytes(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.repo(repo)
	p.manifests[d] = manifest{mediaType: mediaType, content: bytes.Clone(b)}
	if reference != "" && !strings.Contains(reference, ":") {
		p.tags[reference] = d
	}
	return d
}

// PutImage stores an OCI image for linux/amd64 with these layers under tag, or only
// by digest if tag is "". The image calls its layers uncompressed tars, whatever
// they hold.
func (c *content) PutImage(repo, tag string, layers ...[]byte) Image {
	img := Image{Layers: make([]digest.Digest, 0, len(layers))}
	descriptors := make([]descriptor, 0, len(layers))
	for _, layer := range layers {
		d := c.PutBlob(repo, layer)
		img.Layers = append(img.Layers, d)
		descriptors = append(descriptors, descriptor{MediaType: TypeLayer, Digest: d, Size: int64(len(layer))})
	}
	config := encode(map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": img.Layers},
	})
	img.Config = c.PutBlob(repo, config)
	img.ManifestBytes = encode(map[string]any{
		"schemaVersion": 2, "mediaType": TypeManifest, "layers": descriptors,
		"config": descriptor{MediaType: TypeConfig, Digest: img.Config, Size: int64(len(config))},
	})
	img.Manifest = c.PutManifest(repo, tag, TypeManifest, img.ManifestBytes)
	return img
}

// DeleteTag removes a tag; its manifest stays.
func (c *content) DeleteTag(repo, tag string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.repo(repo).tags, tag)
}

// repo returns the repository of that name, and makes it if need be. c.mu is held.
func (c *content) repo(repo string) *repository {
	p := c.repos[repo]
	if p == nil {
		p = &repository{blobs: map[digest.Digest]blob{}, manifests: map[digest.Digest]manifest{}, tags: map[string]digest.Digest{}}
		c.repos[repo] = p
	}
	return p
}

// find returns what some repository holds under that digest. It is not ok if none
// does.
func (c *content) find(d digest.Digest) (b blob, m manifest, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.repos {
		if b, m = p.blobs[d], p.manifests[d]; b != nil || m.content != nil {
			return b, m, true
		}
	}
	return nil, manifest{}, false
}

// lookup returns a copy of a repository, nil if there is none of that name.
func (c *content) lookup(repo string) *repository {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.repos[repo]
	if p == nil {
		return nil
	}
	return &repository{blobs: maps.Clone(p.blobs), manifests: maps.Clone(p.manifests), tags: maps.Clone(p.tags)}
}

// encode returns v as JSON.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("upstreamtest: encoding JSON: " + err.Error()) // all types that get here can be encoded
	}
	return b
}

// Random returns size bytes that depend on seed alone and do not compress. Seeking
// costs nothing, and it never holds more than one block.
func Random(seed uint64, size int64) io.ReadSeeker {
	var key [16]byte
	binary.BigEndian.PutUint64(key[:], seed)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("upstreamtest: " + err.Error()) // the key has a legal length
	}
	return &random{block: block, size: size}
}

// RandomBytes returns what Random reads.
func RandomBytes(seed uint64, size int64) []byte {
	b := make([]byte, size)
	_, _ = io.ReadFull(Random(seed, size), b) // which does not fail
	return b
}

// A random reads the key stream of AES in counter mode.
type random struct {
	block     cipher.Block
	stream    cipher.Stream // at pos; nil after a Seek
	pos, size int64
}

func (s *random) Read(p []byte) (int, error) {
	if s.pos >= s.size {
		return 0, io.EOF
	}
	if s.stream == nil {
		var counter, skip [aes.BlockSize]byte
		binary.BigEndian.PutUint64(counter[8:], uint64(s.pos/aes.BlockSize))
		s.stream = cipher.NewCTR(s.block, counter[:])
		s.stream.XORKeyStream(skip[:s.pos%aes.BlockSize], skip[:s.pos%aes.BlockSize])
	}
	p = p[:min(int64(len(p)), s.size-s.pos)]
	clear(p)
	s.stream.XORKeyStream(p, p)
	s.pos += int64(len(p))
	return len(p), nil
}

func (s *random) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += s.pos
	case io.SeekEnd:
		offset += s.size
	}
	if offset < 0 {
		return 0, errors.New("upstreamtest: seek before the start")
	}
	if offset != s.pos {
		s.pos, s.stream = offset, nil
	}
	return offset, nil
}
