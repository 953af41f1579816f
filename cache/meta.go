package cache

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"
	"github.com/opencontainers/go-digest"
)

// chunkSize is how many bytes one sum covers: large enough for sendfile (256
// KiB is where its cost per byte flattens), small enough for a range.
const chunkSize = 256 << 10

// A meta is what lies beside a blob's file: one line of JSON, a newline, the
// sums of its chunks (8 bytes each, big endian), and 8 bytes of sum over all
// of that, so that a torn meta is recognized.
type meta struct {
	Version   int           `json:"version"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
	Chunk     int64         `json:"chunk"`
	Registry  string        `json:"registry"`
	MediaType string        `json:"media_type,omitempty"`
	// Repository is where a manifest came from, "" if that is not known.
	Repository string `json:"repository,omitempty"`
	// Outline is what Options.Outline made of a small blob. Earlier versions know none.
	Outline json.RawMessage `json:"outline,omitempty"`

	sums []uint64
}

// label returns what m tells others than the store.
func (m *meta) label() Label {
	return Label{Digest: m.Digest, Registry: m.Registry, Repository: m.Repository, MediaType: m.MediaType, Outline: m.Outline}
}

// metaVersion is the version that this code writes and reads.
const metaVersion = 1

// maxMetaHead bounds the JSON line.
const maxMetaHead = 4 << 10

// errMeta: the meta is torn, or does not fit the blob.
var errMeta = errors.New("meta is damaged")

// chunks is how many sums a blob of size bytes has.
func chunks(size int64) int64 { return (size + chunkSize - 1) / chunkSize }

// encode returns m as it is written to disk. An outline with which that would not fit into
// a page is left out.
func (m *meta) encode() ([]byte, error) {
	b, err := encodeSums(m, m.sums)
	if m.Outline != nil && (err != nil || len(b) > pageSize) {
		without := *m
		without.Outline = nil
		return encodeSums(&without, m.sums)
	}
	return b, err
}

// encodeSums returns a line of JSON and sums, sealed.
func encodeSums(line any, sums []uint64) ([]byte, error) {
	head, err := json.Marshal(line)
	if err != nil {
		return nil, fmt.Errorf("encoding a blob's meta: %w", err)
	}
	if len(head) > maxMetaHead {
		return nil, fmt.Errorf("encoding a blob's meta: %d bytes are too many", len(head))
	}
	b := append(head, '\n')
	for _, s := range sums {
		b = binary.BigEndian.AppendUint64(b, s)
	}
	return seal(b), nil
}

// decodeMeta reads what encode returned, or fails with errMeta.
func decodeMeta(b []byte) (*meta, error) {
	m := new(meta)
	sums, err := decodeSums(b, m)
	switch {
	case err != nil:
		return nil, err
	case m.Version != metaVersion || m.Chunk != chunkSize || m.Size < 0 || int64(len(sums)) != chunks(m.Size):
		return nil, errMeta
	}
	m.sums = sums
	return m, nil
}

// decodeSums reads what encodeSums returned; the JSON goes into line. It fails with
// errMeta.
func decodeSums(b []byte, line any) ([]uint64, error) {
	b, ok := unseal(b)
	if !ok {
		return nil, errMeta
	}
	head, rest, ok := bytes.Cut(b, []byte("\n"))
	if !ok || len(rest)%8 != 0 {
		return nil, errMeta
	}
	if err := json.Unmarshal(head, line); err != nil {
		return nil, errors.Join(errMeta, err)
	}
	sums := make([]uint64, 0, len(rest)/8)
	for ; len(rest) > 0; rest = rest[8:] {
		sums = append(sums, binary.BigEndian.Uint64(rest))
	}
	return sums, nil
}

// seal appends a sum over b.
func seal(b []byte) []byte { return binary.BigEndian.AppendUint64(b, xxhash.Sum64(b)) }

// unseal returns the bytes that were sealed, if they have not changed.
func unseal(b []byte) ([]byte, bool) {
	end := len(b) - 8
	if end < 0 || xxhash.Sum64(b[:end]) != binary.BigEndian.Uint64(b[end:]) {
		return nil, false
	}
	return b[:end:end], true
}

// A summer makes chunk sums of bytes that come in pieces of any size.
type summer struct {
	sums []uint64
	cur  *xxhash.Digest
	n    int64 // bytes in the current chunk
}

// write adds p.
func (s *summer) write(p []byte) {
	if s.cur == nil {
		s.cur = xxhash.New()
	}
	for len(p) > 0 {
		k := min(int64(len(p)), chunkSize-s.n)
		_, _ = s.cur.Write(p[:k]) // a hash never fails
		s.n += k
		p = p[k:]
		if s.n == chunkSize {
			s.flush()
		}
	}
}

// all returns the sums so far, including that of a chunk that is not full.
func (s *summer) all() []uint64 {
	if s.n == 0 {
		return s.sums
	}
	return append(slices.Clip(s.sums), s.cur.Sum64())
}

// flush ends the current chunk.
func (s *summer) flush() {
	if s.n > 0 {
		s.sums = append(s.sums, s.cur.Sum64())
		s.cur.Reset()
		s.n = 0
	}
}
