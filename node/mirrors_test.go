package node

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"oci-proxy/node/image"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// A mirror is sent its own login and no other, and the registry's goes to the registry alone.
func TestEachMirrorHasItsOwnLogin(t *testing.T) {
	t.Parallel()
	for name, private := range map[string]string{"private": "", "said to be public": "private: false, "} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t)
			if private == "" {
				up = upstreamtest.New(t, upstreamtest.Basic("registry", "registry-sesame"))
			}
			mirror := upstreamtest.New(t, upstreamtest.Basic("mirror", "mirror-sesame"))
			layer := random(1, 100_000)
			img := up.PutImage(repo, "v1", layer)
			mirror.PutImage(repo, "v1", layer)
			auth := "auth: {username: registry, password: registry-sesame}, "
			if private != "" {
				auth = private
			}
			p := newProxy(t, up, settings{
				registry: auth + fmt.Sprintf("mirrors: [%q]", mirror.Host()),
				more:     fmt.Sprintf("  %q: {insecure: true, auth: {username: mirror, password: mirror-sesame}}", mirror.Host()),
			})
			p.get("/v2/"+repo+"/manifests/v1").want(t, http.StatusOK)
			if a := p.get(blobPath(img.Layers[0])); a.StatusCode != http.StatusOK || string(a.body) != string(layer) {
				t.Errorf("status %d", a.StatusCode)
			}
			if mirror.Count(http.MethodGet, "/"+img.Layers[0].String()) == 0 || mirror.Count(http.MethodHead, "/manifests/v1") != 0 {
				t.Error("the layer did not come from the mirror, or the tag did")
			}
			for r, other := range map[*upstreamtest.Registry]string{up: "mirror-sesame", mirror: "registry-sesame"} {
				for _, q := range r.Requests() {
					_, basic, _ := strings.Cut(q.Header.Get("Authorization"), " ")
					if text, _ := base64.StdEncoding.DecodeString(basic); strings.Contains(string(text), other) {
						t.Errorf("%s got %q", r.Host(), text)
					}
				}
			}
		})
	}
}

// What a mirror keeps for those with a login is not had under the registry's name, unless the
// operator says that the registry is public.
func TestAPrivateMirrorUnlocksNothing(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		keys   string
		status int
	}{
		"as it is":      {"", http.StatusNotFound},
		"said outright": {"private: false, ", http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up, mirror := upstreamtest.New(t), upstreamtest.New(t, upstreamtest.Basic("mirror", "sesame"))
			d := mirror.PutBlob(repo, random(2, 5000))
			p := newProxy(t, up, settings{
				registry: test.keys + fmt.Sprintf("mirrors: [%q]", mirror.Host()),
				more:     fmt.Sprintf("  %q: {insecure: true, auth: {username: mirror, password: sesame}}", mirror.Host()),
			})
			p.get(blobPath(d)).want(t, test.status)
		})
	}
}

// A mirror needs no entry of its own, and clients cannot name it in whitelist_mode.
func TestAMirrorNeedsNoEntry(t *testing.T) {
	t.Parallel()
	up, mirror := upstreamtest.New(t), upstreamtest.New(t)
	d := mirror.PutBlob(repo, random(3, 5000))
	up.Down()
	p := newProxy(t, up, settings{top: "whitelist_mode: true", defaults: "insecure: true", registry: fmt.Sprintf("mirrors: [%q]", mirror.Host())})
	p.get(blobPath(d)).want(t, http.StatusOK)
	p.get("/v2/"+repo+"/blobs/"+d.String()+"?ns="+mirror.Host()).wantError(t, http.StatusForbidden, "DENIED")
}

// rows asks for /_/upstreams.
func (p *proxy) rows() map[string]upstreamRow {
	p.t.Helper()
	a := p.get("/_/upstreams")
	a.want(p.t, http.StatusOK, "Content-Type", "application/json", "Cache-Control", "no-store")
	return rowsIn(p.t, a.body)
}

// rowsIn reads an answer to /_/upstreams: each row by "registry host".
func rowsIn(t testing.TB, body []byte) map[string]upstreamRow {
	t.Helper()
	var list []upstreamRow
	if err := json.Unmarshal(body, &list); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	out := map[string]upstreamRow{}
	for _, row := range list {
		out[row.Registry+" "+row.Host] = row
	}
	if len(out) != len(list) {
		t.Errorf("a row is there twice: %s", body)
	}
	return out
}

