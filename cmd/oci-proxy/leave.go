package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"oci-proxy/node/config"
)

// leave asks a node to hand over what only it holds, and to leave for good. It waits
// until the node has done so, which takes as long as there is content.
func leave(ctx context.Context, args []string, s streams) error {
	t, err := parseTarget("leave", args, s)
	if err != nil {
		return err
	}
	body, err := t.ask(ctx, http.MethodPost, "/_/leave")
	if err != nil {
		return fmt.Errorf("asking %s to leave: %w", t.addr, err)
	}
	var done struct{ Blobs, Bytes, Held, Failed int64 }
	if err := json.Unmarshal(body, &done); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", t.addr, err)
	}
	fmt.Fprintf(s.out, "%s is leaving: it handed over %d blobs (%s); others hold %d already\n", t.addr, done.Blobs, config.FormatSize(done.Bytes), done.Held)
	if done.Failed > 0 {
		return fmt.Errorf("no member took %d blobs; the others must fetch them from upstream again", done.Failed)
	}
	return nil
}
