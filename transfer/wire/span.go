package wire

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// A Span is the part of some content that an answer holds.
type Span struct {
	Offset, Length int64 // Length is -1 to an end that is not known
	Partial        bool  // 206: a part was asked for
	Beyond         bool  // 416: the part that was asked for does not exist
}

// SpanOf understands Range and If-Range (RFC 9110 sections 14.2 and 13.1.5) for
// content of that size, -1 if it is not known, and that entity tag. It serves one
// range. It ignores several ranges, a unit other than bytes and anything that is
// no range, as the RFC allows: the client gets the whole.
func SpanOf(r *http.Request, size int64, etag string) Span {
	whole := Span{Length: size}
	spec, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes=")
	if !ok || size <= 0 || r.Method != http.MethodGet || strings.Contains(spec, ",") {
		return whole
	}
	if cond := r.Header.Get("If-Range"); cond != "" && cond != etag {
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
		return Span{Beyond: true}
	}
	return Span{Offset: off, Length: min(end, size-1) - off + 1, Partial: true}
}

// suffix is the last bytes of the content, as many as s says.
func suffix(s string, size int64) Span {
	n, ok := parsePosition(s)
	switch {
	case !ok:
		return Span{Length: size}
	case n == 0:
		return Span{Beyond: true}
	default:
		n = min(n, size)
		return Span{Offset: size - n, Length: n, Partial: true}
	}
}

// greater compares decimal numbers of any length.
func greater(a, b string) bool {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return len(a) > len(b) || len(a) == len(b) && a > b
}

// parsePosition reads a number that is digits only. A number too large for an
// int64 lies beyond any content.
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

// SpanFrom is the rest of content of that size, -1 if it is not known, from off
// on.
func SpanFrom(off, size int64) Span {
	switch {
	case off == 0:
		return Span{Length: size}
	case size < 0:
		return Span{Offset: off, Length: -1, Partial: true}
	case off >= size:
		return Span{Beyond: true}
	default:
		return Span{Offset: off, Length: size - off, Partial: true}
	}
}

// Describe sets the header of an answer that holds the span of content of that
// size, and returns its status. HTTP has no form for a part whose end nobody
// knows: that Content-Range leaves the end out.
func (s Span) Describe(h http.Header, size int64) int {
	switch {
	case s.Beyond:
		h.Set("Content-Range", fmt.Sprintf("bytes */%d", size))
		h.Del("Content-Type")
		h.Set("Content-Length", "0")
		return http.StatusRequestedRangeNotSatisfiable
	case s.Partial && s.Length < 0:
		h.Set("Content-Range", fmt.Sprintf("bytes %d-/*", s.Offset))
		return http.StatusPartialContent
	case s.Partial:
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", s.Offset, s.Offset+s.Length-1, size))
		h.Set("Content-Length", strconv.FormatInt(s.Length, 10))
		return http.StatusPartialContent
	}
	if size >= 0 {
		h.Set("Content-Length", strconv.FormatInt(size, 10))
	}
	return http.StatusOK
}