// The page of upstreams tells of each registry and mirror how it does.
func TestUpstreamsTellHowTheyDo(t *testing.T) {
	t.Parallel()
	up, mirror, liar, idle := upstreamtest.New(t), upstreamtest.New(t), upstreamtest.New(t), upstreamtest.New(t)
	up.Fault(upstreamtest.Fault{Header: http.Header{"Ratelimit-Limit": {"100;w=21600"}, "Ratelimit-Remaining": {"76;w=21600"}}})
	liar.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: "/blobs/"}, Corrupt: true})
	mirror.Down()
	p := newProxy(t, up, settings{
		defaults: "insecure: true", registry: fmt.Sprintf("mirrors: [%q, %q]", mirror.Host(), liar.Host()),
		more: fmt.Sprintf("  %q: {}", idle.Host()),
	})
	layer := random(4, 50_000)
	img := up.PutImage(repo, "v1", layer)
	liar.PutImage(repo, "v1", layer)
	began := time.Now()
	p.get("/v2/"+repo+"/manifests/v1").want(t, http.StatusOK)
	p.get(blobPath(img.Layers[0])).want(t, http.StatusOK)
	rows := p.rows()
	if len(rows) != 4 {
		t.Fatalf("%d rows: %+v", len(rows), rows)
	}
	row := rows[up.Host()+" "+up.Host()]
	if row.State != "up" || row.LatencyMS < 1 || row.RateLimit == nil || *row.RateLimit != 100 || *row.RateRemaining != 76 || row.RateReset.Before(began.Add(5*time.Hour)) {
		t.Errorf("the registry: %+v", row)
	}
	if row = rows[up.Host()+" "+mirror.Host()]; row.State != "down" || row.LastError != "connection refused" || row.LatencyMS != 0 || row.RateLimit != nil {
		t.Errorf("a mirror that is down: %+v", row)
	}
	if row = rows[up.Host()+" "+liar.Host()]; row.State != "down" || !strings.Contains(row.LastError, "digest") {
		t.Errorf("a mirror that lies: %+v", row)
	}
	if row = rows[idle.Host()+" "+idle.Host()]; row.State != "up" || row.LastError != "" || row.LatencyMS != 0 || row.Since.IsZero() {
		t.Errorf("a registry that was not asked: %+v", row)
	}
	up.ClearFaults()
	up.Fault(upstreamtest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"60"}}})
	p.get("/v2/"+repo+"/manifests/none").wantError(t, http.StatusTooManyRequests, "TOOMANYREQUESTS")
	if row = p.rows()[up.Host()+" "+up.Host()]; row.State != "limited" || !strings.Contains(row.LastError, "429") {
		t.Errorf("a registry that limits: %+v", row)
	}
}

// While less than rate_limit_reserve is left, a known tag is not asked for, and schedules pull
// nothing.
func TestTheReserveOfARateLimitIsKept(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		reserve, left string
		asks          int
	}{
		"less than the reserve":    {"20", "19;w=600", 1},
		"nothing left":             {"1%", "0;w=600", 1},
		"as much as the reserve":   {"20", "20;w=600", 3},
		"no reserve":               {"0", "0;w=600", 3},
		"the registry tells none":  {"100", "", 3},
		"all of it is the reserve": {"100", "99;w=600", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t)
			up.PutImage(repo, "v1", random(1, 10))
			up.Fault(upstreamtest.Fault{Header: http.Header{"Ratelimit-Limit": {"100;w=600"}, "Ratelimit-Remaining": {test.left}}})
			p := newProxy(t, up, settings{registry: "rate_limit_reserve: " + test.reserve})
			for range 3 {
				p.get("/v2/"+repo+"/manifests/v1").want(t, http.StatusOK)
			}
			if n := up.Count(http.MethodHead, "/manifests/v1"); n != test.asks {
				t.Errorf("the registry was asked %d times, want %d", n, test.asks)
			}
			if _, _, err := p.node.warmer.pullSparingly(t.Context(), up.Host()+"/"+repo+":v1", image.All); errors.Is(err, errSpare) != (test.asks == 1) {
				t.Errorf("a schedule: %v", err)
			}
		})
	}
}

// One node's 429 is known to all: no other node asks before the time is over.
func TestMeshKnowsOfA429(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	first := c.blobOf(0, 1000)
	c.up.Fault(upstreamtest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"77"}}})
	c.get(0, blobPath(first.Digest)).wantError(t, http.StatusTooManyRequests, "TOOMANYREQUESTS")
	c.up.ClearFaults()
	for i := range c.nodes {
		testkit.Await(t, fmt.Sprintf("node %d hears of it", i), func() bool {
			return rowsIn(t, c.get(i, "/_/upstreams").body)[c.up.Host()+" "+c.up.Host()].State == "limited"
		})
	}
	for i := range c.nodes {
		b := c.blobOf(i, 1000)
		a := c.get(i, blobPath(b.Digest))
		if d := a.wantError(t, http.StatusTooManyRequests, "TOOMANYREQUESTS"); d.RetryAfter < 40 || d.RetryAfter > 77 {
			t.Errorf("node %d: %+v", i, d)
		}
		c.wantGets(b, 0)
	}
}
