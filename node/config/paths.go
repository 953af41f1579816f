package config

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
)

// prefixPart is one part of a path that needs no escapes (RFC 3986 section 3.3).
var prefixPart = regexp.MustCompile(`^[A-Za-z0-9._~@:+-]+$`)

// parsePrefix parses the path that a registry's API is below. A slash at its end is cut.
func parsePrefix(s string) (string, error) {
	s = strings.TrimSuffix(s, "/")
	if s == "" {
		return "", nil
	}
	parts := strings.Split(s, "/")
	switch {
	case parts[0] != "":
		return "", errors.New("does not begin with a slash; use for example /prefix")
	case len(s) > 255:
		return "", fmt.Errorf("is %d bytes long; the limit is 255", len(s))
	case parts[len(parts)-1] == "v2":
		return "", errors.New("ends with /v2, which is added; remove that")
	}
	for _, part := range parts[1:] {
		if !prefixPart.MatchString(part) || part == "." || part == ".." {
			return "", errors.New("is not a path; use letters, digits and . _ ~ @ : + - between its slashes, as in /prefix")
		}
	}
	return s, nil
}

// pathPart is one component of a repository's name (OCI distribution spec,
// "Pulling manifests").
var pathPart = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$`)

func parsePart(s string) (string, error) {
	if len(s) > 128 || !pathPart.MatchString(s) {
		return "", errors.New("cannot be part of an image name; use lower-case letters and digits, with . _ - between them")
	}
	return s, nil
}

// parsePattern parses a pattern of tags. A tag has no slash (OCI distribution spec,
// "Pulling manifests").
func parsePattern(s string) (string, error) {
	if _, err := path.Match(s, ""); err != nil || s == "" || strings.Contains(s, "/") {
		return "", errors.New("is not a pattern of tags; use * for any characters, ? for one, [a-z] for one of these")
	}
	return s, nil
}
