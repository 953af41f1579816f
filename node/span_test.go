package node

import (
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzSpan compares what a Range is understood as with RFC 9110, section
// 14.1.2, in numbers of any length.
func FuzzSpan(f *testing.F) {
	for _, s := range []string{
		"bytes=0-0", "bytes=0-", "bytes=-1", "bytes=-0", "bytes=5-2", "bytes= 1-2 ", "bytes=1-2,3-4", "bytes=-99999999999999999999",
		"bytes=00001-00002", "bytes=9223372036854775807-9223372036854775808", "bytes", "", "bytes=1 - 2",
	} {
		f.Add(s, uint32(70000))
	}
	f.Fuzz(func(t *testing.T, spec string, size uint32) {
		if strings.ContainsFunc(spec, func(r rune) bool { return r < ' ' && r != '\t' || r >= 0x7f }) {
			return // no header value
		}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Range", strings.TrimSpace(spec)) // as a server reads it
		got := spanOf(r, int64(size), "")
		want, heeded := spanByRFC(spec, int64(size))
		if !heeded {
			want = span{n: int64(size)}
		}
		if got != want || got.n < 0 || got.off < 0 || got.off+got.n > int64(size) {
			t.Errorf("%q of %d bytes: %+v, want %+v", spec, size, got, want)
		}
	})
}

// spanByRFC is the slow way. heeded is false for what is no single range.
func spanByRFC(spec string, size int64) (s span, heeded bool) {
	m := wellFormed.FindStringSubmatch(strings.TrimSpace(spec))
	if m == nil || size == 0 {
		return span{}, false
	}
	number := func(s string) *big.Int { n, _ := new(big.Int).SetString(s, 10); return n }
	most, one := big.NewInt(size), big.NewInt(1)
	first, end := new(big.Int), most // what is asked for is [first, end)
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
				return span{}, false
			}
			if e := new(big.Int).Add(number(m[2]), one); e.Cmp(most) < 0 {
				end = e
			}
		}
	}
	if first.Cmp(most) >= 0 {
		return span{beyond: true}, true
	}
	return span{off: first.Int64(), n: end.Int64() - first.Int64(), part: true}, true
}
