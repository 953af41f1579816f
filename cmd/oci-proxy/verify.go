package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"time"

	"oci-proxy/node/config"
)

// verify makes the cluster hash all that it holds, and prints what was wrong.
func verify(ctx context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("verify", flag.ContinueOnError)
	file, addr := nodeFlags(fl)
	asJSON := jsonFlag(fl, "`json` for the node's own lines of JSON")
	if err := parse(fl, args, s); err != nil {
		return err
	}
	t, err := targetOf(*file, *addr, s)
	if err != nil {
		return err
	}
	var raw io.Writer
	if *asJSON {
		raw = s.out
	}
	began := time.Now()
	far, during := newProgress("blobs", s, isTerminal(s.err))
	end, err := t.order(ctx, "verify what is cached", "/_/verify", struct{}{}, raw, func(l orderLine) { printVerified(l, far, during) })
	far.end()
	if err != nil {
		return err
	}
	if raw == nil {
		printMissing(end.Missing, s)
		fmt.Fprintf(s.out, "%d blobs are verified: %s, %s\n", end.Blobs, config.FormatSize(end.Bytes), time.Since(began).Round(time.Second))
	}
	switch {
	case end.Bad > 0:
		return fmt.Errorf("%d blobs were wrong, and are removed", end.Bad)
	case end.Failed > 0:
		return fmt.Errorf("%d members did not verify what they hold", end.Failed)
	}
	return nil
}

// printVerified prints a blob that was wrong, or how far a node is.
func printVerified(l orderLine, far *progress, s streams) {
	switch {
	case l.Digest != "":
		fmt.Fprintf(s.out, "%s of %s at %s is wrong, and is removed: %s\n", l.Digest, l.Registry, l.Node, l.Error)
	case l.Error != "":
		fmt.Fprintf(s.err, "%s failed: %s\n", l.Node, l.Error)
	default:
		far.at(l.Node, part{l.Blobs, l.Of}, fmt.Sprintf("%s: %d of %d blobs are verified", l.Node, l.Blobs, l.Of))
	}
}
