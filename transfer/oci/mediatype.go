package oci

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

// documentType matches the media types that a manifest may have. No browser
// shows or runs any of them. Some registries send schema 1 as text/plain.
var documentType = regexp.MustCompile(`^(application/(json|vnd\.[a-zA-Z0-9.+_-]+|[a-zA-Z0-9.+_-]+\+json)|text/plain)( *; *[a-zA-Z0-9-]+="?[a-zA-Z0-9._-]+"?)*$`)

// maxType bounds a media type in bytes.
const maxType = 200

// DocumentType returns the media type that a registry gives a document if it may
// be passed on to a client, else "".
func DocumentType(mediaType string) string {
	if len(mediaType) > maxType || !documentType.MatchString(mediaType) {
		return ""
	}
	return mediaType
}

// The media types of manifests (OCI image spec; Docker's image manifest v2, schema 1 and 2).
const (
	typeIndex      = "application/vnd.oci.image.index.v1+json"
	typeDockerList = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeImage      = "application/vnd.oci.image.manifest.v1+json"
	typeDocker     = "application/vnd.docker.distribution.manifest.v2+json"
	typeArtifact   = "application/vnd.oci.artifact.manifest.v1+json"
	typeSigned     = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	typeSchema1    = "application/vnd.docker.distribution.manifest.v1+json"
)

// ManifestTypes is the Accept list of a client that takes any manifest. Without
// the right type a registry may answer 404, or with the digest of another
// manifest.
var ManifestTypes = []string{typeIndex, typeDockerList, typeImage, typeDocker, typeArtifact, typeSigned, typeSchema1, "*/*;q=0.1"}

// Acceptable returns the Accept list that upstream is sent for a client's: all
// types if the client takes any type or takes lists, else those of ManifestTypes
// that it named. What a tag means may depend on it, so it is part of the tag's key.
func Acceptable(client []string) []string {
	if len(client) == 0 || slices.Contains(client, "*/*") || slices.Contains(client, typeIndex) || slices.Contains(client, typeDockerList) {
		return ManifestTypes
	}
	var named []string
	for _, t := range ManifestTypes {
		if slices.Contains(client, t) {
			named = append(named, t)
		}
	}
	if named == nil {
		return ManifestTypes
	}
	return named
}

// TypeAgrees reports whether a manifest's bytes bear out the media type that a
// registry gave it. The shard knows one type for each digest. A type that the
// bytes do not bear out is for that registry's clients alone; otherwise one
// registry could choose what the clients of another are told
// (GHSA-qq97-vm5h-rrhg).
func TypeAgrees(mediaType string, manifest []byte) bool {
	said := typeOf(manifest)
	return said != "" && said == mediaType
}

// TypeFrom returns the media type of a manifest that another node sent under the
// type peer. The digest says nothing about the type, so the bytes' own word
// counts for more. A type that no manifest has is not passed on.
func TypeFrom(peer string, manifest []byte) string {
	said := typeOf(manifest)
	switch {
	case slices.Contains(ManifestTypes, said):
		return said
	case slices.Contains(ManifestTypes, peer) && json.Valid(manifest):
		return peer
	default:
		return "application/octet-stream"
	}
}

// typeOf returns the media type that a manifest's bytes tell, "" if they tell
// none or could be of several.
func typeOf(manifest []byte) string {
	m, ok := object(manifest)
	if !ok {
		return ""
	}
	if said := m.text("mediaType"); said != "" {
		return said
	}
	switch {
	case m.has("fsLayers") && m.has("signatures"):
		return typeSigned
	case m.has("fsLayers"):
		return typeSchema1
	case m.has("manifests") && !m.has("layers") && !m.has("config"):
		return typeIndex
	case !m.has("manifests") && (m.has("layers") || m.has("config")):
		return typeImage
	default:
		return ""
	}
}

// bare returns a media type without its parameters.
func bare(mediaType string) string {
	t, _, _ := strings.Cut(mediaType, ";")
	return strings.TrimSpace(t)
}
