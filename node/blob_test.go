package node

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

const repo = "team/app"

func blobPath(d digest.Digest) string { return "/v2/" + repo + "/blobs/" + d.String() }

func TestBlobAnswersTellDigestLengthAndHowTheyCameAbout(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	for _, size := range []int64{0, 1, 4 << 10, 64 << 10, 1<<20 + 1} {
		t.Run(fmt.Sprint(size, " bytes"), func(t *testing.T) {
			t.Parallel()
			p := newProxy(t, up, settings{})
			content := random(uint64(size), size)
			d := up.PutBlob(repo, content)
			always := []string{
				"Docker-Content-Digest", d.String(), "ETag", `"` + d.String() + `"`, "Accept-Ranges", "bytes",
				"Content-Length", strconv.FormatInt(size, 10), "Content-Type", "application/octet-stream",
				"Cache-Control", "public, max-age=31536000, immutable", "X-Content-Type-Options", "nosniff",
				"Docker-Distribution-Api-Version", "registry/2.0", "Vary", "",
			}
			for _, step := range []struct{ method, status string }{
				{http.MethodHead, "oci-proxy; fwd=uri-miss"},
				{http.MethodGet, "oci-proxy; fwd=uri-miss; stored"},
				{http.MethodGet, "oci-proxy; hit"},
				{http.MethodHead, "oci-proxy; hit"},
			} {
				a := p.do(step.method, blobPath(d))
				a.want(t, http.StatusOK, append(always, "Cache-Status", step.status)...)
				if step.method == http.MethodGet && !bytes.Equal(a.body, content) {
					t.Errorf("%d bytes, not the blob's: %v", len(a.body), a.err)
				}
			}
			if gets := up.Count(http.MethodGet, d.String()); gets != 1 {
				t.Errorf("upstream was asked for the blob %d times", gets)
			}
		})
	}
}

func TestBlobOfUnknownLengthComesWholeAndIsAHitAfterwards(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	content := random(1, 300<<10)
	d := up.PutBlob(repo, content)
	release := halved(up, 300<<10, upstreamtest.Fault{Match: upstreamtest.Match{PathPart: "/blobs/"}, NoLength: true})
	p := newProxy(t, up, settings{})
	resp := p.send(http.MethodGet, blobPath(d), "Range", "bytes=5-9")
	release()
	a := read(resp)
	a.want(t, http.StatusOK, "Content-Length", "", "Cache-Status", "oci-proxy; fwd=uri-miss; stored")
	if !bytes.Equal(a.body, content) {
		t.Errorf("%d bytes, not the blob's: %v", len(a.body), a.err)
	}
	p.get(blobPath(d)).want(t, http.StatusOK, "Content-Length", strconv.Itoa(len(content)), "Cache-Status", "oci-proxy; hit")
}

func TestJoiningADownloadIsCollapsedAndAMiss(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	up := upstreamtest.New(t)
	content := random(2, 1<<20)
	d := up.PutBlob(repo, content)
	release := halve(up, d.String(), 1<<20)
	p := newProxy(t, up, settings{})
	first, second := p.send(http.MethodGet, blobPath(d)), p.send(http.MethodGet, blobPath(d))
	head := p.do(http.MethodHead, blobPath(d))
	head.want(t, http.StatusOK, "Content-Length", "1048576", "Cache-Status", "oci-proxy; fwd=uri-miss; collapsed")
	release()
	for status, resp := range map[string]*http.Response{
		"oci-proxy; fwd=uri-miss; stored": first, "oci-proxy; fwd=uri-miss; stored; collapsed": second,
	} {
		a := read(resp)
		a.want(t, http.StatusOK, "Cache-Status", status, "Content-Length", "1048576")
		if !bytes.Equal(a.body, content) {
			t.Errorf("%s: %d bytes, not the blob's: %v", status, len(a.body), a.err)
		}
	}
	if s := p.stats()[up.Host()]; s["Misses"] != 2 || s["Hits"] != 0 || up.Count("", d.String()) != 1 {
		t.Errorf("stats %v, %d requests upstream; want two misses by one request", s, up.Count("", d.String()))
	}
}

func TestBlobLargerThanTheBoundIsServedNotStored(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	content := random(3, 2<<20)
	d := up.PutBlob(repo, content)
	p := newProxy(t, up, settings{defaults: "cache_max_size: 1m"})
	for range 2 {
		a := p.get(blobPath(d))
		a.want(t, http.StatusOK, "Cache-Status", "oci-proxy; fwd=uri-miss")
		if !bytes.Equal(a.body, content) {
			t.Errorf("%d bytes, not the blob's: %v", len(a.body), a.err)
		}
	}
}

func TestUnchangedContentIsNotSentAgain(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	img := up.PutImage(repo, "v1", random(4, 100))
	p := newProxy(t, up, settings{})
	p.get(blobPath(img.Config))
	for _, path := range []string{blobPath(img.Config), "/v2/" + repo + "/manifests/v1", "/v2/" + repo + "/manifests/" + img.Manifest.String()} {
		d := p.do(http.MethodHead, path).Header.Get("Docker-Content-Digest")
		for cond, status := range map[string]int{
			`"` + d + `"`: 304, `W/"` + d + `"`: 304, `"other", "` + d + `"`: 304, "*": 304,
			`"other"`: 200, d: 200, "": 200,
		} {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				a := p.do(method, path, "If-None-Match", cond)
				a.want(t, status, "ETag", `"`+d+`"`, "Docker-Content-Digest", d)
				if status == 304 && len(a.body) > 0 {
					t.Errorf("304 with %d bytes", len(a.body))
				}
			}
		}
	}
	unknown := digest.FromString("nowhere")
	p.get(blobPath(unknown), "If-None-Match", `"`+unknown.String()+`"`).wantError(t, http.StatusNotFound, "BLOB_UNKNOWN")
}

func TestRedirectsGoToTheClientWhereTheConfigSaysSo(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t, upstreamtest.Redirect())
	content := random(5, 100<<10)
	d := up.PutBlob(repo, content)
	p := newProxy(t, up, settings{registry: "follow_redirects: false"})
	a := p.get(blobPath(d))
	a.want(t, http.StatusTemporaryRedirect, "Cache-Control", "no-store", "Docker-Content-Digest", d.String())
	resp, err := newClient(t).Get(a.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	if b := read(resp); !bytes.Equal(b.body, content) {
		t.Errorf("the link leads to %d bytes, not to the blob: %v", len(b.body), b.err)
	}
	if a := p.do(http.MethodHead, blobPath(d)); a.StatusCode != http.StatusTemporaryRedirect || a.Header.Get("Location") == "" {
		t.Errorf("HEAD: %s to %q", a.Status, a.Header.Get("Location"))
	}
	p.get(blobPath(d), "If-None-Match", `"`+d.String()+`"`).want(t, http.StatusNotModified)
}

func TestRepositoryThatLacksABlobDoesNotGetAnothersFailure(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	content := random(6, 100)
	d := up.PutBlob(repo, content)
	p := newProxy(t, up, settings{})
	p.get("/v2/other/app/blobs/"+d.String()).wantError(t, http.StatusNotFound, "BLOB_UNKNOWN")
	p.get(blobPath(d)).want(t, http.StatusOK)
}
