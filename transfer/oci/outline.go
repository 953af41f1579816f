package oci

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
)

// A Listed is what a manifest lists, as far as it tells.
type Listed struct {
	Digest   digest.Digest
	Size     int64  // in bytes, 0 if the manifest does not tell
	Manifest bool   // else a blob
	Config   bool   // the config, which tells a manifest's platform
	Platform string // of a manifest: os/arch or os/arch/variant; "" if it has none
}

// maxOutline bounds what is read of one manifest.
const maxOutline = 10_000

// An outlined manifest is what an outline has of one, of any type.
type outlined struct {
	Manifests []descriptor `json:"manifests,omitempty"`
	Config    descriptor   `json:"config,omitzero"`
	Layers    []descriptor `json:"layers,omitempty"`
	Blobs     []descriptor `json:"blobs,omitempty"`
	Signed    []struct {
		BlobSum digest.Digest `json:"blobSum"`
	} `json:"fsLayers,omitempty"` // schema 1
}

// A descriptor is what is read of one (OCI image spec, "OCI Content Descriptors").
type descriptor struct {
	Digest   digest.Digest `json:"digest"`
	Size     int64         `json:"size,omitempty"`
	Platform platform      `json:"platform,omitzero"`
}

// A platform is what is read of one (OCI image spec, "Image Index").
type platform struct {
	OS      string `json:"os,omitempty"`
	Arch    string `json:"architecture,omitempty"`
	Variant string `json:"variant,omitempty"`
}

// IsZero reports whether it is none.
func (p platform) IsZero() bool { return p.text() == "" }

// text returns the platform as people write it, "" for one that is none: attestations
// have an unknown one.
func (p platform) text() string {
	s := strings.TrimSuffix(p.OS+"/"+p.Arch+"/"+p.Variant, "/")
	if p.OS == "" || p.Arch == "" || p.OS == "unknown" || !platformText.MatchString(s) {
		return ""
	}
	return s
}

// platformText matches what may be shown as a platform.
var platformText = regexp.MustCompile(`^[A-Za-z0-9._/-]{1,100}$`)

// Outline returns what a manifest of any type lists, layers that lie elsewhere too: what
// it may need. It vouches for nothing: see [Parts].
func Outline(manifest []byte) (all []Listed) {
	var m outlined
	if json.Unmarshal(manifest, &m) != nil {
		return nil
	}
	add := func(l Listed) {
		if len(all) < maxOutline && l.Digest.Validate() == nil {
			l.Size = max(l.Size, 0)
			all = append(all, l)
		}
	}
	for _, d := range m.Manifests {
		add(Listed{Digest: d.Digest, Size: d.Size, Manifest: true, Platform: d.Platform.text()})
	}
	add(Listed{Digest: m.Config.Digest, Size: m.Config.Size, Config: true})
	for _, d := range append(m.Layers, m.Blobs...) {
		add(Listed{Digest: d.Digest, Size: d.Size})
	}
	for _, d := range m.Signed {
		add(Listed{Digest: d.BlobSum})
	}
	return all
}

// ConfigPlatform returns the platform that the config of an image names, "" if it names
// none (OCI image spec, "Image Configuration").
func ConfigPlatform(config []byte) string {
	var p platform
	if json.Unmarshal(config, &p) != nil {
		return ""
	}
	return p.text()
}

// Abridge returns a manifest, or a config if mediaType is "", without all that Outline and
// ConfigPlatform do not look at: they find the same in it. It returns nil if they find
// nothing because it is neither.
func Abridge(mediaType string, content []byte) []byte {
	if !bytes.HasPrefix(bytes.TrimLeft(content, " \t\r\n"), []byte("{")) { // most blobs are no JSON at all
		return nil
	}
	var short any = new(outlined)
	if mediaType == "" {
		short = new(platform)
	}
	if json.Unmarshal(content, short) != nil {
		return nil
	}
	text, err := json.Marshal(short)
	if err != nil {
		return nil
	}
	return text
}
