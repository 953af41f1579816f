package node

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/image"

	"oci-proxy/transfer/upstreamtest"
)

// users are two users and clients without a login.
const users = "auth: {username: bob, password: x7, anonymous_from: [127.0.0.0/8]}\n"

// A rule holds for every way to a repository's content.
func TestAccessHoldsForEveryWayToContent(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	img := up.PutImage(repo, "v1", random(1, 1000))
	other := up.PutImage("open/app", "v1", random(2, 1000))
	port := strings.TrimPrefix(up.Host(), "127.0.0.1:")
	p := newProxy(t, up, settings{
		top:      users + fmt.Sprintf("access:\n- {users: [bob], allow: [%q]}\n- {deny: [%q]}", up.Host()+"/team/**", "mine/"+repo),
		registry: "alias: [mine]", more: "  ghcr.io: {mirrors: [" + up.Host() + "]}",
	})
	bob := basic("bob", "x7")
	under := func(name string) []string {
		v2 := "/v2/" + name
		return []string{
			v2 + "/manifests/v1", v2 + "/manifests/" + img.Manifest.String(), v2 + "/blobs/" + img.Layers[0].String(),
			v2 + "/tags/list", v2 + "/referrers/" + img.Manifest.String(),
		}
	}
	for _, path := range under(repo) {
		p.get(path, bob...).want(t, http.StatusOK)
	}
	before := len(up.Requests())
	var all []string
	for _, name := range []string{repo, up.Host() + "/" + repo, "127.0.0.1_" + port + "/" + repo, "mine/" + repo} {
		all = append(all, under(name)...)
	}
	for _, path := range under(repo) {
		all = append(all, path+"?ns="+up.Host())
	}
	for _, path := range all {
		d := p.get(path).wantError(t, http.StatusForbidden, "DENIED")
		if want := "the access rule at test.yaml:6 does not let anonymous pull " + repo; d.Reason != want || d.Registry != up.Host() {
			t.Errorf("%s: %+v", path, d)
		}
		p.do(http.MethodHead, path).want(t, http.StatusForbidden)
		p.get(path, "Range", "bytes=0-9").want(t, http.StatusForbidden)
		p.get(path, "If-None-Match", `"`+img.Manifest.String()+`"`).want(t, http.StatusForbidden)
		p.get(path, basic("bob", "wrong")...).want(t, http.StatusForbidden) // it pulls as one without a login
	}
	p.get("/v2/open/app/manifests/v1").want(t, http.StatusOK, "Docker-Content-Digest", other.Manifest.String())
	p.get("/v2/").want(t, http.StatusOK)
	if n := len(up.Requests()) - before; n > 3 {
		t.Errorf("%d requests reached the registry", n)
	}
	if line := p.line(`"rule":`); line["rule"] != "test.yaml:6" || line["status"] != float64(http.StatusForbidden) {
		t.Errorf("the log says %v", line)
	}
}

// Images are pulled into the cache, and taken in from files, by the rules for the user who
// asks.
func TestAccessHoldsForWarmAndImport(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	up.PutImage(repo, "v1", random(1, 1000))
	up.PutImage("open/app", "v1", random(2, 1000))
	p := newProxy(t, up, settings{top: "auth: {username: bob, password: x7}\n" + fmt.Sprintf("access: [{users: [bob], deny: [%q]}]", "*/"+repo)})
	ask := func(path, contentType, body string) answer {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("bob", "x7")
		req.Header.Set("Content-Type", contentType)
		resp, err := p.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return read(resp)
	}
	a := ask("/_/warm", "application/json", fmt.Sprintf(`{"images": [%q, "open/app:v1"], "platforms": ["all"]}`, repo+":v1"))
	lines := strings.Split(strings.TrimSpace(string(a.body)), "\n")
	if a.StatusCode != http.StatusOK || len(lines) != 3 || strings.Count(string(a.body), "the access rule at test.yaml:4 does not let user bob pull "+repo) != 1 {
		t.Errorf("%d: %s", a.StatusCode, a.body)
	}
	if up.Count(http.MethodGet, repo) > 0 || up.Count(http.MethodGet, "open/app") == 0 {
		t.Error("what is refused came, or what is allowed did not")
	}
	m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"digest":%q,"size":2},"layers":[]}`, upstreamtest.TypeManifest, digest.FromString("{}"))
	entry := func(name string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"annotations":{"org.opencontainers.image.ref.name":%q}}`, upstreamtest.TypeManifest, digest.FromString(m), len(m), up.Host()+"/"+name)
	}
	file := tarOf(t, image.IndexName, `{"schemaVersion":2,"manifests":[`+entry(repo+":v9")+","+entry("open/app:v9")+"]}",
		"blobs/sha256/"+digest.FromString(m).Encoded(), m, "blobs/sha256/"+digest.FromString("{}").Encoded(), "{}")
	a = ask("/_/import", "application/x-tar", file)
	if a.StatusCode != http.StatusOK || strings.Count(string(a.body), "the access rule at test.yaml:4 does not let user bob pull "+repo) != 1 || strings.Count(string(a.body), `"error"`) != 1 {
		t.Errorf("%d: %s", a.StatusCode, a.body)
	}
	up.Down()
	p.get("/v2/open/app/manifests/v9", basic("bob", "x7")...).want(t, http.StatusOK)
}

