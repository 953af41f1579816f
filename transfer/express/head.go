package express

import (
	"bytes"
	"net/http"
	"strings"
)

// A form is what the lane makes of some bytes.
type form int

const (
	unclear form = iota // not surely one request and nothing else
	whole               // the whole head of one request without a body, or what net/http refuses
	simple              // whole, and read here as net/http would read it
)

// A head is what a simple request says.
type head struct {
	method, path string
	fields       []byte // the lines after the first, with the empty one
}

var (
	lineEnd = []byte("\r\n")
	headEnd = []byte("\r\n\r\n")
	version = []byte(" HTTP/1.1")
)

// parse reads a request's first line (RFC 9112 section 3), GET or HEAD of HTTP/1.1, and splits
// off its fields, which read reads. The path of a simple request holds what means itself only.
func parse(b []byte) (h head, f form) {
	line, fields, _ := bytes.Cut(b, lineEnd)
	target, ok := bytes.CutPrefix(line, []byte("GET "))
	h.method, h.fields = http.MethodGet, fields
	if !ok {
		target, ok = bytes.CutPrefix(line, []byte("HEAD "))
		h.method = http.MethodHead
	}
	target, current := bytes.CutSuffix(target, version)
	if !ok || !current || !all(target, isVisible) || bytes.Index(b, headEnd) != len(b)-len(headEnd) {
		return h, unclear
	}
	if !bytes.HasPrefix(target, []byte("/v2/")) || !all(target, isPlain) || bytes.Contains(target, []byte("..")) {
		return h, whole
	}
	h.path = string(target)
	return h, simple
}

// read reads the fields of a request (RFC 9112 section 5). Fields of a simple one are few, and
// change neither what is asked for nor how the answer ends.
func read(fields []byte) (header http.Header, host string, f form) {
	header, f = http.Header{}, simple
	for rest := fields; !bytes.Equal(rest, lineEnd); {
		line, after, ok := bytes.Cut(rest, lineEnd)
		name, value, colon := bytes.Cut(line, []byte(":"))
		if !ok || !colon || len(name) == 0 || !all(name, isToken) || !all(value, isText) {
			return nil, "", unclear
		}
		rest = after
		switch key, text := http.CanonicalHeaderKey(string(name)), strings.Trim(string(value), " \t"); key {
		case "Content-Length", "Transfer-Encoding", "Expect", "Upgrade", "Trailer", "Te", "Http2-Settings":
			return nil, "", unclear
		case "Host":
			if host != "" || text == "" || !all([]byte(text), isPlain) {
				f = whole
			}
			host = text
		case "Connection":
			if !strings.EqualFold(text, "keep-alive") {
				f = whole
			}
			header[key] = append(header[key], text)
		case "Accept", "Accept-Encoding", "Accept-Language", "User-Agent", "Docker-Distribution-Api-Version":
			if !all([]byte(text), isPrintable) {
				f = whole
			}
			header[key] = append(header[key], text)
		default:
			f = whole
		}
	}
	if host == "" {
		f = whole
	}
	return header, host, f
}

// all reports whether each byte is of a kind.
func all(b []byte, is func(byte) bool) bool {
	for _, c := range b {
		if !is(c) {
			return false
		}
	}
	return true
}

func isVisible(c byte) bool   { return c > ' ' && c < 0x7f }
func isPrintable(c byte) bool { return c >= ' ' && c < 0x7f }
func isText(c byte) bool      { return c >= ' ' && c != 0x7f || c == '\t' }
func isDigit(c byte) bool     { return c >= '0' && c <= '9' }
func isLetter(c byte) bool    { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
func isPlain(c byte) bool     { return isLetter(c) || isDigit(c) || strings.IndexByte("/.:_-", c) >= 0 }

// isToken is for names of fields (RFC 9110 section 5.6.2).
func isToken(c byte) bool {
	return isLetter(c) || isDigit(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
