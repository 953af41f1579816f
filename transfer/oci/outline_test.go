package oci

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// What is abridged has the same outline, and nothing else.
func TestAbridge(t *testing.T) {
	t.Parallel()
	d := digest.FromString("x")
	one := func(more string) string {
		return fmt.Sprintf(`{"mediaType":"a/b","digest":%q,"size":3,"annotations":{"a":"b"}%s}`, d, more)
	}
	short := func(more string) string { return fmt.Sprintf(`{"digest":%q,"size":3%s}`, d, more) }
	for name, tt := range map[string]struct{ mediaType, content, want string }{
		"an image":            {typeImage, `{"schemaVersion":2,"config":` + one("") + `,"layers":[` + one("") + `,` + one("") + `],"annotations":{"a":"b"}}`, `{"config":` + short("") + `,"layers":[` + short("") + `,` + short("") + `]}`},
		"an index":            {typeIndex, `{"manifests":[` + one(`,"platform":{"architecture":"arm","os":"linux","variant":"v7","os.version":"1"}`) + `]}`, `{"manifests":[` + short(`,"platform":{"os":"linux","architecture":"arm","variant":"v7"}`) + `]}`},
		"an attestation":      {typeIndex, `{"manifests":[` + one(`,"platform":{"architecture":"unknown","os":"unknown"}`) + `]}`, `{"manifests":[` + short("") + `]}`},
		"an artifact":         {typeArtifact, `{"blobs":[` + one("") + `]}`, `{"blobs":[` + short("") + `]}`},
		"schema 1":            {typeSigned, `{"fsLayers":[{"blobSum":"` + d.String() + `"}],"history":[1]}`, `{"fsLayers":[{"blobSum":"` + d.String() + `"}]}`},
		"what lists nothing":  {typeIndex, `{"manifests":[]}`, `{}`},
		"no manifest":         {typeIndex, `{"manifests":7}`, ""},
		"a config":            {"", `{"architecture":"arm64","os":"linux","variant":"v8","rootfs":{"diff_ids":["a"]},"history":[{}]}`, `{"os":"linux","architecture":"arm64","variant":"v8"}`},
		"a helm chart's":      {"", `{"name":"chart"}`, `{}`},
		"a layer":             {"", "\x1f\x8b\x08", ""},
		"nothing":             {"", "", ""},
		"an odd config":       {"", `{"os":7}`, ""},
		"cut off":             {typeImage, `{"config":{`, ""},
		"a digest that isn't": {typeImage, `{"config":{"digest":"x"}}`, `{"config":{"digest":"x"}}`},
	} {
		if got := Abridge(tt.mediaType, []byte(tt.content)); string(got) != tt.want {
			t.Errorf("%s:\n%s, want\n%s", name, got, tt.want)
		}
	}
}

// FuzzAbridge: what is abridged is one line, and has the same outline.
func FuzzAbridge(f *testing.F) {
	d := digest.FromString("x").String()
	f.Add([]byte(`{"config":{"digest":"`+d+`"},"layers":[{"digest":"`+d+`","size":-1}]}`), typeImage)
	f.Add([]byte(`{"manifests":[{"digest":"`+d+`","platform":{"os":"linux","architecture":"amd64"}},{"platform":{"os":"\n"}}],"Manifests":[]}`), typeIndex)
	f.Add([]byte(`{"fsLayers":[{"blobSum":"`+d+`"},null]}`), typeSigned)
	f.Add([]byte(`{"os":"linux","architecture":"amd64\u2028"}`), "")
	f.Add([]byte("null"), "")
	f.Fuzz(func(t *testing.T, content []byte, mediaType string) {
		short := Abridge(mediaType, content)
		if strings.Contains(string(short), "\n") || !slices.Equal(short, Abridge(mediaType, short)) {
			t.Errorf("%q is abridged to %q, and that to %q", content, short, Abridge(mediaType, short))
		}
		if mediaType == "" {
			if a, b := ConfigPlatform(content), ConfigPlatform(short); a != b {
				t.Errorf("%q is of %q, abridged of %q", content, a, b)
			}
			return
		}
		if a, b := Outline(content), Outline(short); !slices.Equal(a, b) {
			t.Errorf("%q lists %v, abridged %v", content, a, b)
		}
	})
}
