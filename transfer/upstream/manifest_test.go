package upstream

import (
	"bytes"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

func TestManifestsAreCheckedAndAskedForOnceMore(t *testing.T) {
	t.Parallel()
	body := `{"schemaVersion":2}`
	right, wrong := digest.FromString(body), digest.FromString("other")
	right512, wrong512 := digest.SHA512.FromString(body), digest.SHA512.FromString("other")
	const header = "Docker-Content-Digest"
	for name, c := range map[string]struct {
		want    digest.Digest // asked for; "": by tag
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
	for _, length := range []bool{true, false} {
		size := maxManifest
		client := faked(t, Registry{}, func(*http.Request) (*http.Response, error) {
			resp := reply(200, strings.Repeat("x", size))
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
		_, err = client.Referrers(t.Context(), hello("reg.example.com"), nil, new(bytes.Buffer))
		wantError(t, err, oci.Unavailable, "too large")
		if _, err := client.Tags(t.Context(), ref, nil, new(bytes.Buffer)); err != nil {
			t.Error(err)
		}
		size = maxTags + 1
		_, err = client.Tags(t.Context(), ref, nil, new(bytes.Buffer))
		wantError(t, err, oci.Unavailable, "too large")
	}
}

func TestListsPassOnlyWhatPages(t *testing.T) {
	t.Parallel()
	client := faked(t, Registry{}, func(r *http.Request) (*http.Response, error) {
		if r.URL.RawQuery != "artifactType=a%2Fb&last=x%26y&n=5" {
			t.Errorf("query %s", r.URL.RawQuery)
		}
		return reply(
			200, "{}", "Content-Type", "application/json", "OCI-Filters-Applied", "artifactType",
			"Link", `</v2/a/tags/list?n=5&last=z&ns=evil>; rel="next"`,
		), nil
	})
	query := url.Values{"n": {"5"}, "last": {"x&y"}, "ns": {"evil"}, "token": {"x"}, "artifactType": {"a/b"}}
	want := &oci.Page{
		MediaType: "application/json", Filters: "artifactType",
		Next: url.Values{"n": {"5"}, "last": {"z"}}, By: oci.Registry,
	}
	var body bytes.Buffer
	tags, err := client.Tags(t.Context(), oci.Ref{Registry: "reg.example.com", Repository: "a"}, query, &body)
	if err != nil || !reflect.DeepEqual(tags, want) || body.String() != "{}" {
		t.Errorf("%+v, %s, %v", tags, &body, err)
	}
	referrers, err := client.Referrers(t.Context(), hello("reg.example.com"), query, &body)
	if err != nil || !reflect.DeepEqual(referrers, want) || body.String() != "{}" {
		t.Errorf("%+v, %s, %v", referrers, &body, err)
	}
}

func TestListsOfARealRegistryPage(t *testing.T) {
	t.Parallel()
	reg := upstreamtest.New(t)
	for _, tag := range []string{"a", "b", "c"} {
		reg.PutManifest("team/app", tag, upstreamtest.TypeManifest, []byte(`{"schemaVersion":2}`))
	}
	client := newClient(t, plainly(reg.Host()))
	query, pages := url.Values{"n": {"2"}}, ""
	for range 3 {
		var body bytes.Buffer
		p, err := client.Tags(t.Context(), oci.Ref{Registry: reg.Host(), Repository: "team/app"}, query, &body)
		if err != nil {
			t.Fatal(err)
		}
		pages += body.String()
		if query = p.Next; query == nil {
			break
		}
	}
	if query != nil || !strings.Contains(pages, `"c"`) {
		t.Errorf("pages %s, then %v", pages, query)
	}
	_, err := client.Referrers(t.Context(), oci.Ref{Registry: reg.Host(), Repository: "none", Digest: helloDigest}, nil, new(bytes.Buffer))
	if err != nil {
		wantError(t, err, oci.NotFound, "not found")
	}
}

func TestLinksToTheNextPage(t *testing.T) {
	t.Parallel()
	for link, want := range map[string]string{
		"": "",
		`</v2/a/tags/list?last=x&n=2>; rel="next"`:                 "last=x&n=2",
		`<https://evil.example.net/?last=x>; rel=next`:             "last=x",
		`<?last=x>;rel=NEXT;title="y"`:                             "last=x",
		`<?last=x>; title="a, b; rel=prev"; rel="prev next"`:       "last=x",
		`<?last=p>; rel="prev", <?last=x>; rel="next"`:             "last=x",
		`<?last=a,b>; rel="next"`:                                  "last=a%2Cb",
		`<?next_page=x&ns=evil>; rel="next"`:                       "next_page=x",
		`<?ns=evil>; rel="next"`:                                   "",
		`<?last=x>; rel="prev"`:                                    "",
		`<?last=x>`:                                                "",
		`<?last=x; rel="next"`:                                     "",
		`?last=x; rel="next"`:                                      "",
		`<?last=` + strings.Repeat("x", maxNext) + `>; rel="next"`: "",
	} {
		if got := nextPage([]string{link}).Encode(); got != want {
			t.Errorf("%.80s: %q, want %q", link, got, want)
		}
	}
}

func FuzzNextPage(f *testing.F) {
	f.Add(`</v2/a/tags/list?last=x&n=2>; rel="next"`)
	f.Add(`<?last=p>; rel="prev", <?last=x>; title="a,b"; rel=next`)
	f.Fuzz(func(t *testing.T, link string) {
		for key := range nextPage([]string{link}) {
			if len(oci.ListQuery(url.Values{key: {"x"}})) == 0 {
				t.Errorf("%q gives %q", link, key)
			}
		}
	})
}
