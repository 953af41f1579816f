package wire

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// FuzzMultipart writes what a Range asks for as a multipart and reads it with the
// standard library: the parts have to be those asked for, and the length right.
func FuzzMultipart(f *testing.F) {
	for _, s := range []string{"0-0,2-2", "7-,0-3", "-3,0-1", "1-2,3-4,5-6,99-", "0-0,-1", " 0-1 ,\t4-5"} {
		f.Add(s, []byte("0123456789"), "application/octet-stream")
	}
	f.Add("0-1,4-5", []byte("--\r\n\r\n--\r\n"), "")
	f.Fuzz(func(t *testing.T, set string, content []byte, mediaType string) {
		if strings.ContainsFunc(mediaType, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return // no header value
		}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Range", "bytes="+set)
		spans := SpansOf(r, int64(len(content)), "")
		if len(spans) == 1 {
			return
		}
		m := NewMultipart(spans, int64(len(content)), mediaType)
		h := http.Header{"Content-Range": {"bytes 0-0/1"}}
		if status := m.Describe(h); status != http.StatusPartialContent || h.Get("Content-Range") != "" {
			t.Fatalf("status %d, %v", status, h)
		}
		var body bytes.Buffer
		for i, s := range spans {
			body.Write(m.Before(i))
			body.Write(content[s.Offset : s.Offset+s.Length])
		}
		body.Write(m.End())
		if h.Get("Content-Length") != strconv.Itoa(body.Len()) {
			t.Errorf("%d bytes with a length of %s", body.Len(), h.Get("Content-Length"))
		}
		for i := range spans {
			spans[i].Open = false // an answer does not tell
		}
		if got := readParts(t, h.Get("Content-Type"), &body, mediaType, content); !slices.Equal(got, spans) {
			t.Errorf("%q: parts %+v, want %+v", set, got, spans)
		}
	})
}

// readParts reads a multipart of content and returns its spans.
func readParts(t *testing.T, contentType string, body io.Reader, mediaType string, content []byte) (spans []Span) {
	t.Helper()
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "multipart/byteranges" {
		t.Fatalf("%q: %v", contentType, err)
	}
	for mr := multipart.NewReader(body, params["boundary"]); ; {
		p, err := mr.NextRawPart()
		if errors.Is(err, io.EOF) {
			return spans
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(strings.TrimPrefix(p.Header.Get("Content-Range"), "bytes "), "-")
		off, err := strconv.ParseInt(first, 10, 64)
		s := Span{Offset: off, Length: int64(len(b)), Partial: true}
		want := http.Header{}
		s.Describe(want, int64(len(content)))
		if err != nil || p.Header.Get("Content-Range") != want.Get("Content-Range") || p.Header.Get("Content-Type") != mediaType || !bytes.Equal(b, content[off:off+s.Length]) {
			t.Fatalf("part %v: %q, want %q, %v", p.Header, b, want, err)
		}
		spans = append(spans, s)
	}
}
