package config

import (
	"net/netip"
	"strings"
)

// validHostPort reports whether s is host or host:port. An IPv6 address must be in
// brackets.
func validHostPort(s string) bool {
	if validBracketed(s) {
		return true
	}
	host, port, ok := cutPort(s)
	return ok && validBracketed(host) && validPort(port)
}

// cutPort splits host:port at the last colon, unless a bracket follows it.
func cutPort(s string) (host, port string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.IndexByte(s[i:], ']') >= 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// badPort says that the text is a host with a number that is no port, or returns "".
func badPort(s string) string {
	host, port, ok := cutPort(s)
	if !ok || host != "" && !validBracketed(host) || port == "" || strings.Trim(port, "-0123456789") != "" || validPort(port) {
		return ""
	}
	return "has a port that is none; use a number from 1 to 65535"
}

func validPort(s string) bool {
	_, err := parsePort(s)
	return err == nil
}

// validBracketed reports whether s is a name, an IPv4 address, or an IPv6
// address in brackets.
func validBracketed(s string) bool {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		return ok && strings.Contains(inner, ":") && validIP(inner)
	}
	return validName(s)
}

func validIP(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Zone() == ""
}

// validName reports whether s is an IPv4 address or a host name: labels of
// letters, digits, hyphens and (for container names) underscores. A name whose
// last label is a number must be an IPv4 address (RFC 3696 section 2).
func validName(s string) bool {
	if len(s) > 253 {
		return false
	}
	last := s[strings.LastIndexByte(s, '.')+1:]
	if strings.Trim(last, "0123456789") == "" {
		return validIP(s)
	}
	if strings.HasPrefix(strings.ToLower(last), "0x") { // some resolvers read 0x7f.1 as 127.0.0.1
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if !validLabel(label) {
			return false
		}
	}
	return true
}

func validLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// loopback reports whether only this machine can reach host, which may have a
// port.
func loopback(host string) bool {
	if h, _, ok := cutPort(host); ok && !validIP(host) {
		host = h
	}
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && a.IsLoopback()
}
