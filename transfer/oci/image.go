package oci

import (
	"strings"
)

// ParseImage parses the name of an image as people write it: [registry/]repository, with
// :tag or @digest or both; the tag is "latest" if neither is given. Of both, the digest
// counts. Errors are *PathError.
func ParseImage(name string, names Names) (Ref, error) {
	var ref Ref
	rest, d, pinned := strings.Cut(name, "@")
	if pinned {
		var err error
		if ref.Digest, err = parseDigest(d); err != nil {
			return Ref{}, err
		}
	}
	if colon := strings.LastIndexByte(rest, ':'); colon > strings.LastIndexByte(rest, '/') {
		rest, ref.Tag = rest[:colon], rest[colon+1:]
	} else if !pinned {
		ref.Tag = "latest"
	}
	if ref.Tag != "" && !isTag(ref.Tag) {
		return Ref{}, &PathError{"MANIFEST_INVALID", "the tag is not valid: it may hold letters, digits, _ . and -, up to 128"}
	}
	if pinned {
		ref.Tag = ""
	}
	var err error
	ref.Registry, ref.Repository, err = names.resolve(rest, "")
	return ref, err
}
