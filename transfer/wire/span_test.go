package wire

import (
	"math/big"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestIfRange(t *testing.T) {
	t.Parallel()
	const etag = `"sha256:0"`
	for cond, partial := range map[string]bool{"": true, etag: true, `"other"`: false, "W/" + etag: false, "Sat, 28 Nov 2026 00:00:00 GMT": false} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Range", "bytes=2-3")
		r.Header.Set("If-Range", cond)
		if got := SpanOf(r, 10, etag); got.Partial != partial {
			t.Errorf("If-Range %q: %+v", cond, got)
		}
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		span         Span
		size         int64
		status       int
		length, said string
	}{
		{Span{Length: 10}, 10, 200, "10", ""},
		{Span{Length: -1}, -1, 200, "", ""},
		{Span{Length: 0}, 0, 200, "0", ""},
		{Span{Offset: 2, Length: 3, Partial: true}, 10, 206, "3", "bytes 2-4/10"},
		{Span{Offset: 2, Length: -1, Partial: true}, -1, 206, "", "bytes 2-/*"},
		{Span{Beyond: true}, 10, 416, "0", "bytes */10"},
	} {
		h := http.Header{"Content-Type": {"a/b"}}
		status := c.span.Describe(h, c.size)
		if status != c.status || h.Get("Content-Length") != c.length || h.Get("Content-Range") != c.said || (h.Get("Content-Type") == "") != c.span.Beyond {
			t.Errorf("%+v of %d bytes: status %d, %v", c.span, c.size, status, h)
		}
	}
}

// FuzzSpan compares what a Range is understood as with RFC 9110, section
// 14.1.2, in numbers of any length.
func FuzzSpan(f *testing.F) {
	for _, s := range []string{
		"bytes=0-0", "bytes=0-", "bytes=-1", "bytes=-0", "bytes=5-2", "bytes= 1-2 ", "bytes=1-2,3-4", "bytes=-99999999999999999999",
		"bytes=00001-00002", "bytes=9223372036854775807-9223372036854775808", "bytes", "", "bytes=1 - 2",
		"bytes=5-6,1-2", "bytes=0-5,5-9", "bytes=0-1,-1", "bytes=,1-2,,", "bytes=,", "bytes=0-0,99999999-", "bytes=99999999-,-0", "bytes=0-1,x", "bytes=0-1;2-3",
		"bytes=0-0,2-2,4-4,6-6,8-8,10-10,12-12,14-14,16-16,18-18,20-20,22-22,24-24,26-26,28-28,30-30",
		"bytes=0-0,2-2,4-4,6-6,8-8,10-10,12-12,14-14,16-16,18-18,20-20,22-22,24-24,26-26,28-28,30-30,32-32",
	} {
		f.Add(s, uint32(70000))
	}
	f.Fuzz(func(t *testing.T, spec string, size uint32) {
		if strings.ContainsFunc(spec, func(r rune) bool { return r < ' ' && r != '\t' || r >= 0x7f }) {
			return // no header value
		}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Range", strings.TrimSpace(spec)) // as a server reads it
		got := SpansOf(r, int64(size), "")
		want := spansByRFC(spec, int64(size))
		if !slices.Equal(got, want) {
			t.Errorf("%q of %d bytes: %+v, want %+v", spec, size, got, want)
		}
		one := want[0]
		if len(want) > 1 {
			one = Span{Length: int64(size)}
		}
		if got := SpanOf(r, int64(size), ""); got != one {
			t.Errorf("one of %q of %d bytes: %+v, want %+v", spec, size, got, one)
		}
	})
}

// wellFormed is one range as RFC 9110 section 14.1.1 has it.
var wellFormed = regexp.MustCompile(`^[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*$`)

// spansByRFC is the slow way. What it does not heed is the whole.
func spansByRFC(spec string, size int64) []Span {
	whole := []Span{{Length: size}}
	set, ok := strings.CutPrefix(strings.TrimSpace(spec), "bytes=")
	if !ok || size == 0 {
		return whole
	}
	elements := strings.Split(set, ",")
	if len(elements) > 32 {
		return whole
	}
	var there []Span
	asked := 0
	for _, e := range elements {
		if strings.Trim(e, " \t") == "" {
			continue
		}
		s, ok := spanByRFC(e, size)
		if !ok {
			return whole
		}
		if asked++; !s.Beyond {
			there = append(there, s)
		}
	}
	for i, a := range there {
		for _, b := range there[:i] {
			if a.Offset < b.Offset+b.Length && b.Offset < a.Offset+a.Length {
				return whole
			}
		}
	}
	switch {
	case asked == 0 || asked > 16:
		return whole
	case len(there) == 0:
		return []Span{{Beyond: true}}
	}
	return there
}

