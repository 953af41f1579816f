package config

import (
	"errors"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// DefaultRegion is the region that requests to a bucket are signed for if none is set.
const DefaultRegion = "us-east-1"

// An Archive names a bucket of an S3-compatible server, and how it is reached.
type Archive struct {
	Endpoint  *url.URL // http or https, a host and no path
	Bucket    string
	Prefix    string // of all keys, without slashes at its ends; may be ""
	Region    string
	AccessKey string // set together with SecretKey or not at all
	SecretKey Secret

	// Cleared once they are read.
	accessKeyFile, secretKeyFile string
}

var (
	endpointKind = kind[*url.URL]{"URL", false, parseEndpoint, nil}
	bucketKind   = kind[string]{"bucket", false, parseBucket, nil}
	keysKind     = kind[string]{"path", false, parseKeyPrefix, nil}
)

// parseEndpoint parses the address of an S3 server. Without a scheme it is https.
func parseEndpoint(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("is not an http:// or https:// URL; use for example https://s3.example.com") // err may show a login
	case u.User != nil:
		return nil, errors.New("has a login; set access_key and secret_key")
	case !validAuthority(u):
		return nil, errors.New("has no valid host; use for example https://s3.example.com:9000")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, errors.New("must end after its host and port; name the bucket in bucket, and a folder in prefix")
	}
	u.Path, u.Host = "", strings.ToLower(u.Host)
	return u, nil
}

// bucketName matches the names of buckets (Amazon S3 User Guide, "Bucket naming rules").
var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

func parseBucket(s string) (string, error) {
	if !bucketName.MatchString(s) || strings.Contains(s, "..") || validIP(s) {
		return "", errors.New("is not the name of a bucket; use 3 to 63 lower-case letters, digits, dots and hyphens, with a letter or digit at both ends")
	}
	return s, nil
}

// keyPart is one part of a key that needs no escapes.
var keyPart = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

// parseKeyPrefix parses a prefix of keys. Slashes at its ends are cut.
func parseKeyPrefix(s string) (string, error) {
	if s = strings.Trim(s, "/"); s == "" {
		return "", nil
	}
	for part := range strings.SplitSeq(s, "/") {
		if !keyPart.MatchString(part) || part == "." || part == ".." || len(s) > 255 {
			return "", errors.New("is not a prefix; use letters, digits and . _ - between its slashes, at most 255 in all")
		}
	}
	return s, nil
}

// checkArchive completes the archive.
func (k *checker) checkArchive(a *Archive) {
	k.require("archive.endpoint", a.Endpoint != nil, "has no endpoint; set endpoint to the URL of an S3-compatible server")
	k.require("archive.bucket", a.Bucket != "", "has no bucket; set bucket to the name of one that exists")
	access, secret := Secret(a.AccessKey), a.SecretKey
	k.keyFrom("archive.access_key", &access, a.accessKeyFile)
	k.keyFrom("archive.secret_key", &secret, a.secretKeyFile)
	a.AccessKey, a.SecretKey = access.Reveal(), secret
	a.accessKeyFile, a.secretKeyFile = "", ""
	failed := slices.ContainsFunc([]string{"archive.access_key", "archive.access_key_file", "archive.secret_key", "archive.secret_key_file"}, k.failed)
	switch {
	case failed:
	case a.AccessKey != "" && a.SecretKey == "":
		k.problem(k.at("archive.access_key", "archive.access_key_file"), "archive.access_key", "has no secret key; set secret_key or secret_key_file too")
	case a.AccessKey == "" && a.SecretKey != "":
		k.problem(k.at("archive.secret_key", "archive.secret_key_file"), "archive.secret_key", "has no access key; set access_key or access_key_file too")
	}
	if a.Endpoint != nil && a.Endpoint.Scheme == "http" && !near(a.Endpoint.Hostname()) {
		k.problem(k.at("archive.endpoint"), "archive.endpoint", "is plain http to a host that may be anywhere: whoever is on the way could read what private registries delivered; use https, or a private address or a name of your own network")
	}
}

// require reports a key of the archive that has to be set.
func (k *checker) require(path string, set bool, missing string) {
	if !set && !k.failed(path) {
		k.problem(k.at("archive"), "archive", "%s", missing)
	}
}

// keyFrom reads a key of the archive from a file, if one is named.
func (k *checker) keyFrom(path string, key *Secret, file string) {
	if file == "" {
		return
	}
	name := path + "_file"
	if *key != "" {
		k.problem(k.at(name), name, "is set as well as %s; keep one of them", strings.TrimPrefix(path, "archive."))
		return
	}
	text, err := readSecret(file)
	if err != nil {
		k.problem(k.at(name), name, "%s", err)
	}
	*key = Secret(text)
}

// ownDomains are never in the public DNS: RFC 6761 (localhost), RFC 6762 (local), RFC 8375
// (home.arpa), ICANN's resolution 2024.07.29.06 (internal), and what Kubernetes calls
// services by (svc).
var ownDomains = []string{".localhost", ".local", ".home.arpa", ".internal", ".svc"}

// near reports whether a host is in the operator's own network: a private address or that of
// this machine, or a name to which only the own network can give a meaning.
func near(host string) bool {
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		a = a.Unmap()
		return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast()
	}
	return !strings.Contains(host, ".") || slices.ContainsFunc(ownDomains, func(d string) bool { return strings.HasSuffix(host, d) })
}
