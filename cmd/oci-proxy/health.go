package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// healthTimeout is how long a node may take to answer.
const healthTimeout = 5 * time.Second

// health asks a node for its health. It needs no shell, no curl and no login, so a
// container without them can check itself. It accepts any certificate, since it
// sends nothing secret and asks only whether the node is alive.
func health(ctx context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("health", flag.ContinueOnError)
	file, addr := nodeFlags(fl)
	if err := parse(fl, args, s); err != nil {
		return err
	}
	overTLS := false
	if *addr == "" {
		cfg, err := ownNode(*file, s)
		if err != nil {
			return err
		}
		*addr = ownAddr(cfg)
		overTLS = cfg.TLS.On()
	}
	base := baseURL(*addr, overTLS)
	body, err := get(ctx, base+"/_/health")
	// Without its config we don't know whether the node speaks TLS. One that does
	// answers 400 to plain HTTP.
	if plain, ok := strings.CutPrefix(base, "http://"); ok && errors.Is(err, errBadRequest) {
		body, err = get(ctx, "https://"+plain+"/_/health")
	}
	if err != nil {
		return fmt.Errorf("asking %s for its health: %w", *addr, err)
	}
	fmt.Fprintln(s.out, string(body))
	return nil
}

// errBadRequest means that the node answered with status 400.
var errBadRequest = errors.New("it answered 400 Bad Request")

// get returns the body of a short answer with status 200.
func get(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	// A proxy from the environment is for upstream, not for a nearby node.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if resp.StatusCode == http.StatusBadRequest {
		return nil, errBadRequest
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %s", resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, 64<<10))
}
