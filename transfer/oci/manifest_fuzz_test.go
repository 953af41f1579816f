package oci

import (
	"strings"
	"testing"
)

// FuzzParts: what a manifest lists is valid digests, and no media type
// that passes is one that browsers run.
func FuzzParts(f *testing.F) {
	f.Add([]byte(`{"config":{"digest":"sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"},"layers":[{"digest":"x"}]}`), "application/vnd.oci.image.manifest.v1+json")
	f.Add([]byte(`{"manifests":[{"digest":1}],"blobs":null}`), "text/html")
	f.Add([]byte(`{"layers":[`), "application/json; charset=utf-8")
	f.Fuzz(func(t *testing.T, manifest []byte, mediaType string) {
		for _, p := range Parts(mediaType, manifest) {
			if p.Digest.Validate() != nil {
				t.Errorf("%q lists %q", manifest, p.Digest)
			}
		}
		if !TypeAgrees(Untold, manifest) {
			t.Errorf("%q does not agree with itself", manifest)
		}
		passed := ManifestType(mediaType, manifest)
		if again := ManifestType(passed, manifest); again != passed {
			t.Errorf("%q told as %q is %q, and that is %q", manifest, mediaType, passed, again)
		}
		kept := KeptType(mediaType, manifest)
		if ShownType(kept) != passed || KeptType(kept, manifest) != kept || len(Parts(kept, manifest)) > len(Parts(mediaType, manifest)) {
			t.Errorf("%q told as %q is kept as %q, shown as %q", manifest, mediaType, kept, passed)
		}
		kind := strings.ToLower(passed)
		if strings.ContainsAny(kind, "\r\n\x00,<") || strings.HasPrefix(kind, "text/html") || strings.HasSuffix(kind, "xml") || strings.Contains(kind, "script") && !strings.HasPrefix(kind, "application/vnd.") && !strings.Contains(kind, "json") {
			t.Errorf("%q passes as %q", mediaType, kind)
		}
	})
}
