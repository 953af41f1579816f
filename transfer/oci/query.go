package oci

import (
	"net/url"
	"slices"
	"strings"
)

// A Query selects a page of a list: the query of a request as it goes to the registry,
// without a question mark. Which keys a registry pages by is its own affair (OCI
// distribution spec, "Listing tags": the link to the next page is opaque), so order and
// encoding stay as they came. Only two things are different: it lacks the keys that are
// not for a registry, and what can't stand in a request line or a Link header is escaped.
type Query string

// MaxQuery bounds a Query, in bytes. Readers of a Query refuse longer ones.
const MaxQuery = 8 << 10

// notForRegistries are the keys that no Query has: ns names the registry to this proxy,
// and access_token is a login (RFC 6750 section 2.3), which may be the client's.
var notForRegistries = []string{"ns", "access_token"}

// ListQuery returns what of a raw query goes to a registry for a list.
func ListQuery(raw string) Query {
	var kept []string
	for pair := range strings.SplitSeq(raw, "&") {
		if !isOurs(pair) {
			kept = append(kept, escaped(pair))
		}
	}
	return Query(strings.Join(kept, "&"))
}

// With returns the query as a client of this node has to send it: with its ns, if that
// is not "".
func (q Query) With(ns string) string {
	switch {
	case ns == "":
		return string(q)
	case q == "":
		return "ns=" + url.QueryEscape(ns)
	default:
		return string(q) + "&ns=" + url.QueryEscape(ns)
	}
}

// Same reports whether two queries select the same page: they have the same keys and
// values, in whatever order and encoding.
func (q Query) Same(other Query) bool {
	return q.canonical() == other.canonical()
}

// canonical returns the one form of all queries that select the same page.
func (q Query) canonical() string {
	v, err := url.ParseQuery(string(q))
	if err != nil {
		return string(q)
	}
	return v.Encode()
}

// isOurs reports whether a pair of a query has a key that is not for registries. Some
// servers take a semicolon for the end of a pair, so the key may stand after one as well.
func isOurs(pair string) bool {
	for part := range strings.SplitSeq(pair, ";") {
		key, _, _ := strings.Cut(part, "=")
		if name, err := url.QueryUnescape(key); err == nil && slices.Contains(notForRegistries, name) {
			return true
		}
	}
	return false
}

// escaped escapes what is not visible ASCII, and what ends the address in a Link header
// (RFC 8288 section 3) or the request line.
func escaped(pair string) string {
	var b strings.Builder
	for _, c := range []byte(pair) {
		if c <= ' ' || c > '~' || strings.IndexByte(`"<>\^#`+"`", c) >= 0 {
			const digits = "0123456789ABCDEF"
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// Whole reports whether the list without a query answers the query too: it asks for the
// list's beginning, of some length, or of some type. Clients look at the types
// themselves unless they are told that the registry did (OCI distribution spec, "Listing
// Referrers").
func (q Query) Whole() bool {
	v, err := url.ParseQuery(string(q))
	for key := range v {
		if key != "n" && key != "artifactType" {
			return false
		}
	}
	return err == nil
}
