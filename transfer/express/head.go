package express

import (
	"bufio"
	"bytes"
	"net/http"
	"slices"
	"strings"
	"unicode"
)

// A head is what the first line of a simple request says.
type head struct {
	method, path string
	fields       []byte // the lines that follow, with the empty one
}

// parse reads the first line of a request (RFC 9112 section 3). It reports false unless that is a
// GET or HEAD of HTTP/1.1, for a path below /v2/ of bytes that mean themselves only.
func parse(b []byte) (h head, ok bool) {
	line, fields, _ := bytes.Cut(b, []byte("\r\n"))
	h = head{method: http.MethodGet, fields: fields}
	target, ok := bytes.CutPrefix(line, []byte("GET "))
	if !ok {
		h.method = http.MethodHead
		target, ok = bytes.CutPrefix(line, []byte("HEAD "))
	}
	target, current := bytes.CutSuffix(target, []byte(" HTTP/1.1"))
	if !ok || !current || !bytes.HasPrefix(target, []byte("/v2/")) || !plain(target) || bytes.Contains(target, []byte("..")) {
		return h, false
	}
	h.path = string(target)
	return h, true
}

// read reads a request by net/http's own parser. alone says that it has no body, and nothing
// follows it; simple, that its fields are few and change neither what is asked for nor how the
// answer ends.
func read(b []byte) (r *http.Request, alone, simple bool) {
	in := bufio.NewReaderSize(bytes.NewReader(b), len(b)+1)
	r, err := http.ReadRequest(in)
	if err != nil || r.Method != http.MethodGet && r.Method != http.MethodHead || r.Proto != "HTTP/1.1" || r.ContentLength != 0 {
		return nil, false, false
	}
	_, err = in.ReadByte()
	alone, simple = err != nil, r.Host != "" && plain([]byte(r.Host))
	for name, values := range r.Header {
		switch name {
		case "Content-Length", "Transfer-Encoding", "Expect", "Upgrade":
			alone = false
		case "Accept", "Accept-Encoding", "Accept-Language", "User-Agent", "Docker-Distribution-Api-Version":
			simple = simple && !slices.ContainsFunc(values, func(v string) bool { return strings.ContainsFunc(v, unicode.IsControl) })
		case "Connection":
			simple = simple && len(values) == 1 && strings.EqualFold(values[0], "keep-alive")
		default:
			simple = false
		}
	}
	return r, alone, simple && alone
}

// means are the bytes that mean themselves only, in a path and in a host.
const means = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/.:_-"

// plain reports whether all bytes mean themselves only.
func plain(b []byte) bool { return len(bytes.TrimLeft(b, means)) == 0 }
