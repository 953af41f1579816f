package transfer_test

import (
	"context"
	"io"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
)

// fakeMesh is newMesh for a bubble: up stands in for the registries, and policy applies
// to all of them. Call its end.
func fakeMesh(t *testing.T, dir string, n int, up oci.Upstream, policy grants.Site) *meshRig {
	return fakeMeshOf(t, dir, n, up, policy, cache.Options{})
}

// fakeMeshOf is fakeMesh with options for the stores. A node's stall makes its file calls
// hang.
func fakeMeshOf(t *testing.T, dir string, n int, up oci.Upstream, policy grants.Site, opts cache.Options) *meshRig {
	m := &meshRig{t: t}
	for i := range n {
		node := &meshNode{mesh: m, id: i}
		node.routes(func(string) []int { return []int{0} })
		opts.Fault = func(op, name string) error {
			if op == "allocate" {
				time.Sleep(time.Duration(node.disk.Load())) // in the bubble's time
			}
			return node.stall.Load().hold(op, name)
		}
		store := grants.OpenShard(dir+strconv.Itoa(i), opts)
		node.rig = &rig{t: t, store: store, events: newEvents()}
		node.rig.Fetcher = transfer.New(transfer.Config{
			Upstream: up, Log: slog.New(slog.DiscardHandler), Mesh: node,
			Site: func(string) grants.Site { return withShard(node.policy, store) },
		})
		node.policy = policy
		m.nodes = append(m.nodes, node)
	}
	return m
}

func (m *meshRig) end() {
	for _, n := range m.nodes {
		n.end()
	}
}

// A tagged is an upstream with one blob and one manifest, which has a tag.
type tagged struct {
	fake
	now  string // the manifest
	blob []byte
	down bool
}

func newTagged(blob []byte) *tagged {
	u := &tagged{blob: blob, now: `{"layers":[{"digest":"` + digest.FromBytes(blob).String() + `"}]}`}
	fail := func() error {
		if u.down {
			return failure(oci.Unavailable)
		}
		return nil
	}
	u.stat = func(context.Context) (oci.Descriptor, error) {
		return oci.Descriptor{Digest: u.digest(), MediaType: manifestType, Size: int64(len(u.now))}, fail()
	}
	u.manifest = func(context.Context) (oci.Manifest, error) {
		return oci.Manifest{Digest: u.digest(), MediaType: manifestType, Bytes: []byte(u.now)}, fail()
	}
	u.open = func(_ context.Context, _ oci.Ref, o int64) (*oci.Stream, error) {
		if err := fail(); err != nil {
			return nil, err
		}
		return &oci.Stream{Body: endsWith(u.blob[o:], io.EOF), Offset: o, Size: int64(len(u.blob)), Host: "reg.example.com"}, nil
	}
	return u
}

func (u *tagged) digest() digest.Digest { return digest.FromString(u.now) }

var aTag = oci.Ref{Registry: "reg.example.com", Repository: repo, Tag: "v1"}

// A tag that one node has believed for tag_ttl is not believed by another node for a
// further tag_ttl.
func TestATagsAnswerIsNoOlderThanItsTimeInTheMesh(t *testing.T) {
	t.Parallel()
	testkit.Bubble(t, func(t *testing.T, dir string) {
		up := newTagged(nil)
		m := fakeMesh(t, dir, 2, up, grants.Site{TagTTL: time.Minute})
		defer m.end()
		old := up.now
		want := func(i int, now string) {
			t.Helper()
			if found, err := m.nodes[i].Manifest(t.Context(), aTag, nil, false); err != nil || string(found.Bytes) != now {
				t.Errorf("node %d: %+v, %v; want %s", i, found, err, now)
			}
		}
		want(0, old)
		up.now = `{"layers":[]}`
		<-time.After(50 * time.Second)
		want(1, old)
		<-time.After(5 * time.Second)
		want(1, old)
		<-time.After(6 * time.Second)
		want(1, up.now)
	})
}

// In an outage a registry's grant ends stale_if_error after the registry gave it, even
// if nodes pass it on to each other meanwhile.
func TestAVoucherIsNotProlongedByTheMesh(t *testing.T) {
	t.Parallel()
	_, blob := fakeBlob(100 * kib)
	for name, c := range map[string]struct {
		before func(m *meshRig) // while the grant counts
		ask    func(n *meshNode, d, manifest digest.Digest) error
	}{
		"a blob": {ask: func(n *meshNode, d, _ digest.Digest) error {
			_, _, err := n.pull(fakeRef(d), blob, 0, -1)
			return err
		}},
		"HEAD of a blob": {ask: func(n *meshNode, d, _ digest.Digest) error {
			_, err := n.StatBlob(context.Background(), fakeRef(d))
			return err
		}},
		"a manifest": {ask: func(n *meshNode, _, manifest digest.Digest) error {
			_, err := n.Manifest(context.Background(), fakeRef(manifest), nil, false)
			return err
		}},
		"a tag": {ask: func(n *meshNode, _, _ digest.Digest) error {
			_, err := n.Manifest(context.Background(), aTag, nil, false)
			return err
		}},
		"a blob that another holds": {
			before: func(m *meshRig) {
				n := m.nodes[1]
				n.sees(func(string) []int { return []int{1} }, []int{0})
				if _, err := n.Manifest(context.Background(), aTag, nil, false); err != nil { // so that the registry vouches for the blob
					m.t.Error(err)
				}
			},
			ask: func(n *meshNode, d, _ digest.Digest) error {
				_, _, err := n.pull(fakeRef(d), blob, 0, -1)
				return err
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testkit.Bubble(t, func(t *testing.T, dir string) {
				up := newTagged(blob)
				m := fakeMesh(t, dir, 2, up, grants.Site{Private: true, StaleIfError: time.Hour})
				defer m.end()
				d, manifest := digest.FromBytes(blob), up.digest()
				one, two := m.nodes[0], m.nodes[1]
				if _, err := one.Manifest(t.Context(), aTag, nil, false); err != nil {
					t.Fatal(err)
				}
				if _, _, err := one.pull(fakeRef(d), blob, 0, -1); err != nil {
					t.Fatal(err)
				}
				if c.before != nil {
					c.before(m)
				}
				up.down = true
				<-time.After(50 * time.Minute)
				if err := c.ask(two, d, manifest); err != nil {
					t.Errorf("while the grant counts: %v", err)
				}
				<-time.After(11 * time.Minute)
				for i, n := range m.nodes {
					if err := c.ask(n, d, manifest); err == nil {
						t.Errorf("node %d serves the content after stale_if_error", i)
					}
				}
			})
		})
	}
}
