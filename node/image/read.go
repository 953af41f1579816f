package image

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
)

// errNoIndex: a tar file is no layout.
var errNoIndex = errors.New("there is no index.json in it: it is not an OCI image layout")

// A Reader reads a layout as Write writes it: the index first.
type Reader struct {
	Index Index
	tar   *tar.Reader
}

// NewReader reads the index of a layout. The error says why it is none.
func NewReader(r io.Reader) (*Reader, error) {
	out := &Reader{tar: tar.NewReader(r)}
	for {
		h, err := out.tar.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil, errNoIndex
		case err != nil:
			return nil, fmt.Errorf("reading the layout: %w", err)
		case digestOf(h.Name) != "":
			return nil, errors.New("its index.json must come before its blobs")
		case h.Name == IndexName:
			out.Index, err = readIndex(out.tar)
			return out, err
		}
	}
}

// readIndex reads index.json.
func readIndex(r io.Reader) (x Index, err error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxIndex+1))
	switch {
	case err != nil:
		return x, fmt.Errorf("reading index.json: %w", err)
	case len(b) > MaxIndex:
		return x, fmt.Errorf("its index.json is larger than %d bytes", MaxIndex)
	}
	if err := json.Unmarshal(b, &x); err != nil {
		return x, fmt.Errorf("its index.json: %w", err)
	}
	for _, d := range x.Manifests {
		if err := d.Digest.Validate(); err != nil {
			return x, fmt.Errorf("its index.json names the digest %q: %w", d.Digest, err)
		}
	}
	return x, nil
}

// Next returns the next manifest or blob: its digest, its size and its bytes, which are
// not checked. They are good until the next call. At the end the error is io.EOF.
func (r *Reader) Next() (digest.Digest, int64, io.Reader, error) {
	for {
		h, err := r.tar.Next()
		if errors.Is(err, io.EOF) {
			return "", 0, nil, io.EOF
		}
		if err != nil {
			return "", 0, nil, fmt.Errorf("reading the layout: %w", err)
		}
		if d := digestOf(h.Name); d != "" && h.Typeflag == tar.TypeReg {
			return d, h.Size, r.tar, nil
		}
	}
}
