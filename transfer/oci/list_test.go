package oci

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
)

func TestCheckListTellsListsFromTheRest(t *testing.T) {
	t.Parallel()
	deep, many := strings.Repeat("[", maxDepth), strings.Builder{}
	for i := range maxKeys {
		fmt.Fprintf(&many, `"key-%d":0,`, i)
	}
	for text, want := range map[string]struct{ tags, referrers bool }{
		`{"name":"a/b","tags":["1","2"]}`:                 {tags: true},
		"\n {\"tags\" : null}\r\n":                        {tags: true},
		`{"name":"a/b"}`:                                  {tags: true},
		`{"tags":["a\"]}","errors\\"],"n":{"errors":[]}}`: {tags: true},
		`{"schemaVersion":2,"manifests":[{"digest":"x","annotations":{"tags":"y"}}]}`: {referrers: true},
		`{"schemaVersion":2}`:              {referrers: true},
		`{"manifests":[]}`:                 {referrers: true},
		``:                                 {},
		`{}`:                               {},
		`[]`:                               {},
		`null`:                             {},
		`"tags"`:                           {},
		`["tags"]`:                         {},
		`{"errors":[{"code":"UNKNOWN"}]}`:  {},
		`{"tags":[],"errors":[]}`:          {},
		`{"tags":["1","2"]`:                {},
		`{"tags":["1","2`:                  {},
		`{"tags":["1"}`:                    {},
		`{"tags":["1"]}}`:                  {},
		`{"tags":["1"]} {"tags":[]}`:       {},
		`{"tags":["1"]},`:                  {},
		`{"x":"tags"}`:                     {},
		`{"TAGS":[]}`:                      {},
		`{"x":{"tags":[],"manifests":[]}}`: {},
		"<html>{\"tags\":[]}</html>":       {},
		`{"tags":` + deep + `}`:            {},
		`{` + many.String() + `"tags":[]}`: {},
	} {
		for of, ok := range map[Resource]bool{TagsResource: want.tags, ReferrersResource: want.referrers} {
			for _, r := range []io.Reader{strings.NewReader(text), iotest.OneByteReader(strings.NewReader(text))} {
				if err := CheckList(r, of); (err == nil) != ok || err != nil && !errors.Is(err, errNoList) {
					t.Errorf("%.60q as %v: %v", text, of, err)
				}
			}
		}
	}
	if err := CheckList(iotest.ErrReader(io.ErrClosedPipe), TagsResource); !errors.Is(err, io.ErrClosedPipe) {
		t.Error("a disk that fails:", err)
	}
}

// BenchmarkCheckList reads a list of 30 MB.
func BenchmarkCheckList(b *testing.B) {
	list := `{"name":"a/b","tags":["first"` + strings.Repeat(`,"version-000000000000000001"`, 1<<20) + `]}`
	b.SetBytes(int64(len(list)))
	for b.Loop() {
		if err := CheckList(strings.NewReader(list), TagsResource); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzCheckList(f *testing.F) {
	f.Add(`{"tags":["a"]}`)
	f.Fuzz(func(t *testing.T, text string) {
		ok := CheckList(strings.NewReader(text), TagsResource) == nil
		if trimmed := strings.Trim(text, " \t\r\n"); ok && (!strings.HasPrefix(trimmed, "{") || !strings.HasSuffix(trimmed, "}")) {
			t.Errorf("%q counts as a list", text)
		}
		if slowly := CheckList(iotest.OneByteReader(strings.NewReader(text)), TagsResource) == nil; slowly != ok {
			t.Errorf("%q as it comes: %v, byte by byte: %v", text, ok, slowly)
		}
	})
}

func TestQuestionsHaveNamesOfTheirOwn(t *testing.T) {
	t.Parallel()
	at := Ref{Registry: "reg.example.com", Repository: "a/b"}
	tagged, digested, other := at, at, at
	tagged.Tag, digested.Digest, other.Repository = "list", digest.FromString("x"), "a"
	seen := map[string]Question{}
	for _, q := range []Question{
		{Ref: at},
		{Ref: at, Query: "n=1"},
		{Ref: at, Query: "n=1&last=x"},
		{Ref: tagged},
		{Ref: tagged, Accept: []string{"a/b"}},
		{Ref: digested},
		{Ref: digested, Query: "artifactType=a%2Fb"},
		{Ref: other},
	} {
		if twin, ok := seen[q.Key()]; ok {
			t.Errorf("%+v and %+v have one name", q, twin)
		}
		seen[q.Key()] = q
	}
	a, b := Question{Ref: at, Query: "n=1&artifactType=a/b"}, Question{Ref: at, Query: "artifactType=a%2Fb&n=1"}
	if a.Key() != b.Key() {
		t.Errorf("%q and %q are one question", a.Key(), b.Key())
	}
	if len(seen) != 8 {
		t.Errorf("%d names", len(seen))
	}
}
