package oci

import (
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	// go-digest knows only the algorithms that are linked in.
	_ "crypto/sha256"
	_ "crypto/sha512"
)

// A Resource is what of a repository a path names.
type Resource int

// The resources of the pull API (OCI distribution spec, end-2, end-3, end-8, end-12).
const (
	ManifestResource Resource = iota
	BlobResource
	TagsResource
	ReferrersResource
)

// A Request is a /v2 path, understood.
type Request struct {
	Ref
	Resource Resource
	Name     string // the name as the client wrote it, for links back to us
	NS       string // the ?ns= of the client, "" if it gave none
}

// Names says how a client's names become a registry's.
type Names struct {
	Default   string                     // canonical registry of names that name none
	Hub       string                     // canonical registry where one-part names mean library/
	Canonical func(string) string        // the one form of a registry's host[:port]
	Alias     map[string]string          // other first parts that mean a registry
	Known     func(registry string) bool // whether a registry is configured
}

// A PathError says what of a path is wrong, by its OCI error code.
type PathError struct {
	Code   string // NAME_INVALID, DIGEST_INVALID, MANIFEST_INVALID, or NOT_FOUND for no path of the API
	Reason string
}

// Error implements error.
func (e *PathError) Error() string { return e.Reason }

// The grammar of the OCI distribution spec ("Pulling manifests"), and that of a
// registry's host: lower-case labels, and a port.
var (
	namePattern     = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern      = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	registryPattern = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]*[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[0-9]{1,5})?$`)
	portPattern     = regexp.MustCompile(`^(.+)_([0-9]{1,5})$`)
)

const (
	// maxPath bounds a path in bytes.
	maxPath = 1024
	// maxName bounds a name, the registry's included (OCI distribution spec,
	// "Pulling manifests": many clients limit it to 255 characters).
	maxName = 255
)

// ParsePath understands the escaped path of a request and its ?ns=. Errors are
// *PathError. No escape but that of a digest's colon is let through, so that
// nothing can mean one thing here and another upstream.
func ParsePath(escaped, ns string, names Names) (Request, error) {
	path := strings.NewReplacer("%3A", ":", "%3a", ":").Replace(escaped)
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok || len(path) > maxPath || strings.ContainsAny(path, "%") {
		return Request{}, &PathError{"NOT_FOUND", "no path of the registry API"}
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

// split takes the path behind /v2/ apart from its end, since names have any
// number of parts.
func split(rest string) (Request, error) {
	parts := strings.Split(rest, "/")
	if len(parts) < 3 {
		return Request{}, &PathError{"NOT_FOUND", "no path of the registry API"}
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
			return req, &PathError{"MANIFEST_INVALID", "tag is not of the form the distribution spec gives"}
		}
		return req, nil
	case verb == "manifests":
		req.Resource = ManifestResource
	case verb == "blobs":
		req.Resource = BlobResource
	case verb == "referrers":
		req.Resource = ReferrersResource
	default:
		return req, &PathError{"NOT_FOUND", "no path of the registry API"}
	}
	var err error
	req.Digest, err = parseDigest(last)
	return req, err
}

// parseDigest takes the digests that can be verified.
func parseDigest(s string) (digest.Digest, error) {
	d := digest.Digest(s)
	if err := d.Validate(); err != nil {
		return "", &PathError{"DIGEST_INVALID", "digest is not of the form algorithm:hex"}
	}
	if a := d.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return "", &PathError{"DIGEST_INVALID", "only sha256 and sha512 digests can be verified"}
	}
	return d, nil
}

// resolve finds out which registry and repository a name means.
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
			return "", "", &PathError{"NAME_INVALID", "ns names no registry"}
		}
		if named && lead == registry { // clients with a path prefix name it twice
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
		return "", "", &PathError{"NAME_INVALID", "the first part of the name is no registry"}
	case !namePattern.MatchString(name) || len(registry)+1+len(name) > maxName:
		return "", "", &PathError{"NAME_INVALID", "name is not of the form the distribution spec gives"}
	}
	return registry, name, nil
}

// isRegistry reports whether s is a host, or host:port, that can be asked.
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

// registry reports which registry the first of several parts names, if it does.
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

// listKeys are the query parameters of listings that mean something to a
// registry: those of the spec, and what the large ones page by. No other is
// passed on.
var listKeys = []string{"n", "last", "artifactType", "next_page", "page", "page_size", "nextToken", "marker"}

// ListQuery returns what of a client's query is passed on for a listing.
func ListQuery(q url.Values) url.Values {
	out := url.Values{}
	for _, k := range listKeys {
		if v := q.Get(k); v != "" {
			out.Set(k, v)
		}
	}
	return out
}
