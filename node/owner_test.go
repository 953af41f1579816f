package node

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/cluster"
	"oci-proxy/node/figures"
	"oci-proxy/transfer/upstreamtest"
)

// stranger makes a request look like one from another machine.
var stranger = []string{"X-Forwarded-For", "192.0.2.7"}

// wantHolders fails the test unless the answer names these holders.
func wantHolders(t *testing.T, what string, a answer, want ...string) {
	t.Helper()
	a.want(t, http.StatusOK, "Content-Type", "application/json")
	var o cluster.Owner
	if err := json.Unmarshal(a.body, &o); err != nil {
		t.Fatalf("%s: %v in %s", what, err, a.body)
	}
	slices.Sort(o.Holders)
	if o.Holders == nil || !slices.Equal(o.Holders, want) || len(o.Missing) > 0 {
		t.Errorf("%s: holders %q, missing %v; want holders %q", what, o.Holders, o.Missing, want)
	}
}

// Without auth anybody may ask which nodes hold a digest. A stranger who guesses a
// private digest must not learn whether the node holds it.
func TestOwnerTellsStrangersNothingOfPrivateContent(t *testing.T) {
	t.Parallel()
	v := newVault(t, "")
	public := v.evil.PutBlob(repo, random(31, 1000))
	v.get("/v2/evil/"+repo+"/blobs/"+public.String()).want(t, 200)
	path := "/_/owner/"
	private := v.img.Layers[0]
	wantHolders(t, "the machine itself, a private digest", v.get(path+private.String()), proxyName)
	wantHolders(t, "a stranger, a public digest", v.get(path+public.String(), stranger...), proxyName)
	for what, d := range map[string]digest.Digest{"layer": private, "manifest": v.img.Manifest, "nothing": digest.FromString("nothing")} {
		wantHolders(t, "a stranger, a private digest: "+what, v.get(path+d.String(), stranger...))
	}
	held, nothing := v.get(path+private.String(), stranger...), v.get(path+digest.FromString("nothing").String(), stranger...)
	if len(held.body) != len(nothing.body) {
		t.Errorf("a stranger can tell %s from %s", held.body, nothing.body)
	}
}

// With auth, everyone who is let in is an operator.
func TestOwnerTellsUsersEverything(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	d := up.PutBlob(repo, random(32, 1000))
	p := newProxy(t, up, settings{top: login + "}", registry: "private: true"})
	user := basic("puller", "right:one")
	p.get(blobPath(d), user...).want(t, 200)
	p.get("/_/owner/"+d.String(), stranger...).want(t, http.StatusUnauthorized)
	wantHolders(t, "a user", p.get("/_/owner/"+d.String(), append(user, stranger...)...), proxyName)
}

// The same rule applies to what other members hold, also at a node that was only told by
// another that a registry is private.
func TestMeshOwnerTellsStrangersNothingOfPrivateContent(t *testing.T) {
	t.Parallel()
	up, other := upstreamtest.New(t), upstreamtest.New(t)
	c := startCluster(t, 2, up, func(i int) form {
		return form{settings: settings{
			registry: []string{"", "private: true"}[i], more: fmt.Sprintf("  %q: {insecure: true, alias: [other]}", other.Host()),
		}}
	})
	var private, public []digest.Digest
	for owner := range 2 { // node 1 holds both
		b := c.blobOf(owner, 1000)
		c.pull(1, b)
		private = append(private, b.Digest)
		d := other.PutBlob(repo, random(uint64(40+owner), 1000))
		c.get(1, "/v2/other/"+repo+"/blobs/"+d.String()).want(t, http.StatusOK)
		public = append(public, d)
	}
	c.await("node 1 holds all", func() bool { return c.own(1)[figures.Items] >= 2 })
	for asked := range 2 {
		for _, d := range private {
			wantHolders(t, "a stranger, a private digest", c.get(asked, "/_/owner/"+d.String(), stranger...))
			if a := c.get(asked, "/_/owner/"+d.String()); !holds(t, a, "node-1") {
				t.Errorf("the machine itself is not told that node-1 holds it: %s", a.body)
			}
		}
		for _, d := range public {
			if a := c.get(asked, "/_/owner/"+d.String(), stranger...); !holds(t, a, "node-1") {
				t.Errorf("a stranger is not told that node-1 holds a public blob: %s", a.body)
			}
		}
	}
}

// holds reports whether the answer names a holder.
func holds(t *testing.T, a answer, name string) bool {
	t.Helper()
	var o cluster.Owner
	if err := json.Unmarshal(a.body, &o); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	return slices.Contains(o.Holders, name)
}
