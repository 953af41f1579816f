package peer

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// failing is a registry that answers everything with the same error.
type failing struct {
	oci.Upstream
	err error
}

func (f *failing) Stat(context.Context, oci.Ref, bool, []string) (oci.Descriptor, error) {
	return oci.Descriptor{}, f.err
}

func (f *failing) Open(context.Context, oci.Ref, int64) (*oci.Stream, error) {
	return nil, f.err
}

func (f *failing) Manifest(context.Context, oci.Ref, []string) (oci.Manifest, error) {
	return oci.Manifest{}, f.err
}

func (f *failing) Tags(context.Context, oci.Ref, oci.Query, oci.Sink) (*oci.Page, error) {
	return nil, f.err
}

func (f *failing) Referrers(context.Context, oci.Ref, oci.Query, oci.Sink) (*oci.Page, error) {
	return nil, f.err
}

func TestFailuresOfTheRegistry(t *testing.T) {
	t.Parallel()
	for kind := oci.Unavailable; kind <= oci.Offline; kind++ {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			sent := &oci.Error{Kind: kind, Registry: "lie.example.com", Host: "cdn.example.com", Status: 418, Reason: "so it is\x00" + strings.Repeat("<", 2*kib), RetryAfter: 2500 * time.Millisecond}
			r := newRig(t, setup{upstream: &failing{err: sent}})
			ref := r.ref(digest.FromString("x"))
			check := func(what string, err error) {
				t.Helper()
				e := wantError(t, err, kind)
				if e.Registry != ref.Registry || e.Host != sent.Host || e.Status != 418 || e.RetryAfter != sent.RetryAfter || len(e.Reason) != maxReason || !strings.HasPrefix(e.Reason, "so it is?<") {
					t.Errorf("%s: %+v", what, e)
				}
			}
			_, err := r.b.Open(t.Context(), ref, 0, mesh.Terms{})
			check("open", err)
			_, err = r.b.Manifest(t.Context(), ref, mesh.Terms{})
			check("manifest", err)
			_, _, err = r.b.List(t.Context(), oci.Question{Ref: ref.Repo()}, false, new(bytes.Buffer))
			check("tags", err)
			_, _, err = r.b.List(t.Context(), oci.Question{Ref: ref}, false, new(bytes.Buffer))
			check("referrers", err)
			tag := oci.Ref{Registry: ref.Registry, Repository: repo, Tag: "v1"}
			_, err = r.b.Tag(t.Context(), tag, nil)
			check("tag", err)
			_, _, err = r.b.Stat(t.Context(), ref)
			check("stat", err)
			if !r.Healthy("b") {
				t.Error("the peer is blamed for the registry")
			}
		})
	}
}

// waiting is a registry that never answers.
type waiting struct{ failing }

func (*waiting) Tags(ctx context.Context, _ oci.Ref, _ oci.Query, _ oci.Sink) (*oci.Page, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (*waiting) Stat(ctx context.Context, _ oci.Ref, _ bool, _ []string) (oci.Descriptor, error) {
	<-ctx.Done()
	return oci.Descriptor{}, context.Cause(ctx)
}

func TestRegistryThatIsLateIsNotThePeersFault(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{upstream: &waiting{}})
	r.server.answers.time = 20 * time.Millisecond
	_, _, err := r.b.List(t.Context(), oci.Question{Ref: r.ref("")}, false, new(bytes.Buffer))
	wantError(t, err, oci.Timeout)
	_, _, err = r.b.Stat(t.Context(), r.ref(digest.FromString("x")))
	wantError(t, err, oci.Timeout)
	if !r.Healthy("b") {
		t.Error("the peer is blamed for the registry")
	}
}

func TestFailuresOfTheNode(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	for _, c := range []struct {
		err  error
		busy bool
		part string
	}{
		{errors.New("a bug"), false, "it failed to answer"},
		{&mesh.PeerError{Peer: "c", Err: errLate}, false, "it failed to answer"},
		{&mesh.PeerError{Peer: "c", Busy: true, Err: errLate}, true, "is busy"},
		{&oci.Error{Err: &mesh.PeerError{Peer: "c", Err: errLate}}, false, "it failed to answer"},
	} {
		r.server.table["POST offers"] = route{refers: true, answer: func(*reply, *call) error { return c.err }}
		r.times.busy = 0
		err := r.b.Offer(t.Context(), oci.Ref{Registry: r.registry.Host(), Digest: digest.FromString("x")}, "")
		if e := wantPeerError(t, err, c.part); e.Busy != c.busy {
			t.Errorf("%v arrived as %v", c.err, err)
		}
	}
	r.server.table["POST offers"] = route{refers: true, answer: func(*reply, *call) error { panic("a bug") }}
	err := r.b.Offer(t.Context(), oci.Ref{Registry: r.registry.Host(), Digest: digest.FromString("x")}, "")
	wantPeerError(t, err, "")
	if _, err := r.Stats(t.Context(), "b"); err != nil {
		t.Errorf("after a bug: %v", err)
	}
}
