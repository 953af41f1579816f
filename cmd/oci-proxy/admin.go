package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"oci-proxy/node/config"
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
		cfg, err := find(*file, s)
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

// ownAddr returns the host:port at which the node of the config on this machine is
// reached.
func ownAddr(cfg *config.Config) string {
	return net.JoinHostPort(host(cfg.Address), strconv.Itoa(cfg.Port))
}

// host returns the host at which a node on this machine that listens on address is
// reached.
func host(address string) string {
	if ip, err := netip.ParseAddr(address); address == "" || err == nil && ip.IsUnspecified() {
		return "127.0.0.1"
	}
	return address
}

// baseURL returns the beginning of a node's URLs. addr is host:port, or a URL without
// a path.
func baseURL(addr string, overTLS bool) string {
	switch {
	case strings.HasPrefix(addr, "http://"), strings.HasPrefix(addr, "https://"):
		return strings.TrimSuffix(addr, "/")
	case overTLS:
		return "https://" + addr
	default:
		return "http://" + addr
	}
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

// A built describes how the program was built.
type built struct{ version, commit, goVersion string }

// build returns what the Go toolchain recorded when it built the program.
func build() built {
	b := built{version: "dev", commit: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.goVersion = info.GoVersion
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.version = v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.commit = s.Value
		}
	}
	return b
}

// version prints the version, the commit and the Go version.
func version(_ context.Context, args []string, s streams) error {
	fl := flag.NewFlagSet("version", flag.ContinueOnError)
	if err := parse(fl, args, s); err != nil {
		return err
	}
	b := build()
	fmt.Fprintf(s.out, "oci-proxy %s commit %s %s\n", b.version, b.commit, b.goVersion)
	return nil
}
