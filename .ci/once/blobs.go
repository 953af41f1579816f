package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
)

// A Blob is content that is made up as it is read, so that none of it lies in memory.
type Blob struct {
	Digest string // sha256:…
	Size   int64  // in bytes
	key    [16]byte
}

// newBlobs makes n blobs of least to most bytes. Equal seeds make equal blobs.
func newBlobs(seed uint64, n int, least, most int64) ([]*Blob, error) {
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	blobs := make([]*Blob, n)
	for i := range blobs {
		b := &Blob{Size: least + rng.Int64N(most-least+1)}
		binary.BigEndian.PutUint64(b.key[:], rng.Uint64())
		binary.BigEndian.PutUint64(b.key[8:], rng.Uint64())
		hash := sha256.New()
		if _, err := io.Copy(hash, b.Open()); err != nil {
			return nil, fmt.Errorf("making blob %d: %w", i, err)
		}
		b.Digest = "sha256:" + hex.EncodeToString(hash.Sum(nil))
		blobs[i] = b
	}
	return blobs, nil
}

// Open returns the content.
func (b *Blob) Open() io.ReadSeeker { return &content{blob: b} }

// content reads a blob: the stream of a cipher, which can begin anywhere.
type content struct {
	blob   *Blob
	pos    int64
	stream cipher.Stream // nil after a seek
}

// Read implements io.Reader.
func (c *content) Read(p []byte) (int, error) {
	if c.pos >= c.blob.Size {
		return 0, io.EOF
	}
	if c.stream == nil {
		if err := c.begin(); err != nil {
			return 0, err
		}
	}
	p = p[:min(int64(len(p)), c.blob.Size-c.pos)]
	clear(p)
	c.stream.XORKeyStream(p, p)
	c.pos += int64(len(p))
	return len(p), nil
}

// begin makes the stream go on from pos.
func (c *content) begin() error {
	block, err := aes.NewCipher(c.blob.key[:])
	if err != nil {
		return fmt.Errorf("making content: %w", err)
	}
	var counter [aes.BlockSize]byte
	binary.BigEndian.PutUint64(counter[8:], uint64(c.pos/aes.BlockSize))
	c.stream = cipher.NewCTR(block, counter[:])
	skip := make([]byte, c.pos%aes.BlockSize)
	c.stream.XORKeyStream(skip, skip)
	return nil
}

// Seek implements io.Seeker.
func (c *content) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += c.pos
	case io.SeekEnd:
		offset += c.blob.Size
	}
	if offset < 0 {
		return 0, errors.New("a place before the content")
	}
	c.pos, c.stream = offset, nil
	return offset, nil
}
