package oci

import (
	"net/netip"
	"strconv"
	"strings"
)

// The grammar of the OCI distribution spec ("Pulling manifests"), and that of a registry's host.
// It is read by hand: each request passes here several times. TestGrammar holds it to the spec's
// own expressions.

// isName reports whether s is a repository's name: parts between slashes, each of lower-case
// letters and digits, with one of . _ __ or any number of - between two of them.
func isName(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if !isPart(part) {
			return false
		}
	}
	return true
}

// isPart reports whether s is a part of a repository's name.
func isPart(s string) bool {
	if s == "" || !lower(s[0]) || !lower(s[len(s)-1]) {
		return false
	}
	for i := 1; i < len(s); i++ {
		before, c := s[i-1], s[i]
		switch {
		case lower(c), c == '-' && (lower(before) || before == '-'):
		case c == '.' && lower(before):
		case c == '_' && (lower(before) || before == '_' && lower(s[i-2])):
		default:
			return false
		}
	}
	return true
}

// isTag reports whether s is a tag.
func isTag(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !lower(c) && (c < 'A' || c > 'Z') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// Verifiable reports whether s is a sha256 or sha512 digest, in lower case.
func Verifiable(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	n := 64
	if !ok {
		hex, ok = strings.CutPrefix(s, "sha512:")
		n = 128
	}
	if !ok || len(hex) != n {
		return false
	}
	for i := range n {
		if c := hex[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// isRegistry reports whether s is a host or host:port in lower case. An IPv6 address is in
// brackets (RFC 3986 section 3.2.2).
func isRegistry(s string) bool {
	if literal, ok := strings.CutPrefix(s, "["); ok {
		address, port, ok := strings.Cut(literal, "]")
		ip, err := netip.ParseAddr(address)
		return ok && err == nil && ip.Is6() && ip.Zone() == "" && (port == "" || port[0] == ':' && isPort(port[1:]))
	}
	host, port, ported := strings.Cut(s, ":")
	for label := range strings.SplitSeq(host, ".") {
		if !isLabel(label) {
			return false
		}
	}
	return !ported || len(port) <= 5 && digits(port) && isPort(port)
}

// isLabel reports whether s is a label of a host's name.
func isLabel(s string) bool {
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if !lower(s[i]) && s[i] != '-' {
			return false
		}
	}
	return true
}

// isPort reports whether s is the number of a port, in its one form: with zeros before it, it
// would be another name of the same registry, to which no rule about that one applies.
func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0 && s[0] != '0'
}

// digits reports whether s is made of digits.
func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// lower reports whether c is a lower-case letter or a digit.
func lower(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
