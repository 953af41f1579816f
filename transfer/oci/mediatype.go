package oci

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

// documentType matches the media types that a manifest may have. No browser shows or
// runs any of them.
var documentType = regexp.MustCompile(`^application/(vnd\.[a-zA-Z0-9.+_-]+|[a-zA-Z0-9.+_-]+\+json)( *; *[a-zA-Z0-9-]+="?[a-zA-Z0-9._-]+"?)*$`)

// maxType bounds a media type in bytes.
const maxType = 200

// Types that say nothing about a manifest.
const (
	// Untold is the type of a manifest whose source told none.
	Untold   = "application/octet-stream"
	typeJSON = "application/json"
)

// ToldType returns the media type that a registry, or another node, gave a manifest if
// it is a type of documents, exactly as it came; else Untold. Some registries and their
// storage send manifests as text/plain, application/json or application/octet-stream.
func ToldType(mediaType string) string {
	if slices.Contains(usualTypes, mediaType) {
		return mediaType
	}
	if len(mediaType) > maxType || strings.HasSuffix(mediaType, guessed) || !documentType.MatchString(mediaType) {
		return Untold
	}
	return mediaType
}

// usualTypes are those of ManifestTypes, which all are types of documents.
var usualTypes = ManifestTypes[:len(ManifestTypes)-1]

// guessed ends a media type that the bytes alone say. It never leaves the nodes.
const guessed = "; told=no"

// KeptType returns the media type under which nodes keep a manifest and pass it to each
// other: the one that was told, if that is its ManifestType; else the ManifestType with a
// mark, so that the manifest vouches for nothing (Parts).
func KeptType(told string, manifest []byte) string {
	told = ToldType(told)
	if is := ManifestType(told, manifest); is != told {
		return is + guessed
	}
	return told
}

// ShownType returns the media type that clients see of a KeptType, or of what a HEAD
// told. Earlier versions kept what the registry told, whatever that was.
func ShownType(kept string) string {
	if is, ok := strings.CutSuffix(kept, guessed); ok {
		return is
	}
	return ToldType(kept)
}

// ManifestType returns the media type under which clients get a manifest, the same at
// each node: the one that the registry told if that is a type of documents, else what
// the bytes say, by their mediaType or by their fields. A registry's word about a kind
// of manifest that the bytes contradict does not count, because another node may have
// passed it on, and could choose how clients read the bytes (GHSA-qq97-vm5h-rrhg).
func ManifestType(told string, manifest []byte) string {
	m, ok := object(manifest)
	if told = ToldType(told); !ok {
		return told
	}
	own, form := m.ownType(), m.form()
	switch {
	case isKnown(told) && isKnown(own):
		if bare(told) == own {
			return told
		}
		return own
	case told != Untold && (!isKnown(told) || form == "" || isList(told) == isList(form)):
		return told
	case own != "":
		return own
	case form != "":
		return form
	default:
		return typeJSON
	}
}

// isKnown reports whether a media type is one of ManifestTypes.
func isKnown(mediaType string) bool {
	return slices.Contains(usualTypes, strings.ToLower(bare(mediaType)))
}

// isList reports whether a media type is that of a list of manifests.
func isList(mediaType string) bool {
	t := strings.ToLower(bare(mediaType))
	return t == typeIndex || t == typeDockerList
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
var ManifestTypes = []string{typeIndex, typeDockerList, typeImage, typeDocker, typeArtifact, typeSigned, typeSchema1, takesAny}

// TypeAgrees reports whether a manifest's bytes bear out the media type that a
// registry gave it. The shard knows one type for each digest. A type that the
// bytes do not bear out is for that registry's clients alone; otherwise one
// registry could choose what the clients of another are told
// (GHSA-qq97-vm5h-rrhg).
func TypeAgrees(mediaType string, manifest []byte) bool {
	return ManifestType(mediaType, manifest) == ManifestType(Untold, manifest)
}

// ownType returns the media type that a manifest has in its mediaType, "" if that is
// missing or no type of documents.
func (f fields) ownType() string {
	if t := ToldType(f.text("mediaType")); t != Untold {
		return t
	}
	return ""
}

// form returns the media type that a manifest's fields show, "" if they show none or
// could be of several. Docker's manifests have none but in what they list if some tool
// left out mediaType.
func (f fields) form() string {
	image, list := f.has("layers") || f.has("config"), f.has("manifests")
	switch {
	case f.has("fsLayers") && f.has("signatures"):
		return typeSigned
	case f.has("fsLayers"):
		return typeSchema1
	case list && !image:
		return either(f.list("manifests"), typeDockerList, typeIndex)
	case image && !list:
		return either(append(f.list("config"), f.list("layers")...), typeDocker, typeImage)
	case f.has("blobs") && f.has("artifactType") && !list && !image:
		return typeArtifact
	default:
		return ""
	}
}

// either returns docker if the first descriptor that tells a type tells one of
// Docker's, else standard.
func either(descriptors []json.RawMessage, docker, standard string) string {
	for _, raw := range descriptors {
		if d, ok := object(raw); ok && d.text("mediaType") != "" {
			if strings.HasPrefix(d.text("mediaType"), "application/vnd.docker.") {
				return docker
			}
			return standard
		}
	}
	return standard
}

// bare returns a media type without its parameters.
func bare(mediaType string) string {
	t, _, _ := strings.Cut(mediaType, ";")
	return strings.TrimSpace(t)
}
