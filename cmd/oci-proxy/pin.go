package main

import (
	"context"
	"flag"
	"fmt"

	"oci-proxy/node/config"
)

// pin keeps images from eviction.
func pin(ctx context.Context, args []string, s streams) error {
	return change(ctx, "pin", args, s, func(l orderLine) { fmt.Fprintf(s.out, "%s is pinned: %s\n", l.Image, config.FormatSize(l.Bytes)) })
}

// unpin undoes pin.
func unpin(ctx context.Context, args []string, s streams) error {
	return change(ctx, "unpin", args, s, func(l orderLine) { fmt.Fprintf(s.out, "%s is not pinned any more\n", l.Image) })
}

// change makes the cluster do something with each image that args name, and prints what
// became of it.
func change(ctx context.Context, name string, args []string, s streams, done func(l orderLine)) error {
	fl := flag.NewFlagSet(name, flag.ContinueOnError)
	file, addr := nodeFlags(fl)
	images, err := parseMixed(fl, args, s)
	if err != nil {
		return err
	}
	if len(images) == 0 {
		return badUsage(s, "usage: oci-proxy %s [flags] IMAGE…, for example %[1]s docker.io/library/alpine:3.20", name)
	}
	t, err := targetOf(*file, *addr, s)
	if err != nil {
		return err
	}
	end, err := t.order(ctx, name+" images", "/_/"+name, map[string]any{"images": images}, nil, func(l orderLine) {
		if l.Error != "" {
			fmt.Fprintf(s.err, "%s failed: %s\n", l.Image, l.Error)
			return
		}
		done(l)
	})
	if err != nil {
		return err
	}
	printMissing(end.Missing, s)
	if end.Failed > 0 {
		return fmt.Errorf("%d images or members failed", end.Failed)
	}
	return nil
}
