package oci

import (
	"regexp"
	"strconv"
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

// The grammar of the OCI distribution spec ("Pulling manifests"), and that of a
// registry's host: labels in lower case, and perhaps a port.
var (
	namePattern     = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern      = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	registryPattern = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]*[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[0-9]{1,5})?$`)
	portPattern     = regexp.MustCompile(`^(.+)_([0-9]{1,5})$`)
)

const (
	// maxPath bounds a path in bytes.
	maxPath = 1024
	// maxName bounds a repository's name together with its registry. Many clients
	// limit both to 255 characters (OCI distribution spec, "Pulling manifests").
	maxName = 255
)

// ParsePath parses the escaped path of a request and its ?ns=. Errors are *PathError.
// It accepts no escape except that of a colon, so that no path means one thing here
// and another upstream.
func ParsePath(escaped, ns string, names Names) (Request, error) {
	path := strings.NewReplacer("%3A", ":", "%3a", ":").Replace(escaped)
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok || len(path) > maxPath || strings.ContainsAny(path, "%") {
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
	parts := strings.Split(rest, "/")
	if len(parts) < 3 {
		return Request{}, &PathError{"NOT_FOUND", "the path is not one of the registry API"}
	}
	last, verb := parts[len(parts)-1], parts[len(parts)-2]
	req := Request{Name: strings.Join(parts[:len(parts)-2], "/")}
	switch {
	case verb == "tags" && last == "list":
		req.Resource = TagsResource
		return req, nil
	case verb == "manifests" && !strings.Contains(last, ":"):
		req.Tag = last
		if !tagPattern.MatchString(last) {
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
	d := digest.Digest(s)
	if err := d.Validate(); err != nil {
		return "", &PathError{"DIGEST_INVALID", "the digest is not of the form algorithm:hex"}
	}
	if a := d.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return "", &PathError{"DIGEST_INVALID", "only sha256 and sha512 digests can be verified"}
	}
	return d, nil
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
	case !namePattern.MatchString(name) || len(registry)+1+len(name) > maxName:
		return "", "", &PathError{"NAME_INVALID", "the name is not valid: it must have parts of lower-case letters and digits, up to 255 characters with the registry"}
	}
	return registry, name, nil
}

// isRegistry reports whether s is a host or host:port.
func isRegistry(s string) bool {
	if !registryPattern.MatchString(s) {
		return false
	}
	_, port, ok := strings.Cut(s, ":")
	if !ok {
		return true
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
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
	if m := portPattern.FindStringSubmatch(first); m != nil {
		host := n.Canonical(m[1] + ":" + m[2])
		if strings.Contains(m[1], ".") || m[1] == "localhost" || n.Known(host) {
			return host, true
		}
	}
	if strings.Contains(first, ".") || strings.Contains(first, ":") {
		return n.Canonical(first), true
	}
	return "", false
}
