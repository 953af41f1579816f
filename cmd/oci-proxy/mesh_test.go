package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

func TestDemoPullsThroughAMesh(t *testing.T) {
	t.Parallel()
	got := call(t.Context(), "demo", "-once")
	if got.status != exitDone {
		t.Fatalf("%+v", got)
	}
	wantIn(t, got.out, "node-1", "node-2", "node-3", "layer 3", "; hit", "fwd=uri-miss", "each blob only once")
	if n := strings.Count(got.out, "\nnode-"); n != 15 {
		t.Errorf("%d lines, want 15: a manifest, a config and three layers for each node\n%s", n, got.out)
	}
}

func TestDemoServesUntilItIsStopped(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("slow: TestDemoPullsThroughAMesh runs the demo too")
	}
	ctx, stop := context.WithCancel(t.Context())
	told, out := io.Pipe()
	errs, done := new(testkit.Log), make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"demo"}, streams{out: out, err: errs})
		_ = out.Close() // never fails for a pipe
	}()
	defer stop()
	addr := ""
	for lines := bufio.NewScanner(told); lines.Scan() && !strings.Contains(lines.Text(), "Pages:"); {
		if found := regexp.MustCompile(`docker pull (127.0.0.1:\d+)/`).FindStringSubmatch(lines.Text()); found != nil {
			addr = found[1]
		}
	}
	_ = told.Close() // never fails; the test reads no more of the output
	if addr == "" {  // the demo has ended by itself
		t.Fatalf("status %d\n%s", <-done, errs.String())
	}
	if got := call(t.Context(), "status", "-addr", addr); got.status != exitDone || strings.Count(got.out, "active") != demoNodes {
		t.Errorf("%+v", got)
	}
	page, err := get(t.Context(), "http://"+addr+"/")
	if err != nil || !bytes.Contains(page, []byte("<html")) {
		t.Errorf("%v: %s", err, page)
	}
	stop()
	if status := <-done; status != exitDone {
		t.Errorf("status %d", status)
	}
}

// memberConfig writes the config of a member of a cluster, and returns its path and
// the member's addresses.
func memberConfig(t *testing.T, up *upstreamtest.Registry, name, seed, more string) (file, addr, gossip string) {
	t.Helper()
	gossip = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	file, addr = nodeConfig(t, up, t.TempDir(), fmt.Sprintf(
		"cluster: {name: %s, bind_addr: %q, peer_addr: \"127.0.0.1:0\", seeds: [%q]%s}", name, gossip, seed, more))
	return file, addr, gossip
}

func TestLeaveHandsOverAndEnds(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	d := up.PutBlob(repo, random(1, 300_000))
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("a secret of the cluster\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key := fmt.Sprintf(", secret_file: %q", secret)
	first, addr1, gossip := memberConfig(t, up, "one", "127.0.0.1:1", key)
	second, addr2, _ := memberConfig(t, up, "two", gossip, key)
	a := start(t, addr1, "serve", "-c", first)
	b := start(t, addr2, "serve", "-c", second)
	testkit.Await(t, "both members are active", func() bool { return strings.Count(call(t.Context(), "status", "-c", second).out, "active") == 2 })
	if _, _, err := pull(t.Context(), newClient(), blobURL(addr1, d)); err != nil {
		t.Fatal(err)
	}

	// A new secret is loaded without a restart.
	if err := os.WriteFile(secret, []byte("another secret of it\na secret of the cluster\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*process{a, b} {
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		testkit.Await(t, "the secrets are reloaded", func() bool { return p.log.Has("config reloaded") && p.log.Has("took_effect=cluster.secrets") })
	}

	// Whichever of the two owns the blob, the other one has it afterwards.
	got := call(t.Context(), "leave", "-addr", addr1)
	if got.status != exitDone {
		t.Fatalf("%+v\n%s\n%s", got, a.log.String(), b.log.String())
	}
	wantIn(t, got.out, "is leaving")
	if handed, held := strings.Contains(got.out, "handed over 1 blobs"), strings.Contains(got.out, "others hold 1 already"); handed == held {
		t.Errorf("%s: want one blob that is handed over, or that the other one holds already", got.out)
	}
	<-a.done
	if status := a.cmd.ProcessState.ExitCode(); status != exitDone {
		t.Errorf("status %d\n%s", status, a.log.String())
	}
	up.Down()
	_, status, err := pull(t.Context(), newClient(), blobURL(addr2, d))
	if err != nil || status != "two; hit" {
		t.Errorf("%q, %v", status, err)
	}
	if n := up.Count("GET", "/"+d.String()); n != 1 {
		t.Errorf("the registry was asked %d times, want once", n)
	}
	testkit.Await(t, "one member is active", func() bool { return strings.Count(call(t.Context(), "status", "-c", second).out, "active") == 1 })
}

func TestBadConfigOnHangupChangesNothing(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	file, addr, _ := memberConfig(t, up, "one", "127.0.0.1:1", "")
	p := start(t, addr, "serve", "-c", file)
	if err := os.WriteFile(file, []byte("nonsense: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	testkit.Await(t, "the config is not reloaded", func() bool { return p.log.Has("config not reloaded") })
	if _, err := get(t.Context(), "http://"+addr+"/_/ready"); err != nil {
		t.Error(err)
	}
}
