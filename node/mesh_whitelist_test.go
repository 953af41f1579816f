package node

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"oci-proxy/node/cluster"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

// many returns a config with more registries than a member can announce.
func many() string {
	var lines strings.Builder
	for i := range 60 {
		fmt.Fprintf(&lines, "  registry-%d.example: {}\n", i)
	}
	return lines.String()
}

// askers returns the numbers of the nodes that may ask the registry, as node i sees it.
// It looks at the routes of many keys.
func (c *testCluster) askers(i int, registry string) (all []int) {
	c.t.Helper()
	of := c.nodes[i].node.cluster
	for key := range 20 {
		for _, p := range of.Router().Route(registry, strconv.Itoa(key)) {
			id := of.Router().Self()
			if p != nil {
				id = p.ID()
			}
			one, _ := of.Members().View().Member(id)
			n := slices.IndexFunc(c.nodes, func(n *testNode) bool { return n.name == one.Name })
			if !slices.Contains(all, n) {
				all = append(all, n)
			}
		}
	}
	slices.Sort(all)
	return all
}

// A member in whitelist_mode with more registries than it can announce is not asked for
// those that it does not have.
func TestMeshWhitelistOfMoreThanItTells(t *testing.T) {
	t.Parallel()
	other := upstreamtest.New(t)
	c := formCluster(t, 3, upstreamtest.New(t), func(i int) form {
		switch i {
		case 0:
			return form{settings: settings{top: "whitelist_mode: true", more: many()}}
		case 1:
			return form{settings: settings{more: fmt.Sprintf("  %q: {insecure: true}", other.Host())}}
		default:
			return form{}
		}
	})
	for i := range c.nodes {
		for registry, want := range map[string][]int{
			other.Host(): {1}, "stranger.example": {1, 2}, "registry-7.example": {1, 2},
		} {
			if registry == "registry-7.example" && i == 0 {
				want = []int{0} // it knows its own registries
			}
			if got := c.askers(i, registry); !slices.Equal(got, want) {
				t.Errorf("for node %d %s is asked by %v, want %v", i, registry, got, want)
			}
		}
	}
	for k := range 6 {
		d := other.PutRandomBlob(repo, uint64(100+k), 10_000)
		c.get(2, "/v2/"+repo+"/blobs/"+d.String()+"?ns="+other.Host()).want(t, http.StatusOK)
	}
}

// If all nodes are in whitelist_mode and none can announce all its registries, they still
// ask each other.
func TestMeshWhitelistsThatAreTheSame(t *testing.T) {
	t.Parallel()
	c := formCluster(t, 3, upstreamtest.New(t), func(int) form {
		return form{settings: settings{top: "whitelist_mode: true", more: many()}}
	})
	for owner := range c.nodes {
		b := c.blobOf(owner, 10_000)
		for i := range c.nodes {
			c.pull(i, b)
		}
		c.wantGets(b, 1)
	}
}

// Whatever other members believe, a node in whitelist_mode asks no registry that its
// config does not name, and answers nothing about such a registry. It does not crash
// either if it has no place for the content.
func TestMeshWhitelistHoldsAtThePeersPort(t *testing.T) {
	t.Parallel()
	const foreign = "stranger.example"
	dir := t.TempDir()
	c := formCluster(t, 2, upstreamtest.New(t), func(i int) form {
		if i == 1 {
			return form{settings: settings{top: "whitelist_mode: true", registry: fmt.Sprintf("cache_dir: %q", dir)}}
		}
		return form{}
	})
	asked := c.nodes[1].node.cluster.Members().View().Self.ID
	p := c.nodes[0].node.cluster.Client().Peer(asked)
	ctx := t.Context()
	ref := oci.Ref{Registry: foreign, Repository: repo, Digest: digest.FromString("x")}
	tag := oci.Ref{Registry: foreign, Repository: repo, Tag: "1"}
	calls := map[string]func() error{
		"blob":     func() error { _, err := p.Open(ctx, ref, 0, mesh.Terms{}); return err },
		"stat":     func() error { _, _, err := p.Stat(ctx, ref); return err },
		"manifest": func() error { _, err := p.Manifest(ctx, ref, mesh.Terms{}); return err },
		"tag":      func() error { _, err := p.Tag(ctx, tag, nil); return err },
		"tags": func() error {
			_, _, err := p.List(ctx, oci.Question{Ref: ref.Repo()}, false, new(bytes.Buffer))
			return err
		},
		"referrers": func() error { _, _, err := p.List(ctx, oci.Question{Ref: ref}, false, new(bytes.Buffer)); return err },
		"offer":     func() error { return p.Offer(ctx, oci.Ref{Registry: foreign, Digest: ref.Digest}, "") },
	}
	for name, call := range calls {
		err := call()
		if _, peers := errors.AsType[*mesh.PeerError](err); !peers {
			t.Errorf("%s: %v", name, err)
		}
	}
	if at, err := p.Peek(ctx, ref); at != mesh.Absent || err != nil {
		t.Errorf("peek: %v, %v", at, err)
	}
	if at, err := p.Progress(ctx, ref); at.Held || err != nil {
		t.Errorf("progress: %+v, %v", at, err)
	}
	if err := p.Refused(ctx, tag); err != nil { // this asks nobody
		t.Errorf("refusal: %v", err)
	}
	if err := errors.Join(p.Lost(ctx, tag, oci.ManifestResource), p.Lost(ctx, ref, oci.BlobResource)); err != nil {
		t.Errorf("loss: %v", err)
	}
	if _, err := p.Open(ctx, ref, 0, mesh.Terms{Held: true}); oci.KindOf(err) != oci.NotFound {
		t.Errorf("held blob: %v", err)
	}
	if _, err := p.Manifest(ctx, ref, mesh.Terms{Held: true}); oci.KindOf(err) != oci.NotFound {
		t.Errorf("held manifest: %v", err)
	}
	var info cluster.Owner
	c.json(0, "/_/owner/"+ref.Digest.String(), &info)
	if len(info.Missing) > 0 {
		t.Errorf("%+v", info)
	}
	if strings.Contains(c.nodes[1].log.String(), " a bug") {
		t.Error("a request failed because of a bug")
	}
}
