// Package image knows what belongs to an image, and how images lie in a file.
//
// [Walk] goes from a tag or a digest to all that a client could ask for next: the
// manifests of the platforms that are wanted, their blobs, and what refers to them, such
// as signatures. Where it gets manifests from is for the caller to say (a [Source]).
// layout.go writes and reads an OCI image layout in a tar file, platform.go chooses
// manifests of an index, and manifest.go reads manifests.
package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// A Source is where manifests come from. References are tags or digests. Errors that
// wrap ErrNone say that there is no such thing.
type Source interface {
	// Manifest returns the manifest that a tag or digest means, verified.
	Manifest(ctx context.Context, reference string) (Manifest, error)
	// Referrers returns what refers to a digest, if the registry lists that.
	Referrers(ctx context.Context, d digest.Digest) ([]Descriptor, error)
}

// ErrNone says that there is no such thing.
var ErrNone = errors.New("there is none")

// What a registry or a file says of one image has bounds, since strangers write it.
const (
	// maxHeld bounds the bytes of the manifests of one image, and of what is listed as referring
	// to them.
	maxHeld = 64 << 20
	// maxDepth bounds how deep indexes lie in indexes: images have two or three of them.
	maxDepth = 16
	// descriptorSize is the memory of a descriptor, in bytes, without its texts.
	descriptorSize = 128
)

var (
	errLarge = fmt.Errorf("its manifests and what refers to them are larger than %d bytes", maxHeld)
	errDeep  = fmt.Errorf("its indexes lie in one another more than %d deep", maxDepth)
)

// An Image is all that belongs to one image of a repository.
type Image struct {
	Top       Descriptor   // what the tag or digest means
	Manifests []Manifest   // each before those that it lists; the first is Top's
	Blobs     []Descriptor // configs and layers, each once
	// Tags are what tags beside the image's own mean: signatures are kept under tags where
	// a registry lists no referrers. Listed are the manifests of which Lists has the
	// referrers. Absent are tags that clients look for and that are not there.
	Tags   map[string]digest.Digest
	Lists  map[digest.Digest][]Descriptor
	Absent []string
}

// A walker collects an image.
type walker struct {
	ctx   context.Context
	from  Source
	want  Platforms
	image *Image
	seen  map[digest.Digest]bool
	held  int
	depth int // of indexes around what comes next
}

// Walk returns all that belongs to the image that a tag or digest means, for the
// platforms that are wanted. The error says what is missing.
func Walk(ctx context.Context, from Source, reference string, want Platforms) (*Image, error) {
	w := &walker{ctx: ctx, from: from, want: want, seen: map[digest.Digest]bool{}, image: &Image{
		Tags: map[string]digest.Digest{}, Lists: map[digest.Digest][]Descriptor{},
	}}
	top, err := from.Manifest(ctx, reference)
	if err != nil {
		return nil, err
	}
	w.image.Top = top.Descriptor
	if err := w.manifest(top); err != nil {
		return nil, err
	}
	for _, m := range w.image.Manifests { // the range does not see those that are added
		if err := w.signatures(m); err != nil {
			return nil, err
		}
	}
	return w.image, nil
}

// manifest adds a manifest, and what it lists.
func (w *walker) manifest(m Manifest) error {
	if w.seen[m.Digest] {
		return nil
	}
	if w.depth++; w.depth > maxDepth {
		return errDeep
	}
	defer func() { w.depth-- }()
	w.seen[m.Digest] = true
	if w.held += len(m.Content); w.held > maxHeld {
		return errLarge
	}
	w.image.Manifests = append(w.image.Manifests, m)
	manifests, blobs := m.Lists()
	for _, b := range blobs {
		if !w.seen[b.Digest] {
			w.seen[b.Digest] = true
			w.image.Blobs = append(w.image.Blobs, b)
		}
	}
	chosen, err := w.want.choose(manifests)
	if err != nil {
		return err
	}
	for _, d := range chosen {
		child, err := w.from.Manifest(w.ctx, d.Digest.String())
		if err != nil {
			return fmt.Errorf("getting its manifest %s: %w", d.Digest, err)
		}
		child.Platform, child.Annotations = d.Platform, d.Annotations
		if err := w.manifest(child); err != nil {
			return err
		}
	}
	return nil
}

// suffixes are those of the tags under which cosign keeps what refers to an image.
var suffixes = []string{".sig", ".att", ".sbom"}

// signatures adds what refers to a manifest: as the registry lists it, or by the tags
// that clients look for.
func (w *walker) signatures(m Manifest) error {
	name := strings.Replace(m.Digest.String(), ":", "-", 1)
	listed, err := w.from.Referrers(w.ctx, m.Digest)
	tags := suffixes
	switch {
	case errors.Is(err, ErrNone): // clients then look for a list under a tag
		tags = append([]string{""}, suffixes...)
	case err != nil:
		return fmt.Errorf("asking what refers to %s: %w", m.Digest, err)
	default:
		text, err := json.Marshal(listed)
		if err != nil {
			return err
		}
		if w.held += len(text) + len(listed)*descriptorSize; w.held > maxHeld {
			return errLarge
		}
		w.image.Lists[m.Digest] = listed
	}
	for _, d := range listed {
		if err := w.refers(d.Digest.String()); err != nil {
			return err
		}
	}
	for _, suffix := range tags {
		tag := name + suffix
		switch found, err := w.from.Manifest(w.ctx, tag); {
		case errors.Is(err, ErrNone):
			w.image.Absent = append(w.image.Absent, tag)
		case err != nil:
			return fmt.Errorf("asking for the tag %s: %w", tag, err)
		default:
			w.image.Tags[tag] = found.Digest
			if err := w.all(found); err != nil {
				return err
			}
		}
	}
	return nil
}

// refers adds a manifest that refers to another.
func (w *walker) refers(reference string) error {
	m, err := w.from.Manifest(w.ctx, reference)
	if err != nil {
		return fmt.Errorf("getting %s, which refers to it: %w", reference, err)
	}
	return w.all(m)
}

// all adds a manifest with all that it lists, of whatever platform.
func (w *walker) all(m Manifest) error {
	want := w.want
	w.want = All
	defer func() { w.want = want }()
	return w.manifest(m)
}
