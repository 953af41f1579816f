package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// forget asks a node to make its cluster forget a member that died.
func forget(ctx context.Context, args []string, s streams) error {
	t, name, err := parseNamedTarget("forget", "NAME", args, s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	body, err := t.send(ctx, http.MethodPost, "/_/forget", map[string]string{"name": name})
	if err != nil {
		return fmt.Errorf("asking %s to forget %s: %w", t.addr, name, err)
	}
	var done struct{ Members int }
	if err := json.Unmarshal(body, &done); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", t.addr, err)
	}
	fmt.Fprintf(s.out, "%s is forgotten\n", name)
	return nil
}
