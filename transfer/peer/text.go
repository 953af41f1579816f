package peer

import (
	"net/url"
	"strings"
	"unicode"
)

// printable cuts s to limit bytes and replaces what does not print by ?.
func printable(s string, limit int) string {
	var b strings.Builder
	for _, r := range s {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			r = '?'
		}
		if b.Len()+len(string(r)) > limit {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

// visible reports whether s is printable ASCII and no longer than limit.
func visible(s string, limit int) bool {
	return len(s) <= limit && strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}

// isLocation reports whether a redirect can be handed to a client.
func isLocation(s string) bool {
	if !visible(s, maxNext) {
		return false
	}
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != ""
}
