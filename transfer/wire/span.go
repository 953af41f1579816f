package wire

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// A Span is the part of some content that an answer holds.
type Span struct {
	Offset, Length int64 // Length is -1 to an end that is not known
	Partial        bool  // 206: a part was asked for
	Open           bool  // no end was asked for
	Beyond         bool  // 416: the part that was asked for does not exist
}

// maxSpans bounds the ranges of one request.
const maxSpans = 16

// SpansOf understands Range and If-Range (RFC 9110 sections 14.2 and 13.1.5) for
// content of that size, -1 if it is not known, and that entity tag. It returns the
// spans of the answer in the order asked for, at least one. Two or more make a
// [Multipart]. Ranges that lie beyond the content are left out if others do not. It
// ignores a Range of more than 16 ranges, with ranges that overlap, with a unit other
// than bytes or with anything that is no range, as the RFC allows: the client gets the
// whole.
func SpansOf(r *http.Request, size int64, etag string) []Span {
	whole := []Span{{Length: size}}
	set, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes=")
	if !ok || size <= 0 || r.Method != http.MethodGet {
		return whole
	}
	if cond := r.Header.Get("If-Range"); cond != "" && cond != etag {
		return whole
	}
	asked, ok := parseSet(set, size)
	if !ok {
		return whole
	}
	there := slices.DeleteFunc(slices.Clone(asked), func(s Span) bool { return s.Beyond })
	switch {
	case len(there) == 0:
		return asked[:1]
	case overlap(there):
		return whole
	}
	return there
}

// SpanOf is SpansOf for content of which one range at a time is served: several are
// ignored.
func SpanOf(r *http.Request, size int64, etag string) Span {
	if r.Header["Range"] == nil {
		return Span{Length: size}
	}
	if spans := SpansOf(r, size, etag); len(spans) == 1 {
		return spans[0]
	}
	return Span{Length: size}
}

// parseSet reads a set of ranges. Elements of a list may be empty (RFC 9110 section
// 5.6.1), but not all.
func parseSet(set string, size int64) (spans []Span, ok bool) {
	elements := 0
	for spec := range strings.SplitSeq(set, ",") {
		if elements++; elements > 2*maxSpans {
			return nil, false
		}
		spec = strings.Trim(spec, " \t")
		if spec == "" {
			continue
		}
		s, ok := parseRange(spec, size)
		if !ok {
			return nil, false
		}
		spans = append(spans, s)
	}
	return spans, len(spans) > 0 && len(spans) <= maxSpans
}

// parseRange reads one range.
func parseRange(spec string, size int64) (s Span, ok bool) {
	first, last, ok := strings.Cut(spec, "-")
	if !ok {
		return s, false
	}
	if first == "" {
		return suffix(last, size)
	}
	off, ok := parsePosition(first)
	if !ok {
		return s, false
	}
	end := size - 1
	if last != "" {
		if end, ok = parsePosition(last); !ok || greater(first, last) {
			return s, false
		}
	}
	if off >= size {
		return Span{Beyond: true}, true
	}
	return Span{Offset: off, Length: min(end, size-1) - off + 1, Partial: true, Open: last == ""}, true
}

// suffix is the last bytes of the content, as many as s says.
func suffix(s string, size int64) (Span, bool) {
	n, ok := parsePosition(s)
	if ok && n == 0 {
		return Span{Beyond: true}, true
	}
	n = min(n, size)
	return Span{Offset: size - n, Length: n, Partial: true}, ok
}

// overlap reports whether two of the spans have a byte in common.
func overlap(spans []Span) bool {
	sorted := slices.SortedFunc(slices.Values(spans), func(a, b Span) int { return cmp.Compare(a.Offset, b.Offset) })
	for i, s := range sorted[1:] {
		if s.Offset < sorted[i].Offset+sorted[i].Length {
			return true
		}
	}
	return false
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
		h["Content-Length"] = []string{strconv.FormatInt(size, 10)}
	}
	return http.StatusOK
}
