package oci

import (
	"slices"
	"testing"
)

func TestAcceptLists(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, list := range AcceptLists() {
		if again := Acceptable(list); !slices.Equal(again, list) {
			t.Errorf("%q becomes %q", list, again)
		}
		seen[slices.Concat([]string{}, list)[0]] = true
	}
	for _, c := range []struct{ client, want []string }{
		{nil, ManifestTypes},
		{[]string{"*/*"}, ManifestTypes},
		{[]string{"application/*"}, ManifestTypes},
		{[]string{"application/json"}, ManifestTypes},
		{[]string{typeDocker, typeDockerList}, ManifestTypes},
		{[]string{typeImage, "*/*"}, ManifestTypes},
		{[]string{typeIndex}, []string{typeIndex}},
		{[]string{typeDocker}, []string{typeDocker}},
		{[]string{typeSigned, typeDocker}, []string{typeDocker, typeSigned}},
		{[]string{"text/plain", typeImage}, []string{typeImage}},
	} {
		got := Acceptable(c.client)
		if !slices.Equal(got, c.want) || !slices.ContainsFunc(AcceptLists(), func(l []string) bool { return slices.Equal(l, got) }) {
			t.Errorf("%q becomes %q, want %q", c.client, got, c.want)
		}
	}
}

func TestAccepts(t *testing.T) {
	t.Parallel()
	const own = "application/vnd.example.thing+json"
	for _, c := range []struct {
		client    []string
		mediaType string
		want      bool
	}{
		{nil, own, true},
		{[]string{"*/*"}, own, true},
		{[]string{typeIndex, "*/*"}, typeImage, true},
		{[]string{typeIndex, "application/*"}, typeImage, true},
		{[]string{"application/json"}, typeImage, true},
		{[]string{typeImage}, typeImage, true},
		{[]string{typeImage}, typeImage + "; charset=utf-8", true},
		{[]string{typeImage}, typeImage + guessed, true},
		{[]string{typeImage}, typeDocker, false},
		{[]string{typeIndex, typeImage}, typeDocker, false},
		{[]string{typeImage}, own, false},
		{[]string{typeImage, own}, own, true},
	} {
		if got := Accepts(c.client, c.mediaType); got != c.want {
			t.Errorf("%q takes %s: %t", c.client, c.mediaType, got)
		}
	}
}
