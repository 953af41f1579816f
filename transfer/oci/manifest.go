package oci

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/opencontainers/go-digest"
)

// A Part is a blob or a manifest that a manifest lists.
type Part struct {
	Digest digest.Digest
	Size   int64    // in bytes, 0 if the manifest does not tell
	As     Resource // ManifestResource or BlobResource
}

// maxParts bounds the parts of one manifest: each becomes a grant.
const maxParts = 1000

// listing says which fields of each type of manifest name content.
var listing = map[string][]string{
	typeImage:      {"config", "layers"},
	typeDocker:     {"config", "layers"},
	typeIndex:      {"manifests"},
	typeDockerList: {"manifests"},
	typeArtifact:   {"blobs"},
}

// Parts returns what a manifest lists; mediaType is the registry's word for it, or its
// KeptType. For
// blobs that means that the registry had them in the same repository, or it would not
// have accepted the manifest. For the manifests of an index it means nothing: many
// registries accept an index whose manifests they do not have.
//
// A stranger may push a manifest that names another repository's private
// content. So only the fields of the manifest's own type count, by their exact
// names. Fields that other readers could take in another way (a key twice, or in
// two spellings) make it vouch for nothing, and so does a media type that the
// bytes contradict. A descriptor with urls, or of a type that is not
// distributable, vouches for nothing, because registries accept those unseen.
func Parts(mediaType string, manifest []byte) []Part {
	m, ok := object(manifest)
	if !ok || strings.HasSuffix(mediaType, guessed) {
		return nil
	}
	mediaType = bare(mediaType)
	if m.has("mediaType") && m.text("mediaType") != mediaType {
		return nil
	}
	var list []Part
	for _, field := range listing[mediaType] {
		for _, raw := range m.list(field) {
			if p, ok := partOf(raw); ok && len(list) < maxParts {
				if field != "manifests" {
					p.As = BlobResource
				}
				list = append(list, p)
			}
		}
	}
	return list
}

// partOf reads a descriptor (OCI image spec, "OCI Content Descriptors").
func partOf(raw json.RawMessage) (p Part, ok bool) {
	d, ok := object(raw)
	if !ok || d.has("urls") || undistributed(d.text("mediaType")) {
		return p, false
	}
	p.Digest = digest.Digest(d.text("digest"))
	if err := json.Unmarshal(d["size"], &p.Size); err != nil || p.Size < 0 {
		p.Size = 0
	}
	return p, p.Digest.Validate() == nil
}

// undistributed reports whether a layer's media type says that registries need
// not hold it.
func undistributed(mediaType string) bool {
	t := strings.ToLower(bare(mediaType))
	return strings.Contains(t, "nondistributable") || strings.Contains(t, ".foreign.")
}

// fields are the members of a JSON object, by their exact names.
type fields map[string]json.RawMessage

// object reads a JSON object. It refuses one that two readers could take in two
// ways: encoding/json and others match names in any case and let the last one
// win.
func object(raw []byte) (fields, bool) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	out, seen := fields{}, map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		name, isName := t.(string)
		folded := strings.ToLower(strings.ToUpper(name)) // as encoding/json folds them
		if err != nil || !isName || seen[folded] {
			return nil, false
		}
		seen[folded] = true
		var value json.RawMessage
		if dec.Decode(&value) != nil {
			return nil, false
		}
		out[name] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, false
	}
	return out, !dec.More()
}

// has reports whether the member is there and not null.
func (f fields) has(name string) bool {
	v, ok := f[name]
	return ok && string(v) != "null"
}

// text returns the member if it is a string, else "".
func (f fields) text(name string) string {
	var s string
	if json.Unmarshal(f[name], &s) != nil {
		return ""
	}
	return s
}

// list returns the elements of the member: config is one descriptor, the others
// are lists of them.
func (f fields) list(name string) (l []json.RawMessage) {
	if name == "config" {
		return []json.RawMessage{f[name]}
	}
	if json.Unmarshal(f[name], &l) != nil {
		return nil
	}
	return l
}
