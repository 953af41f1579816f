package wire

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// RangeFrom is the Range that asks for all from off on, "" for the whole.
func RangeFrom(off int64) string {
	if off <= 0 {
		return ""
	}
	return "bytes=" + strconv.FormatInt(off, 10) + "-"
}

// ParseRangeFrom reads what RangeFrom writes, and nothing else.
func ParseRangeFrom(s string) (off int64, ok bool) {
	if s == "" {
		return 0, true
	}
	off, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(s, "bytes="), "-"), 10, 64)
	return off, err == nil && s == RangeFrom(off)
}

// ReadSpanFrom reads the header of an answer to a request for all from off on:
// where its body begins, and the size of the whole, -1 if it is not told. Right
// is what SpanFrom describes, and the whole in place of a part.
func ReadSpanFrom(resp *http.Response, off int64) (from, size int64, err error) {
	got := resp.Header.Get("Content-Range")
	if resp.StatusCode == http.StatusOK && got == "" {
		return 0, resp.ContentLength, nil
	}
	size = -1
	if i := strings.LastIndexByte(got, '/'); i >= 0 && got[i+1:] != "*" {
		if size, err = strconv.ParseInt(got[i+1:], 10, 64); err != nil || size < 0 {
			return 0, 0, fmt.Errorf("malformed Content-Range %.100q", got)
		}
	}
	want := http.Header{}
	status := SpanFrom(off, size).Describe(want, size)
	length := want.Get("Content-Length")
	switch {
	case off == 0, status != resp.StatusCode, got != want.Get("Content-Range"), length != "" && length != strconv.FormatInt(resp.ContentLength, 10),
		off > size && size >= 0, size < 0 && resp.ContentLength >= 0:
		return 0, 0, fmt.Errorf("status %d with Content-Range %.100q and length %d does not answer a request from byte %d on", resp.StatusCode, got, resp.ContentLength, off)
	}
	return off, size, nil
}

// ReadSpan reads the header of an answer that holds span, a part with both ends, and
// returns the size of the whole. Right is what Describe says.
func ReadSpan(resp *http.Response, span Span) (size int64, err error) {
	got := resp.Header.Get("Content-Range")
	i := strings.LastIndexByte(got, '/')
	if size, err = strconv.ParseInt(got[i+1:], 10, 64); err != nil || size < span.Offset+span.Length {
		return 0, fmt.Errorf("malformed Content-Range %.100q", got)
	}
	want := http.Header{}
	if status := span.Describe(want, size); status != resp.StatusCode || got != want.Get("Content-Range") || resp.ContentLength != span.Length {
		return 0, fmt.Errorf("status %d with Content-Range %.100q and length %d does not answer a request for %d bytes from %d on", resp.StatusCode, got, resp.ContentLength, span.Length, span.Offset)
	}
	return size, nil
}
