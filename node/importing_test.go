package node

import (
	"archive/tar"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/image"
	"oci-proxy/transfer"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// What a file lists is in memory until its end, so all of that together has a bound.
func TestALayoutIsBounded(t *testing.T) {
	t.Parallel()
	in := newTaking(t.Context(), transfer.Intake{}, func(name string) (oci.Ref, error) { return oci.ParseImage(name, oci.Names{}) })
	in.left = 1000
	var err error
	for i := 0; i < 100 && err == nil; i++ {
		m := fmt.Sprintf(`{"schemaVersion":2,"annotations":{"n":"%d"}}`, i)
		err = in.manifest(digest.FromString(m), int64(len(m)), strings.NewReader(m))
	}
	if err == nil || !strings.Contains(err.Error(), "import it in parts") || len(in.held) > 1000/40 {
		t.Errorf("%d manifests came: %v", len(in.held), err)
	}
	many := `{"manifests":[` + strings.Repeat("{},", image.MaxIndex/3) + "{}]}"
	if _, err := image.NewReader(strings.NewReader(tarOf(t, image.IndexName, many))); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("an index of many entries: %v", err)
	}
}

// Many names for one manifest, which lists many blobs, are more than any memory holds.
func TestAFileOfManyNamesIsBounded(t *testing.T) {
	t.Parallel()
	in := newTaking(t.Context(), transfer.Intake{}, func(name string) (oci.Ref, error) {
		return oci.Ref{Registry: "ghcr.io", Repository: name, Tag: "v1"}, nil
	})
	in.places = 5000
	var layers, entries []string
	for i := range 200 {
		layers = append(layers, fmt.Sprintf(`{"digest":%q}`, digest.FromString(fmt.Sprint(i))))
	}
	m := `{"schemaVersion":2,"layers":[` + strings.Join(layers, ",") + `]}`
	for i := range 100 {
		entries = append(entries, fmt.Sprintf(`{"digest":%q,"annotations":{"org.opencontainers.image.ref.name":"ghcr.io/org/app-%d:v1"}}`, digest.FromString(m), i))
	}
	index := `{"schemaVersion":2,"manifests":[` + strings.Join(entries, ",") + `]}`
	layout, err := image.NewReader(strings.NewReader(tarOf(t, image.IndexName, index, "blobs/sha256/"+digest.FromString(m).Encoded(), m)))
	if err != nil {
		t.Fatal(err)
	}
	if err := in.all(layout); err == nil || !strings.Contains(err.Error(), "import it in parts") || in.places != 0 {
		t.Errorf("%d more may come: %v", in.places, err)
	}
}

// A registry has what a manifest lists, or it would not have taken it. A file may lack it: then
// it vouches for the manifest no more than for what is missing, however that is listed.
func TestAFileDoesNotVouchForWhatItLacks(t *testing.T) {
	t.Parallel()
	for name, hidden := range map[string]string{"listed": "", "hidden": `,"Layers":[]`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t)
			p := newProxy(t, up, settings{registry: "private: true"})
			d := up.PutBlob(repo, random(7, 1000))
			p.get(blobPath(d)).want(t, http.StatusOK)
			m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"digest":%q,"size":2},"layers":[{"digest":%q,"size":1000}]%s}`, upstreamtest.TypeManifest, digest.FromString("{}"), d, hidden)
			index := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":1,"annotations":{"org.opencontainers.image.ref.name":"%s/other/app:v1"}}]}`, upstreamtest.TypeManifest, digest.FromString(m), up.Host())
			file := tarOf(t, image.IndexName, index, "blobs/sha256/"+digest.FromString(m).Encoded(), m, "blobs/sha256/"+digest.FromString("{}").Encoded(), "{}")
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/_/import", strings.NewReader(file))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/x-tar")
			resp, err := p.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if a := read(resp); a.StatusCode != http.StatusOK || hidden == "" && !strings.Contains(string(a.body), "did not come") {
				t.Errorf("%d: %s", a.StatusCode, a.body)
			}
			by := "manifests/" + digest.FromString(m).String()
			if p.get("/v2/other/app/manifests/v1"); hidden == "" {
				p.get("/v2/other/app/"+by).want(t, http.StatusNotFound)
			} else {
				p.get("/v2/other/app/" + by)
			}
			p.get("/v2/other/app/blobs/"+d.String()).want(t, http.StatusNotFound)
		})
	}
}

// What was evicted again by the rest of its file is not said to be imported.
func TestAFileLargerThanTheCacheSaysSo(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	p := newProxy(t, up, settings{defaults: "cache_max_size: 1m"})
	var entries, blobs []string
	for i := range 4 {
		layer, config := random(uint64(i), 400_000), fmt.Sprintf(`{"n":%d}`, i)
		m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"digest":%q,"size":%d},"layers":[{"digest":%q,"size":%d}]}`, upstreamtest.TypeManifest, digest.FromString(config), len(config), digest.FromBytes(layer), len(layer))
		entries = append(entries, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":1,"annotations":{"org.opencontainers.image.ref.name":"%s/org/app:v%d"}}`, upstreamtest.TypeManifest, digest.FromString(m), up.Host(), i))
		for _, content := range []string{m, config, string(layer)} {
			blobs = append(blobs, "blobs/sha256/"+digest.FromString(content).Encoded(), content)
		}
	}
	file := tarOf(t, append([]string{image.IndexName, `{"schemaVersion":2,"manifests":[` + strings.Join(entries, ",") + `]}`}, blobs...)...)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/_/import", strings.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-tar")
	resp, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	up.Down()
	there := 0
	for line := range strings.Lines(string(read(resp).body)) {
		var one imported
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatal(err)
		}
		if one.Image == "" || one.Error != "" {
			continue
		}
		there++
		a := p.get("/v2/org/app/manifests/" + one.Digest)
		a.want(t, http.StatusOK)
		var m struct{ Layers []struct{ Digest string } }
		if err := json.Unmarshal(a.body, &m); err != nil {
			t.Error(err)
		}
		for _, l := range m.Layers {
			p.get("/v2/org/app/blobs/"+l.Digest).want(t, http.StatusOK)
		}
	}
	if there == 0 || there == 4 {
		t.Errorf("%d images are said to be there", there)
	}
}

// tarOf is a tar file with those files in it: a name, what is in it, and so on.
func tarOf(t *testing.T, files ...string) string {
	t.Helper()
	var b strings.Builder
	w := tar.NewWriter(&b)
	for f := range slices.Chunk(files, 2) {
		if err := w.WriteHeader(&tar.Header{Name: f[0], Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(f[1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
