package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
)

// MaxManifest bounds a manifest in bytes, as registries do.
const MaxManifest = 4 << 20

// A Descriptor names content (OCI image spec, "OCI Content Descriptors").
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       digest.Digest     `json:"digest"`
	Size         int64             `json:"size"`
	URLs         []string          `json:"urls,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Platform     *Platform         `json:"platform,omitempty"`
	ArtifactType string            `json:"artifactType,omitempty"`
}

// Descriptors are a list of them in JSON. Strangers write such lists: of all entries without a
// valid digest it keeps the first alone, so that a list takes memory for what it names only.
type Descriptors []Descriptor

// UnmarshalJSON implements json.Unmarshaler.
func (all *Descriptors) UnmarshalJSON(text []byte) error {
	*all = nil
	dec := json.NewDecoder(bytes.NewReader(text))
	switch t, err := dec.Token(); {
	case err != nil || t == nil: // null
		return err
	case t != json.Delim('['):
		return errors.New("descriptors are a list")
	}
	var d Descriptor // one for all, since most may be nothing
	for bad := false; dec.More(); {
		d = Descriptor{}
		if err := dec.Decode(&d); err != nil {
			return err
		}
		invalid := d.Digest.Validate() != nil
		if !invalid || !bad {
			*all = append(*all, d)
		}
		bad = bad || invalid
	}
	return nil
}

// A Manifest is a manifest's bytes, and what names them.
type Manifest struct {
	Descriptor
	Content []byte
	Refers  digest.Digest // what it refers to (its subject), "" for nothing

	notes map[string]string // its own annotations
}

// A document is what is read of a manifest of any type.
type document struct {
	MediaType string      `json:"mediaType"`
	Manifests Descriptors `json:"manifests"`
	Config    *Descriptor `json:"config"`
	Layers    Descriptors `json:"layers"`
	Blobs     Descriptors `json:"blobs"`
	Subject   *Descriptor `json:"subject"`

	ArtifactType string            `json:"artifactType"`
	Annotations  map[string]string `json:"annotations"`
}

// NewManifest returns the manifest of a media type, after it was checked against the
// digest that names it.
func NewManifest(mediaType string, d digest.Digest, content []byte) (Manifest, error) {
	if err := d.Validate(); err != nil {
		return Manifest{}, fmt.Errorf("the digest %q: %w", d, err)
	}
	if is := d.Algorithm().FromBytes(content); is != d {
		return Manifest{}, fmt.Errorf("the manifest has the digest %s, not %s", is, d)
	}
	var doc document
	if err := json.Unmarshal(content, &doc); err != nil {
		return Manifest{}, fmt.Errorf("the manifest %s is not JSON: %w", d, err)
	}
	if mediaType == "" {
		mediaType = doc.MediaType
	}
	m := Manifest{Descriptor: Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content)), ArtifactType: doc.ArtifactType}, Content: content, notes: doc.Annotations}
	if doc.Subject != nil {
		m.Refers = doc.Subject.Digest
		if m.ArtifactType == "" && doc.Config != nil {
			m.ArtifactType = doc.Config.MediaType
		}
	}
	return m, nil
}

// Listed is the manifest as a list of referrers has it (OCI distribution spec, "Listing
// Referrers").
func (m Manifest) Listed() Descriptor {
	return Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size, ArtifactType: m.ArtifactType, Annotations: m.notes}
}

// Lists returns what the manifest lists: other manifests, and blobs that the registry
// has. Layers that lie elsewhere (urls) are left out.
func (m Manifest) Lists() (manifests, blobs []Descriptor) {
	doc := m.read()
	all := append(doc.Layers, doc.Blobs...)
	if doc.Config != nil {
		all = append(Descriptors{*doc.Config}, all...)
	}
	for _, b := range all {
		if len(b.URLs) == 0 && b.Digest.Validate() == nil && !strings.Contains(b.MediaType, ".foreign.") && !strings.Contains(b.MediaType, "nondistributable") {
			blobs = append(blobs, b)
		}
	}
	for _, one := range doc.Manifests {
		if one.Digest.Validate() == nil {
			manifests = append(manifests, one)
		}
	}
	return manifests, blobs
}

// read reads the manifest, which is JSON.
func (m Manifest) read() (doc document) {
	_ = json.Unmarshal(m.Content, &doc) // NewManifest has checked that
	return doc
}

// ReadReferrers reads a list of what refers to a manifest.
func ReadReferrers(list []byte) ([]Descriptor, error) {
	var doc document
	if err := json.Unmarshal(list, &doc); err != nil {
		return nil, fmt.Errorf("the list of referrers: %w", err)
	}
	for _, d := range doc.Manifests {
		if err := d.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("the list of referrers names %q: %w", d.Digest, err)
		}
	}
	return doc.Manifests, nil
}
