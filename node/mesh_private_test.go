package node

import (
	"fmt"
	"net/http"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// A member that said that a registry is private may leave. Content that came by its login
// stays private on the disks of members that never had a login.
func TestPrivateContentStaysPrivateWithoutTheMemberThatSaidSo(t *testing.T) {
	t.Parallel()
	c := formCluster(t, 2, upstreamtest.New(t), func(i int) form {
		return form{settings: settings{registry: []string{"private: true", ""}[i]}}
	})
	b := c.blob(100 << 10)
	c.pull(1, b)
	strange := "/v2/strangers/app/blobs/" + b.String()
	refused := func(when string) {
		t.Helper()
		if a := c.get(1, strange); a.StatusCode != http.StatusNotFound {
			t.Errorf("%s: another repository's blob: status %d", when, a.StatusCode)
		}
		// A cache in front of a node that was only told of this must not share it either.
		c.get(1, blobPath(b.Digest)).want(t, http.StatusOK, "Cache-Control", "private, max-age=31536000, immutable")
	}
	refused("both are up")
	c.leave(0)
	c.awaitMembers(1)
	refused("it has left")
	c.stop(1)
	c.start(1)
	refused("after a restart")
	c.pull(1, b)
	c.wantGets(b, 1)
}

// Content that a leaving node hands over stays as private as it was.
func TestPrivateContentStaysPrivateWhereItIsHandedOver(t *testing.T) {
	t.Parallel()
	c := formCluster(t, 2, upstreamtest.New(t), func(i int) form {
		return form{settings: settings{registry: []string{"private: true", ""}[i]}}
	})
	b := c.blobOf(0, 100<<10)
	c.pull(0, b)
	if done := c.leave(0); done.Blobs == 0 {
		t.Fatalf("%+v", done)
	}
	c.awaitMembers(1)
	if a := c.get(1, "/v2/strangers/app/blobs/"+b.String()); a.StatusCode != http.StatusNotFound {
		t.Errorf("another repository's blob: status %d", a.StatusCode)
	}
	c.pull(1, b)
	c.wantGets(b, 1)
}

// A refusal that one node gets counts at all nodes, also in an outage.
func TestARefusalReachesAllNodes(t *testing.T) {
	t.Parallel()
	c := formCluster(t, 3, upstreamtest.New(t), func(int) form { return form{settings: settings{registry: "private: true"}} })
	b := c.blob(100 << 10)
	for i := range c.nodes {
		c.pull(i, b)
	}
	c.up.Fault(upstreamtest.Fault{Status: http.StatusForbidden})
	if a := c.get(1, "/v2/"+repo+"/manifests/v1"); a.StatusCode != http.StatusForbidden {
		t.Fatalf("status %d", a.StatusCode)
	}
	c.up.Down()
	for i := range c.nodes {
		c.await("the refusal", func() bool { return c.get(i, "/v2/"+repo+"/blobs/"+b.String()).StatusCode != http.StatusOK })
	}
}

// Content that came by a login stays private when the login is taken out of the config,
// also on a node without others. Only `private: false` makes it public.
func TestPrivateContentStaysPrivateWithoutTheLogin(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t, upstreamtest.Bearer(upstreamtest.BearerAuth{User: upstreamUser, Password: upstreamPassword}))
	img := up.PutImage(repo, "v1", random(1, 10_000))
	dir := t.TempDir()
	login := fmt.Sprintf("auth: {username: %s, password: %s}", upstreamUser, upstreamPassword)
	strange := "/v2/strangers/app/blobs/" + img.Layers[0].String()
	for _, step := range []struct {
		registry string
		status   int
	}{
		{login, http.StatusNotFound},
		{"", http.StatusForbidden},
		{"", http.StatusForbidden},
		{"private: false", http.StatusOK},
		{"", http.StatusOK},
		{login, http.StatusNotFound},
		{"", http.StatusForbidden},
	} {
		p := newProxy(t, up, settings{dir: dir, registry: step.registry})
		if step.registry == login {
			p.get(blobPath(img.Layers[0])).want(t, http.StatusOK)
		}
		a := p.get(strange)
		if (a.StatusCode == http.StatusOK) != (step.status == http.StatusOK) {
			t.Errorf("%q: another repository's blob: status %d, want %d", step.registry, a.StatusCode, step.status)
		}
		p.close()
	}
}

// If a member said by mistake that a registry is private, `private: false` undoes that,
// whether it was in the config at that time or came later. Until then the registry stays
// private, over any number of restarts.
func TestAMistakenPrivateIsUndone(t *testing.T) {
	t.Parallel()
	for name, during := range map[string]string{"private: false comes later": "", "private: false was there all the time": "private: false"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mine := during
			c := formCluster(t, 2, upstreamtest.New(t), func(i int) form {
				return form{settings: settings{registry: []string{"private: true", mine}[i]}}
			})
			b := c.blob(100 << 10)
			c.pull(1, b)
			open := func(when string, want bool) {
				t.Helper()
				if a := c.get(1, "/v2/strangers/app/blobs/"+b.String()); (a.StatusCode == http.StatusOK) != want {
					t.Errorf("%s: another repository's blob: status %d", when, a.StatusCode)
				}
			}
			for again := range 2 {
				if again > 0 {
					c.start(0)
					c.awaitMembers(2)
				}
				open("a member says that it is private", false)
				c.leave(0)
				c.awaitMembers(1)
				open("the member has left", during != "")
			}
			restart := func(registry string) {
				mine = registry
				c.stop(1)
				c.start(1)
			}
			if during == "" {
				for range 2 {
					restart("")
					open("restarted", false)
				}
				restart("private: false")
				open("private: false", true)
			}
			restart("")
			open("private: false is taken out again", true)
		})
	}
}
