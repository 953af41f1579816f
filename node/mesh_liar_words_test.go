package node

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/cluster"
	"oci-proxy/transfer/upstreamtest"
)

// image puts an image into the registry. The liar owns its tag or its manifest.
func (l *liar) image(t *testing.T, tagged bool) (tag string, img upstreamtest.Image) {
	t.Helper()
	for i := range 200 {
		tag = fmt.Sprintf("v%d", i)
		img = l.c.up.PutImage(repo, tag, random(uint64(i), 100))
		if !tagged && l.owns(img.Manifest.String()) {
			return tag, img
		}
		if tagged && l.asksForTag(tag) {
			return tag, img
		}
	}
	t.Fatal("the liar owns no image of 200")
	return "", img
}

// asksForTag reports whether the node would ask the liar for the tag.
func (l *liar) asksForTag(tag string) bool {
	before := l.asked.Load()
	a := l.c.get(0, "/v2/"+repo+"/manifests/"+tag)
	_ = a
	return l.asked.Load() != before
}

func TestMeshLiarAboutManifests(t *testing.T) {
	t.Parallel()
	manifest := func(do func(l *liar, w http.ResponseWriter, r *http.Request, b []byte)) func(*liar, http.ResponseWriter, *http.Request) {
		return on(http.MethodGet, "manifests/", func(l *liar, w http.ResponseWriter, r *http.Request) {
			path := r.URL.Path
			resp, err := http.Get("http://" + l.c.up.Host() + "/v2/" + repo + "/manifests/" + path[strings.LastIndexByte(path, '/')+1:])
			if err != nil {
				return
			}
			defer func() { _ = resp.Body.Close() }() // only read
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				return
			}
			do(l, w, r, b)
		})
	}
	typed := func(mediaType string) func(*liar, http.ResponseWriter, *http.Request) {
		return manifest(func(_ *liar, w http.ResponseWriter, _ *http.Request, b []byte) {
			w.Header().Set("Content-Type", mediaType)
			_, _ = w.Write(b)
		})
	}
	for name, answer := range map[string]func(*liar, http.ResponseWriter, *http.Request){
		"5 MiB":              manifest(func(_ *liar, w http.ResponseWriter, _ *http.Request, _ []byte) { _, _ = w.Write(make([]byte, 5*mib)) }),
		"no end":             manifest(func(_ *liar, w http.ResponseWriter, r *http.Request, _ []byte) { pour(w, r) }),
		"other bytes":        manifest(func(_ *liar, w http.ResponseWriter, _ *http.Request, b []byte) { _, _ = w.Write(append(b, ' ')) }),
		"nothing":            manifest(func(*liar, http.ResponseWriter, *http.Request, []byte) {}),
		"html":               typed("text/html"),
		"another type":       typed("application/vnd.oci.image.index.v1+json"),
		"control characters": typed("application/json;\x01x"),
		"a long type":        typed("application/" + strings.Repeat("x", 8<<10)),
		"silence":            on(http.MethodGet, "manifests/", silent),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := infiltrate(t, form{}, 20*time.Millisecond, answer)
			_, img := l.image(t, false)
			for range 2 {
				a := l.c.get(0, "/v2/"+repo+"/manifests/"+img.Manifest.String())
				a.want(t, http.StatusOK, "Content-Type", upstreamtest.TypeManifest)
				if !bytes.Equal(a.body, img.ManifestBytes) {
					t.Errorf("%d bytes", len(a.body))
				}
			}
			if l.asked.Load() == 0 {
				t.Error("the liar was not asked, so nothing was tested")
			}
		})
	}
}

