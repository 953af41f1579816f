package upstream

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

func TestOpenFromAnOffset(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault    upstreamtest.Fault
		offset   int64
		want     string
		from     int64
		size     int64
		kind     oci.Kind
		mistaken string
	}{
		"all of it":                     {want: "hello", size: 5},
		"from the middle":               {offset: 2, want: "llo", from: 2, size: 5},
		"the last byte":                 {offset: 4, want: "o", from: 4, size: 5},
		"beyond the end":                {offset: 5, kind: oci.Invalid, mistaken: "no such range"},
		"the range is ignored":          {fault: upstreamtest.Fault{IgnoreRange: true}, offset: 2, want: "hello", size: 5},
		"the range is another":          {fault: upstreamtest.Fault{WrongRange: true}, offset: 2, mistaken: "wrong range"},
		"a range though none was asked": {fault: upstreamtest.Fault{WrongRange: true}, mistaken: "wrong range"},
		"no length":                     {fault: upstreamtest.Fault{NoLength: true}, want: "hello", size: -1},
		"a part without Content-Range": {
			fault:  upstreamtest.Fault{Header: http.Header{"Content-Range": nil}},
			offset: 2, mistaken: "wrong range",
		},
		"a total that is not told": {
			fault:  upstreamtest.Fault{Header: http.Header{"Content-Range": {"bytes 2-4/*"}}},
			offset: 2, want: "llo", from: 2, size: -1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := upstreamtest.New(t)
			reg.PutBlob("team/app", []byte("hello"))
			reg.Fault(c.fault)
			s, err := newClient(t, plainly(reg.Host())).Open(t.Context(), hello(reg.Host()), c.offset)
			if c.mistaken != "" {
				wantError(t, err, c.kind, c.mistaken)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(s.Body)
			if string(got) != c.want || err != nil || s.Offset != c.from || s.Size != c.size || s.Host != reg.Host() {
				t.Errorf("%q, %v, %+v", got, err, s)
			}
			if err := s.Body.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestABlobsBytesAreNeverDecoded(t *testing.T) {
	t.Parallel()
	reg := upstreamtest.New(t)
	reg.PutBlob("team/app", []byte("hello"))
	reg.Fault(upstreamtest.Fault{Gzip: true})
	got, err := opened(t.Context(), newClient(t, plainly(reg.Host())), hello(reg.Host()))
	if err != nil || !strings.HasPrefix(got, "\x1f\x8b") {
		t.Errorf("%q, %v; want what was sent", got, err)
	}
}

func TestOnlyWhatWasParsedIsAskedFor(t *testing.T) {
	t.Parallel()
	client := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
		if got := r.URL.String(); got != "https://reg.example.com/v2/a/b%3Fc%23d%20e/blobs/"+helloDigest {
			t.Errorf("asked for %s", got)
		}
		for name := range r.Header {
			switch name {
			case "User-Agent", "Accept", "Accept-Encoding", "Range":
			default:
				t.Errorf("sent %s", name)
			}
		}
		return reply(206, "o", "Content-Range", "bytes 4-4/5"), nil
	})
	s, err := client.Open(t.Context(), oci.Ref{Registry: "reg.example.com", Repository: "a/b?c#d e", Digest: helloDigest}, 4)
	if err != nil || s.Offset != 4 {
		t.Fatal(s, err)
	}
	_ = s.Body.Close()
	for _, ref := range []oci.Ref{
		{Repository: ""},
		{Repository: "../x"},
		{Repository: "a/../../x"},
		{Repository: "a//b"},
		{Repository: "/a"},
		{Repository: "a/"},
		{Repository: "a", Tag: "../../x"},
		{Repository: "a", Tag: ".."},
		{Repository: "a", Digest: "sha256:../../x"},
	} {
		ref.Registry = "reg.example.com"
		if _, err := client.Manifest(t.Context(), ref, nil); oci.KindOf(err) != oci.Invalid {
			t.Errorf("%+v: %v", ref, err)
		}
	}
}

func TestStatTellsWhatIsToldAndValid(t *testing.T) {
	t.Parallel()
	const api = "Docker-Distribution-Api-Version"
	for name, c := range map[string]struct {
		answer *http.Response
		blob   bool
		want   oci.Descriptor
	}{
		"all":                 {reply(200, "12345", "Docker-Content-Digest", helloDigest, "Content-Type", "a/b; charset=x"), false, oci.Descriptor{Digest: helloDigest, MediaType: "a/b; charset=x", Size: 5, By: oci.Registry}},
		"nothing":             {reply(200, "", api, "registry/2.0"), false, oci.Descriptor{Size: -1, By: oci.Registry}},
		"an empty blob":       {reply(200, "", api, "registry/2.0"), true, oci.Descriptor{Size: 0, By: oci.Registry}},
		"a bad digest":        {reply(200, "1", "Docker-Content-Digest", "sha256:xyz"), false, oci.Descriptor{Size: 1, By: oci.Registry}},
		"an unusual digest":   {reply(200, "1", "Docker-Content-Digest", "sha384:"+strings.Repeat("a", 96)), false, oci.Descriptor{Size: 1, By: oci.Registry}},
		"a compressed length": {reply(200, "1", "Content-Encoding", "gzip", api, "registry/2.0"), false, oci.Descriptor{Size: -1, By: oci.Registry}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := faked(t, Registry{}, func(r *http.Request) (*http.Response, error) {
				if r.Method != http.MethodHead || !c.blob && r.Header.Get("Accept") != "a/b, c/d" {
					t.Errorf("%s with Accept %q", r.Method, r.Header.Get("Accept"))
				}
				return c.answer, nil
			})
			got, err := client.Stat(t.Context(), hello("reg.example.com"), c.blob, []string{"a/b", "c/d"})
			if err != nil || got != c.want {
				t.Errorf("%+v, %v; want %+v", got, err, c.want)
			}
		})
	}
}

