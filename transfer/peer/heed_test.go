package peer

import (
	"context"
	"errors"
	"testing"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// A node whose rules refuse a repository to the user whom a member asks for answers every
// question about it as if it held nothing and could ask nobody, and lives.
func TestRulesHoldForWhomAMemberAsks(t *testing.T) {
	t.Parallel()
	rule := errors.New("the rule of the test")
	r := newRig(t, setup{out: true, refuses: func(u oci.User, ref oci.Ref) error {
		if ref.Repository == repo && u != oci.Named("bob") && u != oci.Node {
			return rule
		}
		return nil
	}})
	img := r.registry.PutImage(repo, "v1", random(1, 1000))
	layer, manifest := r.ref(img.Layers[0]), r.ref(img.Manifest)
	tag := oci.Ref{Registry: layer.Registry, Repository: repo, Tag: "v1"}
	held := mesh.Terms{Held: true, Vouched: true}
	ask := map[string]func(context.Context) error{
		"a blob": func(ctx context.Context) error {
			_, _, err := pull(ctx, r.b, layer, 0, false)
			return err
		},
		"a blob that is held": func(ctx context.Context) error {
			_, _, err := pull(ctx, r.b, layer, 0, true)
			return err
		},
		"a size": func(ctx context.Context) error {
			_, _, err := r.b.Stat(ctx, layer)
			return err
		},
		"a manifest": func(ctx context.Context) error {
			_, err := r.b.Manifest(ctx, manifest, mesh.Terms{})
			return err
		},
		"a manifest that is held": func(ctx context.Context) error {
			_, err := r.b.Manifest(ctx, manifest, held)
			return err
		},
		"a tag": func(ctx context.Context) error {
			_, err := r.b.Tag(ctx, tag, nil)
			return err
		},
		"a way out": func(ctx context.Context) error {
			_, err := r.Relayer("b").Relay().Manifest(ctx, manifest, nil)
			return err
		},
	}
	for _, user := range []oci.User{oci.Named("bob"), oci.Node} { // bob first: the node holds it all then
		ctx := oci.Caller{User: user}.Into(t.Context())
		for _, name := range []string{"a blob", "a manifest", "a tag", "a size", "a way out", "a blob that is held", "a manifest that is held"} {
			if err := ask[name](ctx); err != nil {
				t.Errorf("%s for %s: %v", name, user, err)
			}
		}
		if p, err := r.b.Peek(ctx, layer); p != mesh.Held || err != nil {
			t.Errorf("a peek for %s: %v, %v", user, p, err)
		}
	}
	before := len(r.registry.Requests())
	for _, user := range []oci.User{oci.Named("eve"), oci.Anonymous, oci.Unknown} {
		ctx := oci.Caller{User: user}.Into(t.Context())
		for name, one := range ask {
			err := one(ctx)
			if name == "a blob that is held" || name == "a manifest that is held" {
				wantError(t, err, oci.NotFound)
			} else {
				wantPeerError(t, err, "access rules")
			}
		}
		if p, err := r.b.Peek(ctx, layer); p != mesh.Absent || err != nil {
			t.Errorf("a peek for %s: %v, %v", user, p, err)
		}
		if p, err := r.b.Progress(ctx, layer); p != (mesh.Progress{}) || err != nil {
			t.Errorf("progress for %s: %+v, %v", user, p, err)
		}
	}
	if n := len(r.registry.Requests()); n != before {
		t.Errorf("%d requests reached the registry for those who are refused", n-before)
	}
	if !r.Healthy("b") {
		t.Error("the node counts as sick")
	}
}

// A member cannot make a node of somebody, and what is no user is unknown.
func TestUsersBetweenNodes(t *testing.T) {
	t.Parallel()
	for in, want := range map[oci.User]oci.User{
		"": oci.Unknown, "anonymous": oci.Anonymous, "node": oci.Node, "user:bob": oci.Named("bob"), oci.Named("a b&c=ü"): oci.Named("a b&c=ü"),
		"bob": oci.Unknown, "user:": oci.Unknown, "user:a\nb": oci.Unknown, oci.Named("node"): oci.Named("node"), oci.Named(string(random(1, 400))): oci.Unknown,
	} {
		q, err := parseQuery(query{Ref: oci.Ref{Registry: "a.io", Repository: repo}, user: in}.encode())
		if err != nil || q.user != want {
			t.Errorf("%q: %q, %v, want %q", in, q.user, err, want)
		}
	}
	if _, err := parseQuery("registry=a.io&repository=x&user=node&user=anonymous"); err == nil {
		t.Error("a request for two users is understood")
	}
}
