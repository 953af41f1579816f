package node

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// What a client that lists tags and looks for signatures hears of an outage.
func TestListsAndMissingTagsInAnOutage(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t) // it waits for retries
	const link = `<?n=1&page_token=x>; rel="next"`
	up := upstreamtest.New(t)
	img := up.PutImage(repo, "v1", []byte("layer"))
	up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: "/tags/list"}, Header: http.Header{"Link": {link}}})
	p := newProxy(t, up, settings{})
	list, referrers := "/v2/"+repo+"/tags/list?n=1", "/v2/"+repo+"/referrers/"+img.Manifest.String()
	missing := "/v2/" + repo + "/manifests/sha256-" + img.Manifest.Encoded()
	was := p.get(list)
	was.want(t, http.StatusOK, "Cache-Status", "oci-proxy; fwd=uri-miss; stored", "Warning", "")
	p.get(list).want(t, http.StatusOK, "Cache-Status", "oci-proxy; fwd=stale; stored", "Warning", "")
	p.get(referrers).want(t, http.StatusOK)
	p.get(missing).want(t, http.StatusNotFound, "Cache-Status", "", "Warning", "")
	up.ClearFaults()
	up.Down()
	const stale = "oci-proxy; fwd=stale; detail=stale-if-error"
	a := p.get(list)
	a.want(t, http.StatusOK, "Cache-Status", stale, "Cache-Control", "no-cache", "Link", was.Header.Get("Link"))
	if !bytes.Equal(a.body, was.body) || !strings.HasPrefix(a.Header.Get("Warning"), `299 - "stale: the list of `+up.Host()) {
		t.Errorf("%s, %s", a.body, a.Header.Get("Warning"))
	}
	p.do(http.MethodHead, list).want(t, http.StatusOK, "Cache-Status", stale, "Content-Length", a.Header.Get("Content-Length"))
	p.get(referrers).want(t, http.StatusOK, "Cache-Status", stale)
	p.get("/v2/"+repo+"/tags/list?n=2").wantError(t, http.StatusBadGateway, "UNAVAILABLE")
	p.get("/v2/"+repo+"/manifests/never-asked-for").wantError(t, http.StatusBadGateway, "UNAVAILABLE")
	for _, method := range []string{http.MethodHead, http.MethodGet} {
		a = p.do(method, missing)
		a.want(t, http.StatusNotFound, "Cache-Status", stale)
		if !strings.HasPrefix(a.Header.Get("Warning"), `299 - "stale: `) {
			t.Errorf("%s: Warning %q", method, a.Header.Get("Warning"))
		}
	}
	a.wantError(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
	up.Up()
	up.Fault(upstreamtest.Fault{Status: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {"90"}}})
	p.get(list).want(t, http.StatusOK, "Cache-Status", "oci-proxy; fwd=stale; fwd-status=503; detail=stale-if-error")
	p.get(missing).want(t, http.StatusNotFound, "Cache-Status", "oci-proxy; fwd=stale; fwd-status=503; detail=stale-if-error")
	up.ClearFaults()
	up.PutImage(repo, "sha256-"+img.Manifest.Encoded(), []byte("signature"))
	p.get(missing).want(t, http.StatusOK)
	if log := p.log.String(); strings.Count(log, `"stale list served"`) != 4 || strings.Contains(log, "n=1") {
		t.Error("the log does not say that lists were stale, or tells a query")
	}
}
