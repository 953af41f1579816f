package upstream

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

func TestManifestsAreCheckedAndAskedForOnceMore(t *testing.T) {
	t.Parallel()
	body := `{"schemaVersion":2,"manifests":[]}`
	right, wrong := digest.FromString(body), digest.FromString("other")
	right512, wrong512 := digest.SHA512.FromString(body), digest.SHA512.FromString("other")
	const header = "Docker-Content-Digest"
	for name, c := range map[string]struct {
		want    digest.Digest // the digest that is asked for; "": by tag
		header  []string
		digest  digest.Digest
		corrupt bool
	}{
		"by tag":                             {"", nil, right, false},
		"by tag, told":                       {"", []string{header, right.String()}, right, false},
		"by tag, told wrongly":               {"", []string{header, wrong.String()}, "", true},
		"by tag, told as sha512":             {"", []string{header, right512.String()}, right512, false},
		"by tag, told wrongly as sha512":     {"", []string{header, wrong512.String()}, "", true},
		"by tag, told nonsense":              {"", []string{header, "sha256:x"}, right, false},
		"by tag, compressed":                 {"", []string{"Content-Encoding", "gzip"}, "", true},
		"by tag, said compressed but told":   {"", []string{"Content-Encoding", "gzip", header, right.String()}, right, false},
		"by tag, identity":                   {"", []string{"Content-Encoding", "identity"}, right, false},
		"by digest":                          {right, nil, right, false},
		"by digest, other bytes":             {wrong, nil, "", true},
		"by digest, told another":            {right, []string{header, wrong.String()}, "", true},
		"by digest, compressed on the label": {right, []string{"Content-Encoding", "gzip"}, right, false},
		"by sha512":                          {right512, nil, right512, false},
		"by sha512, other bytes":             {wrong512, nil, "", true},
		"by sha512, told as sha256":          {right512, []string{header, right.String()}, right512, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := 0
			client := faked(t, Registry{}, func(*http.Request) (*http.Response, error) {
				asked++
				return reply(200, body, append(c.header, "Content-Type", "a/b;x=y")...), nil
			})
			m, err := client.Manifest(t.Context(), oci.Ref{Registry: "reg.example.com", Repository: "a", Tag: "t", Digest: c.want}, nil)
			if c.corrupt {
				wantError(t, err, oci.Corrupt, "manifest")
				if asked != 2 {
					t.Errorf("asked %d times, want 2", asked)
				}
				return
			}
			if err != nil || m.Digest != c.digest || string(m.Bytes) != body || m.MediaType != "a/b;x=y" {
				t.Errorf("%+v, %v", m, err)
			}
		})
	}
}

func TestAManifestThatIsDamagedOnceIsServed(t *testing.T) {
	t.Parallel()
	reg := upstreamtest.New(t)
	d := reg.PutManifest("team/app", "latest", upstreamtest.TypeManifest, []byte(`{"schemaVersion":2}`))
	for _, f := range []upstreamtest.Fault{{WrongDigest: true}, {Gzip: true}, {CutAfter: 5}, {CutAtStart: true}, {Status: 502}} {
		f.Times = 1
		reg.ClearFaults()
		reg.Fault(f)
		m, err := newClient(t, plainly(reg.Host())).Manifest(t.Context(), oci.Ref{Registry: reg.Host(), Repository: "team/app", Tag: "latest"}, []string{upstreamtest.TypeManifest})
		if err != nil || m.Digest != d {
			t.Errorf("%+v: %v", f, err)
		}
	}
}

func TestWhatIsReadWholeIsBounded(t *testing.T) {
	t.Parallel()
	ref := oci.Ref{Registry: "reg.example.com", Repository: "a", Tag: "t"}
	const whole = `{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"tags":[]}`
	for _, length := range []bool{true, false} {
		size := maxManifest
		client := faked(t, Registry{}, func(*http.Request) (*http.Response, error) {
			resp := reply(200, whole+strings.Repeat(" ", size-len(whole)))
			if !length {
				resp.ContentLength = -1
			}
			return resp, nil
		})
		if _, err := client.Manifest(t.Context(), ref, nil); err != nil {
			t.Error(err)
		}
		size++
		_, err := client.Manifest(t.Context(), ref, nil)
		wantError(t, err, oci.Unavailable, "too large")
		_, err = client.Referrers(t.Context(), hello("reg.example.com"), "", new(bytes.Buffer))
		wantError(t, err, oci.Unavailable, "too large")
		if _, err := client.Tags(t.Context(), ref, "", new(bytes.Buffer)); err != nil {
			t.Error(err)
		}
		size = maxTags + 1
		_, err = client.Tags(t.Context(), ref, "", new(bytes.Buffer))
		wantError(t, err, oci.Unavailable, "too large")
	}
}

func TestListsOfARealRegistryPage(t *testing.T) {
	t.Parallel()
	reg := upstreamtest.New(t)
	for _, tag := range []string{"a", "b", "c"} {
		reg.PutManifest("team/app", tag, upstreamtest.TypeManifest, []byte(`{"schemaVersion":2}`))
	}
	client := newClient(t, plainly(reg.Host()))
	query, pages := oci.Query("n=2"), ""
	for range 3 {
		var body bytes.Buffer
		p, err := client.Tags(t.Context(), oci.Ref{Registry: reg.Host(), Repository: "team/app"}, query, &body)
		if err != nil {
			t.Fatal(err)
		}
		pages += body.String()
		if query = p.Next; query == "" {
			break
		}
	}
	if query != "" || !strings.Contains(pages, `"c"`) {
		t.Errorf("pages %s, then %v", pages, query)
	}
	_, err := client.Referrers(t.Context(), oci.Ref{Registry: reg.Host(), Repository: "none", Digest: helloDigest}, "", new(bytes.Buffer))
	if err != nil {
		wantError(t, err, oci.NotFound, "not found")
	}
}
