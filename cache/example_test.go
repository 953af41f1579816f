package cache_test

import (
	"context"
	"fmt"
	"os"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
)

// A blob comes in, is read while it arrives, and is a hit from then on.
func Example() {
	dir, err := os.MkdirTemp("", "shard")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx := context.Background()
	shard := cache.Open(dir, cache.Options{Bound: 10 << 30})
	defer func() { _ = shard.Close() }()

	d := digest.FromString("layer\n")
	in, err := shard.Ingest(ctx, d, "registry-1.docker.io", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	go func() {
		in.SetSize(6)
		if _, err := in.Write([]byte("layer\n")); err != nil {
			in.Abort(err)
			return
		}
		_ = in.Commit()
	}()

	blob, err := in.Follow(ctx) // any number of readers may follow
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = blob.Send(ctx, os.Stdout, 0, -1)
	fmt.Println(err, blob.Size(), blob.Close())
	// Output:
	// layer
	// <nil> 6 <nil>
}
