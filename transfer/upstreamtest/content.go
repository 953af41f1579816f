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

	"github.com/opencontainers/go-digest"
)

// The media types of PutImage.
const (
	TypeManifest = "application/vnd.oci.image.manifest.v1+json"
	TypeIndex    = "application/vnd.oci.image.index.v1+json"
	TypeConfig   = "application/vnd.oci.image.config.v1+json"
	TypeLayer    = "application/vnd.oci.image.layer.v1.tar"
)

type repository struct {
	blobs     map[digest.Digest]blob
	manifests map[digest.Digest]manifest
	tags      map[string]digest.Digest
}

type blob func() io.ReadSeeker

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

// PutBlob stores a blob, which must not be changed afterwards, and returns its digest.
func (r *Registry) PutBlob(repo string, content []byte) digest.Digest {
	d := digest.FromBytes(content)
	r.putBlob(repo, d, func() io.ReadSeeker { return bytes.NewReader(content) })
	return d
}

// PutRandomBlob stores the blob Random(seed, size), which takes no memory. It
// is read once, for its digest.
func (r *Registry) PutRandomBlob(repo string, seed uint64, size int64) digest.Digest {
	d, err := digest.FromReader(Random(seed, size))
	if err != nil {
		panic("upstreamtest: reading random bytes: " + err.Error()) // can't be: Random does not fail
	}
	r.putBlob(repo, d, func() io.ReadSeeker { return Random(seed, size) })
	return d
}

func (r *Registry) putBlob(repo string, d digest.Digest, b blob) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.repo(repo).blobs[d] = b
}

// PutManifest stores a manifest under its digest and, unless reference is ""
// or a digest, under that tag. The media type is told as it is given here. A
// "subject" in content makes it a referrer.
func (r *Registry) PutManifest(repo, reference, mediaType string, content []byte) digest.Digest {
	d := digest.FromBytes(content)
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.repo(repo)
	p.manifests[d] = manifest{mediaType: mediaType, content: bytes.Clone(content)}
	if reference != "" && !strings.Contains(reference, ":") {
		p.tags[reference] = d
	}
	return d
}

// PutImage stores an OCI image for linux/amd64 with these layers (told as
// uncompressed tars, whatever they hold) under tag, or only by digest if tag is "".
func (r *Registry) PutImage(repo, tag string, layers ...[]byte) Image {
	img := Image{Layers: make([]digest.Digest, 0, len(layers))}
	descriptors := make([]descriptor, 0, len(layers))
	for _, content := range layers {
		d := r.PutBlob(repo, content)
		img.Layers = append(img.Layers, d)
		descriptors = append(descriptors, descriptor{MediaType: TypeLayer, Digest: d, Size: int64(len(content))})
	}
	config := encode(map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": img.Layers},
	})
	img.Config = r.PutBlob(repo, config)
	img.ManifestBytes = encode(map[string]any{
		"schemaVersion": 2, "mediaType": TypeManifest, "layers": descriptors,
		"config": descriptor{MediaType: TypeConfig, Digest: img.Config, Size: int64(len(config))},
	})
	img.Manifest = r.PutManifest(repo, tag, TypeManifest, img.ManifestBytes)
	return img
}

// DeleteTag removes a tag; its manifest stays.
func (r *Registry) DeleteTag(repo, tag string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.repo(repo).tags, tag)
}

// lookup returns a copy of a repository's maps, nil if there is none of that name.
func (r *Registry) lookup(repo string) *repository {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.repos[repo]
	if p == nil {
		return nil
	}
	return &repository{blobs: maps.Clone(p.blobs), manifests: maps.Clone(p.manifests), tags: maps.Clone(p.tags)}
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("upstreamtest: encoding JSON: " + err.Error()) // can't be: only our own types get here
	}
	return b
}

// Random returns size bytes that depend on seed alone and do not compress.
// It seeks at no cost and never holds more than one block.
func Random(seed uint64, size int64) io.ReadSeeker {
	var key [16]byte
	binary.BigEndian.PutUint64(key[:], seed)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("upstreamtest: " + err.Error()) // can't be: the key has a legal length
	}
	return &random{block: block, size: size}
}

// RandomBytes returns what Random reads.
func RandomBytes(seed uint64, size int64) []byte {
	b := make([]byte, size)
	_, _ = io.ReadFull(Random(seed, size), b) // which does not fail
	return b
}

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