// The node that a client asks judges by its own rules. One that it asks in turn judges by
// its own for whom it is, and otherwise answers as if it held nothing.
func TestMeshNodesWithDifferentRules(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	c := startCluster(t, 2, up, func(i int) form {
		f := form{settings: settings{top: users}}
		if f.top += "access: [{allow: ['other.example/**']}"; i == 0 {
			f.top += fmt.Sprintf(", {users: [anonymous], deny: [%q]}", up.Host()+"/**")
		}
		f.top += "]"
		return f
	})
	img := up.PutImage(repo, "v1", random(8, 1000))
	bob := basic("bob", "x7")
	first, second := c.blobOf(0, 3*mib), c.blobOf(0, 3*mib)
	for _, b := range []testBlob{first, second} {
		c.get(0, blobPath(b.Digest), bob...).want(t, http.StatusOK)
		c.get(0, blobPath(b.Digest)).wantError(t, http.StatusForbidden, "DENIED")
	}
	c.get(1, blobPath(first.Digest), bob...).want(t, http.StatusOK, "Cache-Status", "node-0; hit, node-1; fwd=uri-miss; stored")
	c.wantGets(first, 1)
	c.get(1, blobPath(second.Digest)).want(t, http.StatusOK, "Cache-Status", "node-1; fwd=uri-miss; stored")
	c.wantGets(second, 2)
	for _, d := range []string{"v1", img.Manifest.String()} {
		c.get(1, "/v2/"+repo+"/manifests/"+d).want(t, http.StatusOK, "Docker-Content-Digest", img.Manifest.String())
		c.get(0, "/v2/"+repo+"/manifests/"+d).want(t, http.StatusForbidden)
	}
	c.get(1, "/v2/"+repo+"/tags/list").want(t, http.StatusOK)
	if !strings.Contains(c.nodes[0].log.String(), "the access rule at test.yaml:4 does not let anonymous pull "+repo) {
		t.Error("the log of the node that refused does not name the rule")
	}
}

// A client that needs no login at a node without rules, and brings one that nobody looks at,
// may be anybody: other members judge it so.
func TestMeshALoginThatNobodyLooksAtIsNobodys(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	c := formCluster(t, 2, up, func(i int) form {
		f := form{settings: settings{top: users}}
		if i == 0 {
			f.top += fmt.Sprintf("access: [{users: [eve], deny: [%q]}]", up.Host()+"/**")
		}
		return f
	})
	first, second := c.blobOf(0, mib), c.blobOf(0, mib)
	for _, b := range []testBlob{first, second} {
		c.get(0, blobPath(b.Digest)).want(t, http.StatusOK)
	}
	c.get(1, blobPath(first.Digest)).want(t, http.StatusOK, "Cache-Status", "node-0; hit, node-1; fwd=uri-miss; stored")
	c.get(1, blobPath(second.Digest), basic("eve", "any")...).want(t, http.StatusOK, "Cache-Status", "node-1; fwd=uri-miss; stored")
}
