package oci

import "testing"

// TestOneMediaTypeForAManifest: the registry's word if that is a type of documents, else
// what the bytes say.
func TestOneMediaTypeForAManifest(t *testing.T) {
	t.Parallel()
	const oras = "application/vnd.cncf.oras.artifact.manifest.v1+json"
	with := func(mediaType, rest string) string { return `{"mediaType":"` + mediaType + `"` + rest + `}` }
	const dockerBody = `{"schemaVersion":2,"config":{"mediaType":"application/vnd.docker.container.image.v1+json"},"layers":[]}`
	const imageBody = `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json"},"layers":[]}`
	for _, c := range []struct{ told, manifest, want string }{
		// The registry's word.
		{typeDocker, dockerBody, typeDocker},
		{typeDocker, imageBody, typeDocker},
		{typeImage, dockerBody, typeImage},
		{oras, with(oras, `,"blobs":[]`), oras},
		{oras, `{"blobs":[]}`, oras},
		{"application/vnd.example.thing+json", with(typeImage, `,"layers":[]`), "application/vnd.example.thing+json"},
		{"application/thing+json", imageBody, "application/thing+json"},
		{typeImage + "; charset=utf-8", with(typeImage, `,"layers":[]`), typeImage + "; charset=utf-8"},
		{typeImage, `{"odd":1}`, typeImage},
		{typeIndex, `{"layers":[],"manifests":[]}`, typeIndex},
		{typeImage, `{"layers":[],"layers":[]}`, typeImage},
		// Not a type of documents: the bytes'.
		{"", with(typeImage, `,"layers":[]`), typeImage},
		{"text/plain", with(typeIndex, `,"manifests":[]`), typeIndex},
		{"text/plain; charset=utf-8", `{"schemaVersion":1,"fsLayers":[],"signatures":[]}`, typeSigned},
		{"text/plain", `{"schemaVersion":1,"fsLayers":[]}`, typeSchema1},
		{"application/json", dockerBody, typeDocker},
		{"application/octet-stream", imageBody, typeImage},
		{"binary/octet-stream", `{"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip"}]}`, typeDocker},
		{"", `{"manifests":[{"mediaType":"` + typeDocker + `"}]}`, typeDockerList},
		{"", `{"manifests":[{"mediaType":"` + typeImage + `"}]}`, typeIndex},
		{"", `{"manifests":[]}`, typeIndex},
		{"", `{"artifactType":"a/b","blobs":[]}`, typeArtifact},
		{"text/html", with(oras, `,"blobs":[]`), oras},
		{"application/xhtml+xml", with("text/html", ""), typeJSON},
		{"text/html", `{"layers":[],"manifests":[]}`, typeJSON},
		{"", `{"schemaVersion":2}`, typeJSON},
		{"", `{"layers":[],"layers":[]}`, Untold},
		{typeImage, `<html>`, typeImage},
		{"text/html", `<html>`, Untold},
		{"", ``, Untold},
		// What the bytes contradict.
		{typeIndex, with(typeImage, `,"layers":[]`), typeImage},
		{typeDocker, with(typeImage, `,"layers":[]`), typeImage},
		{typeIndex, imageBody, typeImage},
		{typeImage, `{"manifests":[]}`, typeIndex},
	} {
		got := ManifestType(c.told, []byte(c.manifest))
		kept := KeptType(c.told, []byte(c.manifest))
		if got != c.want || ShownType(kept) != c.want {
			t.Errorf("%s told as %q: %s, kept as %s; want %s", c.manifest, c.told, got, kept, c.want)
		}
		if again := KeptType(kept, []byte(c.manifest)); again != kept {
			t.Errorf("%s kept as %s is %s at another node", c.manifest, kept, again)
		}
		if ToldType(c.told) != c.want && len(Parts(kept, []byte(c.manifest))) != 0 {
			t.Errorf("%s kept as %s vouches, though nobody told that type", c.manifest, kept)
		}
	}
}
