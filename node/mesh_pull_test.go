package node

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"oci-proxy/node/cluster"
	"oci-proxy/node/figures"
	"oci-proxy/transfer/upstreamtest"
)

func TestMeshAsksUpstreamOnceAndTellsTheWay(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, upstreamtest.New(t), func(int) form { return form{} })
	b := c.blobOf(1, 3*mib)
	for i, want := range []string{
		"node-1; fwd=uri-miss; stored, node-0; fwd=uri-miss; stored",
		"node-1; hit",
		"node-1; hit, node-2; fwd=uri-miss; stored",
	} {
		if p := c.pull(i, b); p.status != want {
			t.Errorf("at node %d: %q, want %q", i, p.status, want)
		}
	}
	c.wantGets(b, 1)
	for i, want := range [][3]int64{{0, 0, 1}, {1, 0, 0}, {0, 1, 0}} {
		if s := c.own(i); [3]int64{s[figures.Hits], s[figures.PeerHits], s[figures.Misses]} != want {
			t.Errorf("node %d counts %d, %d, %d, want %d", i, s[figures.Hits], s[figures.PeerHits], s[figures.Misses], want)
		}
	}
}

func TestMeshImageThroughAllNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	img := c.up.PutImage(repo, "v1", random(1, 300_000), random(2, 1000))
	manifests := "/v2/" + repo + "/manifests/"
	for i := range c.nodes {
		a := c.get(i, manifests+"v1")
		a.want(t, http.StatusOK, "Docker-Content-Digest", img.Manifest.String(), "Content-Type", upstreamtest.TypeManifest)
		c.get(i, manifests+img.Manifest.String()).want(t, http.StatusOK)
		for _, d := range append(img.Layers, img.Config) {
			c.tryPull(i, d).wantWhole(t)
		}
		t.Logf("node %d: %s", i, a.Header.Get("Cache-Status"))
	}
	for _, d := range append(img.Layers, img.Config, img.Manifest) {
		if n := c.up.Count(http.MethodGet, d.String()); n != 1 {
			t.Errorf("%s was asked for %d times", d, n)
		}
	}
	c.up.Down() // every node serves the last manifest that it knows of the tag
	for i := range c.nodes {
		c.get(i, manifests+"v1").want(t, http.StatusOK, "Docker-Content-Digest", img.Manifest.String())
	}
}

func TestMeshTellsOfTheClusterAsOne(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	b := c.blobOf(1, 2*mib)
	for i := range c.nodes {
		c.pull(i, b)
	}
	var sum figures.Registry
	c.await("the figures of all", func() bool {
		all := map[string]figures.Registry{}
		h := c.json(0, "/_/stats", &all)
		sum = all[c.up.Host()]
		return h.Get("X-Cluster-Nodes") == "3/3" && h.Get("X-Cluster-Missing") == "" && sum[figures.Hits]+sum[figures.PeerHits]+sum[figures.Misses] == 3
	})
	if sum[figures.Hits] != 1 || sum[figures.PeerHits] != 1 || sum[figures.Misses] != 1 || sum[figures.FromUpstreamBytes] != b.size || sum[figures.CurrentSize] != sum[figures.Items]*b.size || sum[figures.Items] < 1 {
		t.Errorf("the sums are %+v", sum)
	}
	var total totals
	c.json(0, "/v2/", &total)
	if total.Nodes != 3 || total.Hits != 1 || total.PeerHits != 1 || total.Misses != 1 || total.Items != sum[figures.Items] || total.MaxSize != 30<<30 {
		t.Errorf("the totals are %+v", total)
	}
	c.wantInfo(b)
	c.kill(2)
	c.await("one is missing", func() bool {
		h := c.json(0, "/_/stats", new(map[string]figures.Registry))
		return h.Get("X-Cluster-Nodes") == "2/3" && h.Get("X-Cluster-Missing") == "node-2"
	})
}