func TestStatAtARealRegistry(t *testing.T) {
	t.Parallel()
	reg := upstreamtest.New(t, upstreamtest.Bearer(upstreamtest.BearerAuth{}), upstreamtest.Redirect(), upstreamtest.RedirectManifests())
	reg.PutBlob("team/app", []byte("hello"))
	manifest := []byte(`{"schemaVersion":2}`)
	d := reg.PutManifest("team/app", "latest", upstreamtest.TypeManifest, manifest)
	client := newClient(t, plainly(reg.Host()))
	got, err := client.Stat(t.Context(), hello(reg.Host()), true, nil)
	if err != nil || got.Size != 5 {
		t.Errorf("blob: %+v, %v", got, err)
	}
	ref := oci.Ref{Registry: reg.Host(), Repository: "team/app", Tag: "latest"}
	got, err = client.Stat(t.Context(), ref, false, []string{upstreamtest.TypeManifest})
	if err != nil || got.Digest != d || got.Size != int64(len(manifest)) {
		t.Errorf("manifest: %+v, %v", got, err)
	}
}

func TestContentRangeIsReadStrictly(t *testing.T) {
	t.Parallel()
	for v, want := range map[string][2]int64{
		"bytes 0-4/5": {0, 5}, "bytes 2-4/*": {2, -1}, "Bytes 2-4/5": {2, 5},
	} {
		if from, _, size, ok := contentRange(v); !ok || from != want[0] || size != want[1] {
			t.Errorf("%q: %d, %d, %v", v, from, size, ok)
		}
	}
	for _, v := range []string{
		"", "bytes", "bytes */5", "bytes 2-1/5", "bytes 2-5/5", "bytes -1-4/5", "bytes 2-4", "items 2-4/5",
		"bytes 2-4/5, bytes 0-1/5", "bytes 99999999999999999999-4/5", "bytes +2-4/5", "bytes 2-4/-5",
	} {
		if _, _, _, ok := contentRange(v); ok {
			t.Errorf("%q is accepted", v)
		}
	}
}

func FuzzContentRange(f *testing.F) {
	f.Add("bytes 0-4/5")
	f.Add("bytes 2-4/*")
	f.Fuzz(func(t *testing.T, v string) {
		if from, _, size, ok := contentRange(v); ok && (from < 0 || size < -1 || size >= 0 && from >= size) {
			t.Errorf("%q: %d, %d", v, from, size)
		}
	})
}

func TestDigestsThatAreTold(t *testing.T) {
	t.Parallel()
	first := http.Header{"Docker-Content-Digest": {digest.FromString("first").String()}, "Content-Type": {"application/vnd.oci.image.manifest.v1+json"}}
	page := http.Header{"Content-Type": {"text/html; charset=utf-8"}}
	for name, c := range map[string]struct {
		last       *http.Response
		before     http.Header
		digestOf   string
		mediaTypes string
	}{
		"the last answer's":          {reply(200, "", "Docker-Content-Digest", digest.FromString("last").String(), "Content-Type", "a/b"), first, "last", "a/b"},
		"the redirect's, if missing": {reply(200, ""), first, "first", "application/vnd.oci.image.manifest.v1+json"},
		"a store that knows no type": {reply(200, "", "Content-Type", "application/octet-stream"), first, "first", "application/vnd.oci.image.manifest.v1+json"},
		"but not that of its page":   {reply(200, "", "Content-Type", "application/octet-stream"), page, "", "application/octet-stream"},
		"no redirect":                {reply(200, "", "Content-Type", "application/octet-stream"), nil, "", "application/octet-stream"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ans := &answer{resp: c.last, before: c.before}
			want := digest.Digest("")
			if c.digestOf != "" {
				want = digest.FromString(c.digestOf)
			}
			if got := ans.digest(); got != want || ans.mediaType() != c.mediaTypes {
				t.Errorf("%s, %s", got, ans.mediaType())
			}
		})
	}
}
