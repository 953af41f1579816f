package transfer

import (
	"encoding/json"
	"regexp"
	"slices"

	"github.com/opencontainers/go-digest"
)

// documentType are the media types that a manifest may have: none that a
// browser would show or run. Schema 1 comes as text/plain from some.
var documentType = regexp.MustCompile(`^(application/(json|vnd\.[a-zA-Z0-9.+_-]+|[a-zA-Z0-9.+_-]+\+json)|text/plain)( *; *[a-zA-Z0-9-]+="?[a-zA-Z0-9._-]+"?)*$`)

// maxType bounds a media type in bytes.
const maxType = 200

// DocumentType returns the media type that a registry names for a document if
// it may go to a client, else "".
func DocumentType(mediaType string) string {
	if len(mediaType) > maxType || !documentType.MatchString(mediaType) {
		return ""
	}
	return mediaType
}

// The media types of manifests that say themselves what they are by their shape
// alone (OCI image spec; Docker's schema 1).
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeSchema1  = "application/vnd.docker.distribution.manifest.v1+json"
	typeSigned   = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// agrees reports whether a manifest's media type, which is a registry's word,
// is what the manifest's bytes say. The shard knows one type for a digest: one
// that does not agree is for the clients of that registry alone, or any registry
// could choose what another's are told (GHSA-qq97-vm5h-rrhg).
func agrees(mediaType string, manifest []byte) bool {
	said := typeOf(manifest)
	return said != "" && said == mediaType
}

// typeOf is the media type that a manifest's bytes say, "" where it could be
// either, or is none.
func typeOf(manifest []byte) string {
	var m struct {
		MediaType  string          `json:"mediaType"`
		Manifests  json.RawMessage `json:"manifests"`
		Layers     json.RawMessage `json:"layers"`
		Config     json.RawMessage `json:"config"`
		FSLayers   json.RawMessage `json:"fsLayers"`
		Signatures json.RawMessage `json:"signatures"`
	}
	if json.Unmarshal(manifest, &m) != nil {
		return ""
	}
	switch {
	case m.MediaType != "":
		return m.MediaType
	case m.FSLayers != nil && m.Signatures != nil:
		return typeSigned
	case m.FSLayers != nil:
		return typeSchema1
	case m.Manifests != nil && m.Layers == nil && m.Config == nil:
		return typeIndex
	case m.Manifests == nil && (m.Layers != nil || m.Config != nil):
		return typeManifest
	default:
		return ""
	}
}

// typeFrom is the media type of a manifest that another node sent and called
// so: its digest says nothing of the type. The bytes' own word counts for more;
// where they have none, what no manifest is called is left out.
func typeFrom(peer string, manifest []byte) string {
	said := typeOf(manifest)
	switch {
	case slices.Contains(allTypes, said):
		return said
	case slices.Contains(allTypes, peer) && json.Valid(manifest):
		return peer
	default:
		return "application/octet-stream"
	}
}

// A part is what a manifest says of one that it lists.
type part struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
}

// maxParts bounds what one manifest lists: each may be vouched for, in a file.
const maxParts = 1000

// partsOf returns what a manifest lists: its config, layers and manifests. It
// reports false for one of another kind than we know.
func partsOf(manifest []byte) (list []part, ok bool) {
	var m struct {
		Config    part   `json:"config"`
		Layers    []part `json:"layers"`
		Manifests []part `json:"manifests"`
		Blobs     []part `json:"blobs"`
	}
	if json.Unmarshal(manifest, &m) != nil {
		return nil, false
	}
	for _, p := range slices.Concat(m.Layers, m.Manifests, m.Blobs, []part{m.Config}) {
		if p.Digest.Validate() == nil && len(list) < maxParts {
			list = append(list, p)
		}
	}
	return list, true
}
