package transfer_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"oci-proxy/cache"
	"oci-proxy/transfer"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/oci"
)

// A client's path becomes a Ref, the Ref becomes an Answer, and the Answer
// sends itself. The second client is served from the shard.
func Example() {
	const digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" // of "hello"
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	store := grants.OpenShard(dir, cache.Options{Bound: 1 << 30})
	defer store.Close()
	upstream := &fake{open: func(context.Context, oci.Ref, int64) (*oci.Stream, error) {
		return &oci.Stream{Size: 5, Host: "cdn.example.com", Body: endsWithHello()}, nil
	}}
	f := transfer.New(transfer.Config{
		Upstream: upstream, Log: slog.New(slog.DiscardHandler),
		Site: func(string) grants.Site { return grants.Site{Shard: store} },
	})
	defer f.Close(context.Background())

	names := oci.Names{
		Default: "registry-1.docker.io", Hub: "registry-1.docker.io",
		Canonical: strings.ToLower, Known: func(string) bool { return false },
	}
	req, err := oci.ParsePath("/v2/ghcr.io/org/img/blobs/"+digest, "", names)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(req.Registry, req.Repository)
	for range 2 {
		a, err := f.Blob(context.Background(), req.Ref)
		if err != nil {
			fmt.Println(err)
			return
		}
		_, err = a.Send(context.Background(), os.Stdout, 0, -1)
		fmt.Println(":", a.Origin, a.Size(), err, a.Close())
	}
	// Output:
	// ghcr.io org/img
	// hello: miss 5 <nil> <nil>
	// hello: hit 5 <nil> <nil>
}
