package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// livePassword must never be printed.
const livePassword = "canary-2f9c"

// check -live looks at everything that the config names, and says of each thing with its
// place what it saw.
func TestCheckLiveLooks(t *testing.T) {
	t.Parallel()
	open, right, refused, lacking, down := upstreamtest.New(t), upstreamtest.New(t, upstreamtest.Basic("u", livePassword)),
		upstreamtest.New(t, upstreamtest.Bearer(upstreamtest.BearerAuth{User: "u", Password: "other"})), upstreamtest.New(t, upstreamtest.Basic("u", "x7")), upstreamtest.New(t)
	down.Down()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	seed, taken := listening(t), listening(t)
	port, gossip, peers, dead := freePort(t), freePort(t), taken, freePort(t)
	login := "auth: {username: u, password: " + livePassword + "}"
	file := configFile(t, `port: %d
address: 127.0.0.1
default_registry: %q
defaults: {cache_dir: %q, cache_max_size: 8m}
registries:
  %q: {insecure: true}
  %q: {insecure: true, %s}
  %q: {insecure: true, %s}
  %q: {insecure: true}
  %q: {insecure: true, cache_dir: %q}
  quay.io: {offline: true}
cluster:
  secret: 0f3a9c17e8b24d65
  bind_addr: 127.0.0.1:%d
  peer_addr: 127.0.0.1:%d
  seeds: ["127.0.0.1:%d", "localhost:%d", "127.0.0.1:%d"]
`, port, open.Host(), filepath.Join(dir, "cache"), open.Host(), right.Host(), login, refused.Host(), login, lacking.Host(), down.Host(), filepath.Join(dir, "file"),
		gossip, peers, seed, dead, gossip)
	got := call(t.Context(), "check", "-live", "-c", file)
	if got.status != exitFailed || strings.Contains(got.out+got.err, livePassword) || !strings.Contains(got.err, "6 of 14 things that were looked at are wrong") {
		t.Errorf("%+v", got)
	}
	for _, want := range []string{
		`ok      FILE:1:7: port: 127.0.0.1:\d+ is free`,
		`ok      FILE:14:14: cluster.bind_addr: 127.0.0.1:\d+ is free`,
		`error   FILE:15:14: cluster.peer_addr: 127.0.0.1:\d+ \(tcp\) is in use by another program`,
		`ok      FILE:4:23: defaults.cache_dir: .*/cache can be used by uid \d+: 0 B held, .* free, bound 8.0 MiB`,
		`error   FILE:10:\d+: registries.` + down.Host() + `.cache_dir: .*/file is not a directory`,
		`ok      FILE:6:3: registries.` + open.Host() + `: answers within .*, no login needed`,
		`ok      FILE:7:3: registries.` + right.Host() + `: answers within .* and takes the login`,
		`error   FILE:8:3: registries.` + refused.Host() + `: the token server refused the credentials`,
		`error   FILE:9:3: registries.` + lacking.Host() + `: .*the config has none for it`,
		`error   FILE:10:3: registries.` + down.Host() + `: connection refused`,
		`ok      FILE:11:3: registries.quay.io: not asked: it is configured as offline`,
		`ok      FILE:16:11: cluster.seeds\[0\]: 127.0.0.1:\d+ answers, at 1 address`,
		`error   FILE:16:\d+: cluster.seeds\[1\]: localhost:\d+ does not answer: .*connection refused`,
		`ok      FILE:16:\d+: cluster.seeds\[2\]: 127.0.0.1:\d+ is this node itself`,
	} {
		if !regexp.MustCompile("(?m)^" + strings.ReplaceAll(want, "FILE", regexp.QuoteMeta(file))).MatchString(got.out) {
			t.Errorf("no line %s in\n%s", want, got.out)
		}
	}
	if lines := strings.Count(got.out, "\n"); lines != 1+14 {
		t.Errorf("%d lines:\n%s", lines, got.out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("it left %v, %v", left, err)
	}
}

// While the node of the config runs, its own port is no fault.
func TestCheckLiveBesideTheRunningNode(t *testing.T) {
	t.Parallel()
	file, addr := nodeConfig(t, upstreamtest.New(t), t.TempDir(), "auth: {username: u, password: "+livePassword+"}")
	p := start(t, addr, "serve", "-c", file)
	got := call(t.Context(), "check", "-live", "-c", file)
	if got.status != exitDone || strings.Contains(got.out+got.err, livePassword) {
		t.Errorf("%+v", got)
	}
	wantIn(t, got.out, addr+" is in use by the node that runs here", "can be used by uid")
	p.end(syscall.SIGTERM)
	if got := call(t.Context(), "check", "-live", "-c", file); got.status != exitDone || !strings.Contains(got.out, addr+" is free") {
		t.Errorf("%+v", got)
	}
}

// listening returns a port at which something listens that is no node.
func listening(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}
