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

// A telling upstream gives every HEAD the same answer.
type telling struct {
	oci.Upstream
	said oci.Descriptor
}

func (u telling) Stat(context.Context, oci.Ref, bool, []string) (oci.Descriptor, error) {
	return u.said, nil
}

// An answer to HEAD vouches for content in the shard only if it can be about that
// content.
func TestAHeadThatTellsOfOtherContentVouchesForNothing(t *testing.T) {
	t.Parallel()
	content := []byte("private content")
	d, size := digest.FromBytes(content), int64(len(content))
	for name, tt := range map[string]struct {
		said   oci.Descriptor
		opened bool
	}{
		"its size and digest": {oci.Descriptor{Size: size, Digest: d, By: oci.Registry}, true},
		"no size":             {oci.Descriptor{Size: -1, By: oci.Registry}, true},
		"a size of 0":         {oci.Descriptor{Size: 0, By: oci.Registry}, true},
		"another size":        {oci.Descriptor{Size: size + 1, By: oci.Registry}, false},
		"another digest":      {oci.Descriptor{Size: size, Digest: digest.FromString("other"), By: oci.Registry}, false},
		"a middlebox":         {oci.Descriptor{Size: size, Digest: d, By: oci.Middlebox}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log, life := slog.New(slog.DiscardHandler), wait.NewLife()
			defer life.Close(t.Context())
			shard := grants.OpenShard(t.TempDir(), cache.Options{})
			defer func() { _ = shard.Close() }() // the test is over
			g := grants.New(grants.Config{Upstream: telling{said: tt.said}, Mesh: mesh.New(mesh.Config{Log: log}), Life: life, Within: time.Minute, Log: log})
			defer g.Close()
			ref := oci.Ref{Registry: "private.example", Repository: "team/app", Digest: d}
			if _, err := shard.Put(t.Context(), d, ref.Registry, "", content); err != nil {
				t.Fatal(err)
			}
			pass, err := g.Allowed(t.Context(), grants.Request{Ref: ref, Site: grants.Site{Private: true, Shard: shard}}, oci.BlobResource)
			if err != nil || (pass != nil) != tt.opened {
				t.Errorf("opened: %v, want %v; %v", pass != nil, tt.opened, err)
			}
		})
	}
}
