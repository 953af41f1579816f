package node

import (
	"fmt"
	"net/http"
	"oci-proxy/transfer/oci"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// identify sets what every answer about a blob or a manifest carries.
func (n *Node) identify(w http.ResponseWriter, req oci.Request, d digest.Digest, way oci.Provenance) {
	h := w.Header()
	h.Set("Docker-Content-Digest", d.String())
	h.Set("ETag", etag(d))
	h.Set("Accept-Ranges", "bytes")
	h.Set("Cache-Status", way.CacheStatus(n.name, req.Tag != ""))
	h.Set("Cache-Control", n.cacheControl(req))
	if req.Tag != "" {
		h.Set("Vary", "Accept")
	}
	if way.Stale != nil {
		h.Set("Warning", fmt.Sprintf(`299 - "stale: %s/%s:%s was last checked before the registry failed"`, req.Registry, req.Repository, req.Tag))
	}
}

// etag is a digest as an entity tag. It is strong: the digest names the bytes.
func etag(d digest.Digest) string { return `"` + d.String() + `"` }

// year is the lifetime of what can't change.
const year = 365 * 24 * time.Hour

// cacheControl lets others keep what a digest names, but not share what needs
// a login, here or, as far as any member knows, upstream. What a tag means they
// have to ask each time.
func (n *Node) cacheControl(req oci.Request) string {
	if req.Tag != "" {
		return "no-cache"
	}
	scope := "public"
	if !n.access.open || n.policy(req.Registry).Private {
		scope = "private"
	}
	return fmt.Sprintf("%s, max-age=%d, immutable", scope, int(year.Seconds()))
}

// unchanged reports whether the client has what d names (RFC 9110 section
// 13.1.2).
func unchanged(r *http.Request, d digest.Digest) bool {
	for _, line := range r.Header.Values("If-None-Match") {
		for t := range strings.SplitSeq(line, ",") {
			t = strings.TrimSpace(t)
			if t == "*" || strings.TrimPrefix(t, "W/") == etag(d) {
				return true
			}
		}
	}
	return false
}

// A span is the part of some content that an answer holds.
type span struct {
	off, n int64
	part   bool // 206: the client asked for a part
	beyond bool // 416: the part it asked for is not there
}

// spanOf understands Range and If-Range (RFC 9110 section 14.2, 13.1.5) for
// content of size bytes, -1 where that is not known. One range is heeded. More
// than one, a unit that is not bytes, and what is no range at all are ignored,
// as the RFC allows: the client gets the whole.
func spanOf(r *http.Request, size int64, d digest.Digest) span {
	whole := span{n: size}
	spec, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes=")
	if !ok || size <= 0 || r.Method != http.MethodGet || strings.Contains(spec, ",") {
		return whole
	}
	if cond := r.Header.Get("If-Range"); cond != "" && cond != etag(d) {
		return whole
	}
	first, last, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return whole
	}
	if first == "" {
		return suffix(last, size)
	}
	off, ok := parsePosition(first)
	if !ok {
		return whole
	}
	end := size - 1
	if last != "" {
		if end, ok = parsePosition(last); !ok || greater(first, last) {
			return whole
		}
	}
	if off >= size {
		return span{beyond: true}
	}
	return span{off: off, n: min(end, size-1) - off + 1, part: true}
}

// suffix is the last bytes of the content, as many as s says.
func suffix(s string, size int64) span {
	n, ok := parsePosition(s)
	switch {
	case !ok:
		return span{n: size}
	case n == 0:
		return span{beyond: true}
	default:
		n = min(n, size)
		return span{off: size - n, n: n, part: true}
	}
}

// greater compares numbers of any length.
func greater(a, b string) bool {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return len(a) > len(b) || len(a) == len(b) && a > b
}

// parsePosition reads a number of digits alone. One that is too large to hold
// lies behind any content there is.
func parsePosition(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 1<<63 - 1, true
	}
	return n, true
}

// begin writes the header of an answer that holds a span of some content.
func (s span) begin(w http.ResponseWriter, size int64) {
	h := w.Header()
	switch {
	case s.beyond:
		h.Set("Content-Range", fmt.Sprintf("bytes */%d", size))
		h.Del("Content-Type")
		h.Set("Content-Length", "0")
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
	case s.part:
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", s.off, s.off+s.n-1, size))
		h.Set("Content-Length", strconv.FormatInt(s.n, 10))
		w.WriteHeader(http.StatusPartialContent)
	default:
		if size >= 0 {
			h.Set("Content-Length", strconv.FormatInt(size, 10))
		}
		w.WriteHeader(http.StatusOK)
	}
}
