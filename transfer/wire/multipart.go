package wire

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"strconv"
)

// A Multipart is the form of an answer that holds several spans of some content:
// multipart/byteranges (RFC 9110 sections 14.6 and 15.3.7.2). Describe its header,
// then write Before(i) and the bytes of span i for each, and End.
type Multipart struct {
	spans     []Span
	size      int64
	mediaType string
	boundary  string
}

// NewMultipart returns the form for spans of content of that size and media type. No
// content can hold the boundary: it is random.
func NewMultipart(spans []Span, size int64, mediaType string) *Multipart {
	return &Multipart{spans: spans, size: size, mediaType: mediaType, boundary: rand.Text()}
}

// Describe sets the header of the answer, its length in bytes too, and returns its
// status.
func (m *Multipart) Describe(h http.Header) int {
	n := int64(len(m.End()))
	for i, s := range m.spans {
		n += int64(len(m.Before(i))) + s.Length
	}
	h.Set("Content-Type", "multipart/byteranges; boundary="+m.boundary)
	h.Set("Content-Length", strconv.FormatInt(n, 10))
	h.Del("Content-Range")
	return http.StatusPartialContent
}

// Before returns what stands before the bytes of span i.
func (m *Multipart) Before(i int) []byte {
	s, lead := m.spans[i], "\r\n"
	if i == 0 {
		lead = ""
	}
	kind := ""
	if m.mediaType != "" {
		kind = "Content-Type: " + m.mediaType + "\r\n"
	}
	return fmt.Appendf(nil, "%s--%s\r\n%sContent-Range: bytes %d-%d/%d\r\n\r\n", lead, m.boundary, kind, s.Offset, s.Offset+s.Length-1, m.size)
}

// End returns what stands after the bytes of the last span.
func (m *Multipart) End() []byte { return fmt.Appendf(nil, "\r\n--%s--\r\n", m.boundary) }