// spanByRFC understands one range. It reports false for what is none.
func spanByRFC(spec string, size int64) (s Span, heeded bool) {
	m := wellFormed.FindStringSubmatch(spec)
	if m == nil {
		return Span{}, false
	}
	number := func(s string) *big.Int { n, _ := new(big.Int).SetString(s, 10); return n }
	most, one := big.NewInt(size), big.NewInt(1)
	first, end := new(big.Int), most // [first, end) is asked for
	switch {
	case m[3] != "":
		first.Sub(most, number(m[3]))
		if first.Sign() < 0 {
			first.SetInt64(0)
		}
	default:
		first = number(m[1])
		if m[2] != "" {
			if first.Cmp(number(m[2])) > 0 {
				return Span{}, false
			}
			if e := new(big.Int).Add(number(m[2]), one); e.Cmp(most) < 0 {
				end = e
			}
		}
	}
	if first.Cmp(most) >= 0 {
		return Span{Beyond: true}, true
	}
	return Span{Offset: first.Int64(), Length: end.Int64() - first.Int64(), Partial: true, Open: m[2] == "" && m[3] == ""}, true
}

func TestSpansFromAnOffset(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ off, size, n int64 }{{0, 0, 0}, {0, 5, 5}, {0, -1, -1}, {3, 5, 2}, {3, -1, -1}, {5, 5, 0}} {
		h := http.Header{}
		status := SpanFrom(c.off, c.size).Describe(h, c.size)
		length := int64(-1)
		if s := h.Get("Content-Length"); s != "" {
			length, _ = strconv.ParseInt(s, 10, 64)
		}
		from, size, err := ReadSpanFrom(&http.Response{StatusCode: status, Header: h, ContentLength: length}, c.off)
		if err != nil || from != c.off || size != c.size || length != c.n {
			t.Errorf("%+v: from %d, size %d, length %d, %v", c, from, size, length, err)
		}
	}
	for _, c := range []struct {
		status int
		span   string
		length int64
	}{
		{206, "", 5},
		{204, "", 0},
		{206, "bytes 4-9/10", 6},
		{206, "bytes 3-9/10", 6},
		{206, "bytes 3-8/10", 7},
		{206, "bytes 3-9/*", 7},
		{206, "bytes 3-/*", 7},
		{206, "bytes 3-9/-10", 7},
		{206, "bytes 3-9/99999999999999999999", 7},
		{200, "bytes 3-9/10", 7},
		{206, "bytes */3", 0},
		{416, "bytes */2", 0},
		{416, "bytes */4", 0},
		{416, "", 0},
	} {
		resp := &http.Response{StatusCode: c.status, Header: http.Header{"Content-Range": {c.span}}, ContentLength: c.length}
		if from, size, err := ReadSpanFrom(resp, 3); err == nil {
			t.Errorf("%+v: from %d, size %d", c, from, size)
		}
	}
	if _, _, err := ReadSpanFrom(&http.Response{StatusCode: 206, Header: http.Header{"Content-Range": {"bytes 0-9/10"}}, ContentLength: 10}, 0); err == nil {
		t.Error("a range that nobody asked for is taken")
	}
}

// FuzzReadSpanFrom takes only answers that SpanFrom could have described.
func FuzzReadSpanFrom(f *testing.F) {
	f.Add(206, "bytes 3-9/10", int64(7), uint32(3))
	f.Add(206, "bytes 3-/*", int64(-1), uint32(3))
	f.Add(416, "bytes */3", int64(0), uint32(3))
	f.Add(200, "", int64(-1), uint32(3))
	f.Fuzz(func(t *testing.T, status int, said string, length int64, off uint32) {
		if length < -1 {
			return // net/http has none
		}
		resp := &http.Response{StatusCode: status, Header: http.Header{"Content-Range": {said}}, ContentLength: length}
		from, size, err := ReadSpanFrom(resp, int64(off))
		if err != nil {
			return
		}
		if from != 0 && from != int64(off) || size < -1 || size >= 0 && length >= 0 && from+length != size {
			t.Errorf("status %d, %q, length %d from %d on: from %d, size %d", status, said, length, off, from, size)
		}
	})
}

func TestRangeFrom(t *testing.T) {
	t.Parallel()
	for _, off := range []int64{0, 1, 1<<63 - 1} {
		if got, ok := ParseRangeFrom(RangeFrom(off)); !ok || got != off {
			t.Errorf("%d came back as %d, %v", off, got, ok)
		}
	}
	for _, s := range []string{"bytes=0-", "bytes=5-6", "bytes=-5", "bytes=05-", "bytes=5", "5-", "bytes=+5-", "bytes=5-,7-", "items=5-", " bytes=5-", "bytes=9223372036854775808-"} {
		if off, ok := ParseRangeFrom(s); ok {
			t.Errorf("%q is taken for a range from %d on", s, off)
		}
	}
}
