package main

import (
	"context"
	"flag"
	"fmt"

	"oci-proxy/node/config"
)

// purge makes the cluster forget images.
func purge(ctx context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("purge", flag.ContinueOnError)
	file, addr := nodeFlags(fl)
	dry := fl.Bool("n", false, "change nothing, and only tell what would be forgotten, and how much")
	patterns, err := parseMixed(fl, args, s)
	if err != nil {
		return err
	}
	if len(patterns) == 0 {
		return badUsage(s, "usage: oci-proxy purge [flags] PATTERN…, for example purge -n 'ghcr.io/org/**' or purge docker.io/library/alpine:3.20")
	}
	t, err := targetOf(*file, *addr, s)
	if err != nil {
		return err
	}
	is, are := "is", "are"
	if *dry {
		is, are = "would be", "would be"
	}
	what := map[string]any{"patterns": patterns, "dry_run": *dry}
	far, during := newProgress("blobs", s, isTerminal(s.err))
	end, err := t.order(ctx, "forget images", "/_/purge", what, nil, func(l orderLine) { printPurged(l, is, far, during) })
	far.end()
	if err != nil {
		return err
	}
	printMissing(end.Missing, s)
	fmt.Fprintf(s.out, "%d images %s forgotten: %d tags, %d blobs on all nodes, %s\n", end.Images, are, end.Tags, end.Blobs, config.FormatSize(end.Bytes))
	if end.Failed > 0 || len(end.Missing) > 0 {
		return fmt.Errorf("not everything %s forgotten: %d reasons stand above", is, max(end.Failed, len(end.Missing)))
	}
	return nil
}

// printPurged prints what became of an image, a pattern, or a node's part of the work.
func printPurged(l orderLine, is string, far *progress, s streams) {
	switch {
	case l.Image != "" && l.Error != "":
		fmt.Fprintf(s.err, "%s stays: %s\n", l.Image, l.Error)
	case l.Image != "":
		fmt.Fprintf(s.out, "%s %s forgotten: %s\n", l.Image, is, config.FormatSize(l.Bytes))
	case l.Pattern != "":
		fmt.Fprintln(s.err, noMatch(l.Pattern))
	case l.Error != "":
		fmt.Fprintf(s.err, "%s failed: %s\n", l.Node, l.Error)
	default:
		far.at(l.Node, part{l.Blobs, l.Of}, fmt.Sprintf("%s: %d of %d blobs are removed", l.Node, l.Blobs, l.Of))
	}
}