// wantInfo checks that /_/cluster lists three nodes, and that /_/owner names node 1 as
// the owner of a blob.
func (c *testCluster) wantInfo(b testBlob) {
	c.t.Helper()
	rings := map[string]bool{}
	for i := range c.nodes {
		var info cluster.Description
		c.json(i, "/_/cluster", &info)
		share := 0.0
		for _, m := range info.Members {
			share += m.Share
			if m.State != "active" || !m.Healthy || m.Stats == nil || m.Self != (m.Name == c.nodes[i].name) {
				c.t.Errorf("node %d says %+v", i, m)
			}
		}
		rings[info.Ring] = true
		if len(info.Members) != 3 || len(info.Missing) != 0 || share < 0.999 || share > 1.001 {
			c.t.Errorf("node %d says %+v", i, info)
		}
		var owner cluster.Owner
		c.json(i, "/_/owner/"+b.String(), &owner)
		if owner.Owner != "node-1" || len(owner.Next) != 2 || !slices.Contains(owner.Holders, "node-1") || len(owner.Missing) != 0 {
			c.t.Errorf("node %d says %+v", i, owner)
		}
	}
	if len(rings) != 1 {
		c.t.Errorf("the rings differ: %v", slices.Collect(maps.Keys(rings)))
	}
}

const (
	upstreamUser     = "robot-of-the-registry"
	upstreamPassword = "open-the-registry-please"
)

// Only node 0 has the login.
func TestMeshFetchesForThoseWithoutTheLogin(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t, upstreamtest.Bearer(upstreamtest.BearerAuth{User: upstreamUser, Password: upstreamPassword}))
	c := formCluster(t, 3, up, func(i int) form {
		if i == 0 {
			return form{settings: settings{registry: fmt.Sprintf("auth: {username: %s, password: %s}", upstreamUser, upstreamPassword)}}
		}
		return form{}
	})
	img := up.PutImage(repo, "v1", random(1, 300_000))
	other := up.PutBlob("other/app", random(7, 10))
	for _, i := range []int{2, 1, 0} {
		c.get(i, "/v2/"+repo+"/manifests/v1").want(t, http.StatusOK)
		c.tryPull(i, img.Layers[0]).wantWhole(t)
		c.get(i, "/v2/"+repo+"/tags/list").want(t, http.StatusOK)
		// A blob that one repository delivered is not served for another.
		c.get(i, "/v2/other/app/blobs/"+img.Layers[0].String()).want(t, http.StatusNotFound)
		c.get(i, "/v2/other/app/blobs/"+other.String()).want(t, http.StatusOK)
	}
	for _, r := range up.Requests() {
		if r.Server == "token" || strings.Contains(r.Path, "Token") {
			continue
		}
		if r.Status == http.StatusForbidden {
			t.Errorf("%s %s: %d", r.Method, r.Path, r.Status)
		}
	}
	for _, one := range c.nodes {
		for _, secret := range []string{meshSecret, upstreamPassword} {
			if strings.Contains(one.log.String(), secret) {
				t.Errorf("a secret is in the log of %s", one.name)
			}
		}
	}
	if p := c.tryPull(1, img.Layers[0]); !p.whole {
		t.Errorf("%+v", p)
	}
	c.kill(0) // a node that holds it still serves it
	c.tryPull(1, img.Layers[0]).wantWhole(t)
}

func TestMeshNodeWithoutEgress(t *testing.T) {
	t.Parallel()
	way := map[bool]string{true: "", false: ", egress: false"}
	c := formCluster(t, 3, upstreamtest.New(t), func(i int) form {
		return form{cluster: fmt.Sprintf("secret: %q%s", meshSecret, way[i == 1])}
	})
	for owner := range c.nodes {
		b := c.blobOf(owner, 100_000)
		for _, i := range []int{0, 2, 1} {
			c.pull(i, b)
		}
		c.wantGets(b, 1)
	}
	for _, i := range []int{0, 2} {
		if s := c.own(i); s[figures.FromUpstreamBytes] != 0 {
			t.Errorf("node %d has no way out and got %d bytes", i, s[figures.FromUpstreamBytes])
		}
	}
	c.kill(1)
	d := c.get(0, blobPath(c.blob(1000).Digest)).wantError(t, http.StatusBadGateway, "UNAVAILABLE")
	t.Logf("with nobody left who may ask: %+v", d)
}

func TestMeshWhitelist(t *testing.T) {
	t.Parallel()
	other := upstreamtest.New(t)
	c := formCluster(t, 3, upstreamtest.New(t), func(i int) form {
		if i == 1 {
			return form{settings: settings{top: "whitelist_mode: true"}}
		}
		return form{settings: settings{more: fmt.Sprintf("  %q: {insecure: true}", other.Host())}}
	})
	for k := range 6 {
		d := other.PutRandomBlob(repo, uint64(100+k), 10_000)
		path := "/v2/" + repo + "/blobs/" + d.String() + "?ns=" + other.Host()
		c.get(1, path).wantError(t, http.StatusForbidden, "DENIED")
		c.get(0, path).want(t, http.StatusOK)
		c.get(2, path).want(t, http.StatusOK)
		c.get(1, path).wantError(t, http.StatusForbidden, "DENIED")
		if n := other.Count(http.MethodGet, d.String()); n != 1 {
			t.Errorf("asked %d times", n)
		}
	}
}

