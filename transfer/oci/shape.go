package oci

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/opencontainers/go-digest"
)

// IsManifest reports whether bytes are a whole manifest: a JSON object of the form
// that manifests have (OCI image spec; Docker's image manifest v2, schema 1 and 2).
// mediaType is what the registry calls it; a manifest of a type of its own must say
// that type itself. Registries and what stands before them also answer 200 with
// nothing, with a part, with a page or with an error in JSON.
func IsManifest(mediaType string, manifest []byte) bool {
	var m fields
	if json.Unmarshal(manifest, &m) != nil || m == nil || m.has("errors") {
		return false
	}
	_, isList := m["manifests"]
	switch {
	case m.has("fsLayers"):
		return isArray(m["fsLayers"]) && m.text("name") != "" && isArray(m["history"])
	case m.has("config"):
		return hasDigest(m["config"]) && (isArray(m["layers"]) || isNull(m["layers"]))
	case isList:
		return isArray(m["manifests"]) || isNull(m["manifests"]) && isIndex(m.text("mediaType"))
	}
	said := m.text("mediaType")
	if said == typeArtifact {
		return true
	}
	own := strings.HasPrefix(said, "application/vnd.") && said != typeImage && said != typeDocker && !isIndex(said)
	return own && said == bare(mediaType)
}

// MayBeManifest reports whether bytes that match a digest beside them may be a manifest,
// perhaps of a type of its own: a whole JSON object, and no error or token. What answers in
// a registry's place may compute a digest as well.
func MayBeManifest(bytes []byte) bool {
	var m fields
	return json.Unmarshal(bytes, &m) == nil && m != nil && !m.has("errors") && !m.has("token") && !m.has("access_token")
}

// isIndex reports whether a media type is that of an index.
func isIndex(mediaType string) bool { return mediaType == typeIndex || mediaType == typeDockerList }

// isArray reports whether a JSON value is an array.
func isArray(raw json.RawMessage) bool { return bytes.HasPrefix(bytes.TrimSpace(raw), []byte("[")) }

// isNull reports whether a JSON value is null or missing: that is how some programs
// write an empty array.
func isNull(raw json.RawMessage) bool {
	return len(raw) == 0 || bytes.Equal(bytes.TrimSpace(raw), []byte("null"))
}

// hasDigest reports whether a JSON value is a descriptor.
func hasDigest(raw json.RawMessage) bool {
	d, ok := object(raw)
	return ok && digest.Digest(d.text("digest")).Validate() == nil
}
