package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// reload makes a node read its config again, as SIGHUP does, and prints the keys whose changes
// took effect, and those that need a restart.
func reload(ctx context.Context, args []string, s streams) error {
	t, err := parseTarget("reload", args, s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	body, err := t.send(ctx, http.MethodPost, "/_/reload", struct{}{})
	if err != nil {
		return fmt.Errorf("asking %s to read its config again: %w", t.addr, err)
	}
	var done struct {
		TookEffect   []string `json:"took_effect"`
		NeedsRestart []string `json:"needs_restart"`
	}
	if err := json.Unmarshal(body, &done); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", t.addr, err)
	}
	for _, key := range done.TookEffect {
		fmt.Fprintf(s.out, "%s took effect\n", key)
	}
	for _, key := range done.NeedsRestart {
		fmt.Fprintf(s.out, "%s needs a restart\n", key)
	}
	if len(done.TookEffect)+len(done.NeedsRestart) == 0 {
		fmt.Fprintln(s.out, "nothing has changed")
	}
	return nil
}