func TestMeshLeaveHandsOver(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	var blobs []testBlob
	for k := range 8 {
		b := c.blobOf(2, int64(1000+200_000*k))
		c.pull(2, b)
		blobs = append(blobs, b)
	}
	manifest := upstreamtest.TypeManifest
	m := c.up.PutManifest(repo, "", manifest, []byte(`{"schemaVersion":2}`))
	path := "/v2/" + repo + "/manifests/" + m.String()
	c.get(2, path).want(t, http.StatusOK)
	done := c.leave(2)
	t.Logf("%+v", done)
	if done.Failed != 0 || done.Blobs < len(blobs) {
		t.Errorf("handed over: %+v", done)
	}
	c.awaitMembers(2)
	c.up.Down()
	for _, b := range blobs {
		for i := range 2 {
			c.pull(i, b)
		}
	}
	c.get(0, path).want(t, http.StatusOK, "Content-Type", manifest)
}

// The node that leaves may be the only one that can ask the registry. Then the others
// keep only what it hands over.
func TestMeshLeaveHandsOverToThoseWithoutAWayOut(t *testing.T) {
	t.Parallel()
	way := map[bool]string{true: "", false: ", egress: false"}
	c := formCluster(t, 3, upstreamtest.New(t), func(i int) form {
		return form{cluster: fmt.Sprintf("secret: %q%s", meshSecret, way[i == 0])}
	})
	var blobs []testBlob
	for owner := range c.nodes {
		b := c.blobOf(owner, 10_000)
		c.pull(0, b)
		blobs = append(blobs, b)
	}
	if done := c.leave(0); done.Failed != 0 || done.Blobs+done.Held != len(blobs) {
		t.Errorf("handed over: %+v", done)
	}
	c.awaitMembers(2)
	c.up.Down()
	for _, b := range blobs {
		c.pull(c.order(b.Digest)[0], b)
	}
}

// The last node has no other to hand over to, and says so.
func TestMeshLeaveOfTheLast(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	c.pull(0, c.blob(1000))
	if done := c.leave(0); done.Failed != 1 {
		t.Errorf("%+v", done)
	}
	if log := c.nodes[0].log.String(); !strings.Contains(log, "no other node is up that could take it") || strings.Contains(log, "it is down") {
		t.Error(log)
	}
}

func TestMeshLeaveIsTheOperators(t *testing.T) {
	t.Parallel()
	c := formCluster(t, 2, upstreamtest.New(t), func(i int) form {
		if i == 1 {
			return form{settings: settings{top: login + "}"}}
		}
		return form{}
	})
	const path = "/_/leave"
	for name, header := range map[string][]string{
		"another site's page": {"Sec-Fetch-Site", "cross-site", "Origin", "http://evil.example"},
		"a page of old":       {"Origin", "http://evil.example"},
		"through a balancer":  {"X-Forwarded-For", "127.0.0.1"},
	} {
		if a := c.do(http.MethodPost, 0, path, header...); a.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %d", name, a.StatusCode)
		}
		if a := c.do(http.MethodPost, 1, path, header...); a.StatusCode != http.StatusUnauthorized && a.StatusCode != http.StatusForbidden {
			t.Errorf("%s, without the login: %d", name, a.StatusCode)
		}
	}
	if a := c.do(http.MethodPost, 1, path); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("without the login: %d", a.StatusCode)
	}
	site := append(basic("puller", "right:one"), "Sec-Fetch-Site", "cross-site", "Origin", "http://evil.example")
	if a := c.do(http.MethodPost, 1, path, site...); a.StatusCode != http.StatusForbidden {
		t.Errorf("another site's page with the login: %d", a.StatusCode)
	}
	if a := c.get(0, path); a.StatusCode == http.StatusOK {
		t.Error("a GET makes the node leave")
	}
	c.awaitMembers(2)
}

func TestMeshStatsAreJSONOfTheAncestorsShape(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	c.pull(0, c.blob(1000))
	var all map[string]map[string]json.Number
	c.json(1, "/_/stats", &all)
	for _, key := range []string{"Hits", "Misses", "Evictions", "Items", "CurrentSize", "MaxSize", "PeerHits"} {
		if _, ok := all[c.up.Host()][key]; !ok {
			t.Errorf("no %s in %v", key, all)
		}
	}
}
