package oci_test

import (
	"strings"
	"testing"

	"oci-proxy/transfer/oci"
)

// What a registry pages by stays as it is; ns is this proxy's own.
func TestListQueryIsOpaque(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]oci.Query{
		"":                                      "",
		"n=10&last=a":                           "n=10&last=a",
		"last=a&n=10":                           "last=a&n=10",
		"page_token=Zm9v%2bYg%3D%3D&cursor=a/b": "page_token=Zm9v%2bYg%3D%3D&cursor=a/b",
		"flag&empty=&x=1&x=2":                   "flag&empty=&x=1&x=2",
		"%zz=%":                                 "%zz=%",
		"ns=ghcr.io":                            "",
		"n=1&ns=ghcr.io&last=b":                 "n=1&last=b",
		"%6Es=x&n=1&n%73=y&ns":                  "n=1",
		"access_token=x&n=1&a=b;access_token=y": "n=1",
		"a=1;ns=x&n=1":                          "n=1",
		"nsx=1&xns=2&NS=3":                      "nsx=1&xns=2&NS=3",
		"q=a b>\"<\\\x7f\xc3\xa9#`^":            "q=a%20b%3E%22%3C%5C%7F%C3%A9%23%60%5E",
	} {
		if got := oci.ListQuery(raw); got != want {
			t.Errorf("%q becomes %q, want %q", raw, got, want)
		}
	}
}

func TestQueryForAClient(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		query oci.Query
		ns    string
		want  string
	}{
		{"n=1", "", "n=1"},
		{"n=1&c=%2F", "ghcr.io", "n=1&c=%2F&ns=ghcr.io"},
		{"", "[::1]:5000", "ns=%5B%3A%3A1%5D%3A5000"},
	} {
		if got := c.query.With(c.ns); got != c.want {
			t.Errorf("%q with ns %q: %q, want %q", c.query, c.ns, got, c.want)
		}
	}
}

func TestSameQuery(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b oci.Query
		same bool
	}{
		{"", "", true},
		{"n=1&last=a%2Fb", "last=a/b&n=1", true},
		{"a=%zz", "a=%zz", true},
		{"a=%zz", "a=%yy", false},
		{"n=1", "n=2", false},
		{"n=1", "", false},
		{"x=1&x=2", "x=2&x=1", false},
	} {
		if c.a.Same(c.b) != c.same {
			t.Errorf("%q and %q: %t", c.a, c.b, !c.same)
		}
	}
}

func FuzzListQuery(f *testing.F) {
	f.Add("n=1&ns=x")
	f.Add("a;ns=b&%6es=c")
	f.Fuzz(func(t *testing.T, raw string) {
		q := oci.ListQuery(raw)
		if again := oci.ListQuery(string(q)); again != q {
			t.Errorf("%q becomes %q, and that %q", raw, q, again)
		}
		if strings.ContainsAny(string(q), " \t\r\n<>\"#") {
			t.Errorf("%q becomes %q", raw, q)
		}
	})
}
