package oci

import (
	"strings"

	"github.com/opencontainers/go-digest"

	// go-digest knows only the algorithms that are linked in.
	_ "crypto/sha256"
	_ "crypto/sha512"
)

// A Resource is the kind of thing in a repository that a path names.
type Resource int

// The resources of the pull API (OCI distribution spec, end-2, end-3, end-8, end-12).
const (
	ManifestResource Resource = iota
	BlobResource
	TagsResource
	ReferrersResource
)

// A Request is a parsed /v2 path.
type Request struct {
	Ref
	Resource Resource
	Name     string // the name as the client wrote it, for links back to this node
	NS       string // the ?ns= of the client, "" if it gave none
}

// Names maps the names that clients use to registries and repositories.
type Names struct {
	Default   string                     // canonical registry of names without one
	Hub       string                     // canonical registry whose one-part names are in library/
	Canonical func(string) string        // the one form of a registry's host[:port]
	Alias     map[string]string          // other first parts that stand for a registry
	Known     func(registry string) bool // whether a registry is configured
}

// A PathError says what is wrong with a path.
type PathError struct {
	Code   string // NAME_INVALID, DIGEST_INVALID, MANIFEST_INVALID, or NOT_FOUND for a path outside the API
	Reason string
}

// Error implements error.
func (e *PathError) Error() string { return e.Reason }

const (
	// maxPath bounds a path in bytes.
	maxPath = 1024
	// maxName bounds a repository's name together with its registry. Many clients
	// limit both to 255 characters (OCI distribution spec, "Pulling manifests").
	maxName = 255
)

// unescape undoes the escapes that a path may have.
var unescape = strings.NewReplacer("%3A", ":", "%3a", ":", "%5B", "[", "%5b", "[", "%5D", "]", "%5d", "]")

// ParsePath parses the escaped path of a request and its ?ns=. Errors are *PathError.
// It accepts no escapes except those of a colon and of the brackets around an IPv6
// address, so that no path means one thing here and another upstream.
func ParsePath(escaped, ns string, names Names) (Request, error) {
	path := escaped
	if strings.Contains(path, "%") {
		path = unescape.Replace(path)
	}
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok || len(path) > maxPath || strings.Contains(path, "%") {
		return Request{}, &PathError{"NOT_FOUND", "the path is not one of the registry API"}
	}
	req, err := split(rest)
	if err != nil {
		return Request{}, err
	}
	req.NS = ns
	registry, repository, err := names.resolve(req.Name, ns)
	if err != nil {
		return Request{}, err
	}
	req.Registry, req.Repository = registry, repository
	return req, nil
}

// split parses what follows /v2/, from its end, since a name has any number of parts.
func split(rest string) (Request, error) {
	end := strings.LastIndexByte(rest, '/')
	middle := strings.LastIndexByte(rest[:max(end, 0)], '/')
	if middle < 0 {
		return Request{}, &PathError{"NOT_FOUND", "the path is not one of the registry API"}
	}
	last, verb := rest[end+1:], rest[middle+1:end]
	req := Request{Name: rest[:middle]}
	switch {
	case verb == "tags" && last == "list":
		req.Resource = TagsResource
		return req, nil
	case verb == "manifests" && !strings.Contains(last, ":"):
		req.Tag = last
		if !isTag(last) {
			return req, &PathError{"MANIFEST_INVALID", "the tag is not valid: it may hold letters, digits, _ . and -, up to 128"}
		}
		return req, nil
	case verb == "manifests":
		req.Resource = ManifestResource
	case verb == "blobs":
		req.Resource = BlobResource
	case verb == "referrers":
		req.Resource = ReferrersResource
	default:
		return req, &PathError{"NOT_FOUND", "the path is not one of the registry API"}
	}
	var err error
	req.Digest, err = parseDigest(last)
	return req, err
}

// parseDigest accepts the digests that can be verified.
func parseDigest(s string) (digest.Digest, error) {
	if Verifiable(s) {
		return digest.Digest(s), nil
	}
	if digest.Digest(s).Validate() != nil {
		return "", &PathError{"DIGEST_INVALID", "the digest is not of the form algorithm:hex"}
	}
	return "", &PathError{"DIGEST_INVALID", "only sha256 and sha512 digests can be verified"}
}

// resolve returns the registry and the repository that a name stands for.
func (n Names) resolve(name, ns string) (registry, repository string, err error) {
	first, rest, several := strings.Cut(name, "/")
	lead, named := "", false
	if several {
		lead, named = n.registry(first)
	}
	switch {
	case ns != "":
		registry = n.Canonical(ns)
		if !isRegistry(registry) {
			return "", "", &PathError{"NAME_INVALID", "ns is not a registry's host"}
		}
		if named && lead == registry { // a client that is given a path prefix names the registry twice
			name = rest
		}
	case named:
		registry, name = lead, rest
	default:
		registry = n.Default
	}
	if registry == n.Hub && !strings.Contains(name, "/") {
		name = "library/" + name
	}
	switch {
	case !isRegistry(registry):
		return "", "", &PathError{"NAME_INVALID", "the first part of the name is not a registry's host"}
	case !isName(name) || len(registry)+1+len(name) > maxName:
		return "", "", &PathError{"NAME_INVALID", "the name is not valid: it must have parts of lower-case letters and digits, up to 255 characters with the registry"}
	}
	return registry, name, nil
}

// registry returns the registry that the first of several parts of a name stands for.
// It is not ok if that part belongs to the repository.
func (n Names) registry(first string) (string, bool) {
	if r, ok := n.Alias[first]; ok {
		return r, true
	}
	if strings.ContainsAny(first, ".:") && !strings.Contains(first, "_") || first == "localhost" {
		return n.Canonical(first), true
	}
	if i := strings.LastIndexByte(first, '_'); i > 0 && len(first)-i <= 6 && digits(first[i+1:]) {
		host := n.Canonical(first[:i] + ":" + first[i+1:])
		if strings.Contains(first[:i], ".") || first[:i] == "localhost" || n.Known(host) {
			return host, true
		}
	}
	if strings.Contains(first, ".") || strings.Contains(first, ":") {
		return n.Canonical(first), true
	}
	return "", false
}
