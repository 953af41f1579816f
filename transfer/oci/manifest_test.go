package oci

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// The content that a stranger would like to be vouched for, and one of its own.
var (
	victims = digest.FromString("private")
	own     = digest.FromString("own")
)

// TestPartsVouchByTypeAlone: nothing but the fields of a manifest's own type
// vouches, by names that all readers take in the same way.
func TestPartsVouchByTypeAlone(t *testing.T) {
	t.Parallel()
	one := func(d digest.Digest) string { return fmt.Sprintf(`{"digest":%q,"size":3}`, d) }
	image := func(more string) string { return `{"config":` + one(own) + `,"layers":[` + one(own) + `]` + more + `}` }
	for name, tt := range map[string]struct {
		mediaType, manifest string
		many                int // parts, the victim's not among them
	}{
		"an image":                          {typeImage, image(""), 2},
		"Docker's image":                    {typeDocker, image(""), 2},
		"an image, its type with a charset": {typeImage + "; charset=utf-8", image(`,"mediaType":"` + typeImage + `"`), 2},
		"blobs in an image":                 {typeImage, image(`,"blobs":[` + one(victims) + `]`), 2},
		"manifests in an image":             {typeImage, image(`,"manifests":[` + one(victims) + `]`), 2},
		"a subject":                         {typeImage, image(`,"subject":` + one(victims)), 2},
		"layers in an index":                {typeIndex, `{"manifests":[` + one(own) + `],"layers":[` + one(victims) + `],"config":` + one(victims) + `}`, 1},
		"layers in Docker's list":           {typeDockerList, `{"manifests":[` + one(own) + `],"layers":[` + one(victims) + `]}`, 1},
		"layers in an artifact":             {typeArtifact, `{"blobs":[` + one(own) + `],"layers":[` + one(victims) + `]}`, 1},
		"layers in schema 1":                {typeSigned, `{"fsLayers":[],"layers":[` + one(victims) + `]}`, 0},
		"another case":                      {typeImage, `{"Config":` + one(victims) + `,"LAYERS":[` + one(victims) + `]}`, 0},
		"two cases":                         {typeImage, image(`,"Layers":[` + one(victims) + `]`), 0},
		"two cases, the other way round":    {typeImage, `{"layers":[` + one(victims) + `],"LAYERS":[` + one(own) + `]}`, 0},
		"a case that only folds":            {typeIndex, `{"manifests":[` + one(victims) + `],"manifeſts":[` + one(own) + `]}`, 0},
		"a key twice":                       {typeImage, `{"layers":[` + one(victims) + `],"layers":[` + one(own) + `]}`, 0},
		"a key twice, once escaped":         {typeImage, `{"layers":[` + one(victims) + `],"\u006cayers":[` + one(own) + `]}`, 0},
		"a digest twice":                    {typeImage, `{"layers":[{"digest":"` + string(victims) + `","digest":"` + string(own) + `"}]}`, 0},
		"a digest in two cases":             {typeImage, `{"layers":[{"digest":"` + string(victims) + `","Digest":"` + string(own) + `"}]}`, 0},
		"another type inside":               {typeImage, image(`,"mediaType":"` + typeIndex + `"`), 0},
		"a type that is no word":            {typeImage, image(`,"mediaType":7`), 0},
		"an unknown type":                   {"application/json", image(""), 0},
		"no type":                           {"", image(""), 0},
		"a descriptor with urls":            {typeImage, `{"layers":[{"digest":"` + string(victims) + `","urls":["https://a.example/"]},` + one(own) + `]}`, 1},
		"a descriptor with no url":          {typeImage, `{"layers":[{"digest":"` + string(victims) + `","urls":[]}]}`, 0},
		"a layer that is not distributable": {typeImage, `{"layers":[{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip","digest":"` + string(victims) + `"}]}`, 0},
		"a foreign layer":                   {typeDocker, `{"layers":[{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"` + string(victims) + `"}]}`, 0},
		"a config in a list":                {typeImage, `{"config":[` + one(victims) + `]}`, 0},
		"layers that are no list":           {typeImage, `{"layers":` + one(victims) + `}`, 0},
		"more behind it":                    {typeImage, image("") + `{"layers":[` + one(victims) + `]}`, 0},
		"a list":                            {typeImage, `[` + image("") + `]`, 0},
		"cut off":                           {typeImage, strings.TrimSuffix(image(""), "}"), 0},
		"nothing":                           {typeImage, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := Parts(tt.mediaType, []byte(tt.manifest))
			if len(got) != tt.many || slices.ContainsFunc(got, func(p Part) bool { return p.Digest == victims }) {
				t.Errorf("%s of type %q vouches for %v", tt.manifest, tt.mediaType, got)
			}
		})
	}
}

// TestPartsAreBounded: a manifest costs at most so many grants.
func TestPartsAreBounded(t *testing.T) {
	t.Parallel()
	layer := fmt.Sprintf(`{"digest":%q,"size":-1}`, own)
	got := Parts(typeImage, []byte(`{"layers":[`+strings.Repeat(layer+",", 2*maxParts)+layer+`]}`))
	if len(got) != maxParts || got[0].Size != 0 {
		t.Errorf("%d parts, the first of %d bytes", len(got), got[0].Size)
	}
}
