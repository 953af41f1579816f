package transfer

import (
	"encoding/json"
	"regexp"
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
	var m struct {
		MediaType  string          `json:"mediaType"`
		Manifests  json.RawMessage `json:"manifests"`
		Layers     json.RawMessage `json:"layers"`
		Config     json.RawMessage `json:"config"`
		FSLayers   json.RawMessage `json:"fsLayers"`
		Signatures json.RawMessage `json:"signatures"`
	}
	if json.Unmarshal(manifest, &m) != nil {
		return false
	}
	switch {
	case m.MediaType != "":
		return mediaType == m.MediaType
	case m.FSLayers != nil && m.Signatures != nil:
		return mediaType == typeSigned
	case m.FSLayers != nil:
		return mediaType == typeSchema1
	case m.Manifests != nil && m.Layers == nil && m.Config == nil:
		return mediaType == typeIndex
	case m.Manifests == nil && (m.Layers != nil || m.Config != nil):
		return mediaType == typeManifest
	default:
		return false // it could be either, or is none
	}
}
