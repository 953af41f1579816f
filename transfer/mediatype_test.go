package transfer_test

import (
	"testing"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// The media type that one registry gives a manifest does not count for the clients of
// another.
func TestMediaTypeIsTheRegistrysOwn(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{
		"an image": "", "what could be anything": `{"schemaVersion":2}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stranger := upstreamtest.New(t)
			r := newRig(t, setup{registries: []*upstreamtest.Registry{stranger}})
			bytes := []byte(content)
			if content == "" {
				bytes = r.registry.PutImage(repo, "latest").ManifestBytes
			}
			d := r.registry.PutManifest(repo, "latest", upstreamtest.TypeManifest, bytes)
			stranger.PutManifest("evil/app", "", "application/vnd.evil+json", bytes)
			evil := oci.Ref{Registry: stranger.Host(), Repository: "evil/app", Digest: d}
			r.mustFind(evil, bytes, "application/vnd.evil+json")
			for range 2 {
				r.mustFind(r.tag("latest"), bytes, upstreamtest.TypeManifest)
				r.mustFind(r.ref(d), bytes, upstreamtest.TypeManifest)
				if _, err := r.Manifest(t.Context(), evil, nil, false); err != nil {
					t.Error(err)
				}
			}
		})
	}
}