// A node believes a member about what a tag means, unless that cannot be true.
func TestMeshLiarAboutTags(t *testing.T) {
	t.Parallel()
	d := digest.FromString("nowhere")
	for name, said := range map[string]string{
		"no digest":           `{"digest":"latest"}`,
		"a path":              `{"digest":"../../etc/passwd"}`,
		"a weak digest":       `{"digest":"md5:d41d8cd98f00b204e9800998ecf8427e"}`,
		"a short digest":      `{"digest":"sha256:abc"}`,
		"upper case":          fmt.Sprintf(`{"digest":"sha256:%s"}`, strings.ToUpper(d.Encoded())),
		"html":                fmt.Sprintf(`{"digest":%q,"media_type":"text/html","size":5}`, d),
		"a header in a type":  fmt.Sprintf(`{"digest":%q,"media_type":"application/json\r\nSet-Cookie: x","size":5}`, d),
		"a negative size":     fmt.Sprintf(`{"digest":%q,"media_type":"application/json","size":-7}`, d),
		"a size of an EiB":    fmt.Sprintf(`{"digest":%q,"media_type":"application/json","size":1152921504606846976}`, d),
		"nesting":             strings.Repeat(`{"digest":`, 90_000),
		"a number of 900 KiB": `{"size":1` + strings.Repeat("0", 900<<10) + `}`,
		"two MiB":             strings.Repeat(" ", 2*mib) + "{}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := infiltrate(t, form{}, 0, on(http.MethodGet, "tags", func(_ *liar, w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, said) }))
			tag, img := l.image(t, true)
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				a := l.c.do(method, 0, "/v2/"+repo+"/manifests/"+tag)
				a.want(t, http.StatusOK, "Content-Type", upstreamtest.TypeManifest, "Docker-Content-Digest", img.Manifest.String(), "Set-Cookie", "")
			}
		})
	}
}

// A member may report any figures.
func TestMeshLiarAboutFigures(t *testing.T) {
	t.Parallel()
	many := func(n int, figures string) string {
		var b strings.Builder
		b.WriteString(`{"registries":{`)
		for i := range n {
			fmt.Fprintf(&b, `%q:%s,`, fmt.Sprint(i), figures)
		}
		b.WriteString(`"x":{}}}`)
		return b.String()
	}
	for name, test := range map[string]struct {
		said    string
		counted bool // the member has answered
	}{
		"nesting":             {strings.Repeat(`{"registries":`, 70_000), false},
		"arrays":              {strings.Repeat("[", 1<<20), false},
		"a number of 900 KiB": {`{"max_size":1` + strings.Repeat("0", 900<<10) + `}`, false},
		"a large exponent":    {`{"max_size":1e999999999}`, false},
		"negative":            {`{"registries":{"a.b":{"Hits":-5}}}`, false},
		"the largest":         {`{"registries":{"a.b":{"Hits":9223372036854775807}}}`, false},
		"no bound":            {`{"max_size":9223372036854775807}`, false},
		"120,000 registries":  {many(80_000, "{}"), false},
		"odd names":           {`{"registries":{"<script>\n":{"Hits":1}}}`, false},
		"null":                {`null`, true},
		"nulls":               {`{"registries":{"a.b":null}}`, true},
		"other types":         {`{"registries":[1,2]}`, false},
		"4 GiB":               {"", false},
		"right":               {many(1000, `{"Hits":1}`), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := infiltrate(t, form{}, 0, func(l *liar, w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path != "/peer/v1/stats":
					honest(w, r)
				case test.said == "":
					pour(w, r)
				default:
					_, _ = io.WriteString(w, test.said)
				}
			})
			var sums map[string]map[string]int64
			h := l.c.json(0, "/_/stats", &sums)
			want := "1/2"
			if test.counted {
				want = "2/2"
			}
			if got := h.Get("X-Cluster-Nodes"); got != want {
				t.Errorf("%s answered, want %s", got, want)
			}
			for registry, figures := range sums {
				for figure, n := range figures {
					if n < 0 {
						t.Errorf("%s: %s is %d", registry, figure, n)
					}
				}
			}
			l.c.json(0, "/_/cluster", new(cluster.Description))
			l.c.get(0, "/v2/").want(t, http.StatusOK)
		})
	}
}
