package grants_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/wait"
)

// A willing upstream vouches for everything, and counts how often it is asked.
type willing struct {
	oci.Upstream
	asked int
}

func (w *willing) Stat(context.Context, oci.Ref, bool, []string) (oci.Descriptor, error) {
	w.asked++
	return oci.Descriptor{Size: 1}, nil
}

// An offline registry is not asked whether content of another node may be shown. Its
// last word counts, however old it is.
func TestAnOfflineRegistryIsNotAskedForAGrant(t *testing.T) {
	t.Parallel()
	log, up := slog.New(slog.DiscardHandler), &willing{}
	life := wait.NewLife()
	defer life.Close(t.Context())
	g := grants.New(grants.Config{Upstream: up, Mesh: mesh.New(mesh.Config{Log: log}), Life: life, Within: time.Minute, Log: log})
	defer g.Close()
	shard := grants.OpenShard(t.TempDir(), cache.Options{})
	defer func() { _ = shard.Close() }() // the test is over
	request := func(content string) grants.Request {
		ref := oci.Ref{Registry: "private.example", Repository: "team/app", Digest: digest.FromString(content)}
		return grants.Request{Ref: ref, Site: grants.Site{Private: true, Offline: true, Shard: shard}}
	}
	known := request("known")
	g.Grant(known, oci.BlobResource, time.Now().Add(-time.Hour))
	if !g.MayShow(t.Context(), known, oci.BlobResource) {
		t.Error("content that the registry vouched for may not be shown")
	}
	if g.MayShow(t.Context(), request("unknown"), oci.BlobResource) {
		t.Error("content that the registry never vouched for may be shown")
	}
	if up.asked > 0 {
		t.Errorf("the registry was asked %d times", up.asked)
	}
}
