package node

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// running is a proxy that Run serves. stop ends the context of Run, and ended delivers
// what Run returned.
func running(t *testing.T, up *upstreamtest.Registry, s settings) (p *proxy, stop func(), ended <-chan error) {
	t.Helper()
	n, log := newNode(t, up, s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	over := make(chan struct{})
	go func() {
		defer close(over)
		done <- n.Run(ctx, l)
	}()
	p = &proxy{t: t, node: n, up: up, log: log, url: "http://" + l.Addr().String(), client: newClient(t), sent: new(atomic.Int64)}
	t.Cleanup(func() {
		cancel()
		p.client.CloseIdleConnections()
		<-over
	})
	return p, cancel, done
}

// awaitRun returns what Run returned.
func awaitRun(t *testing.T, ended <-chan error) error {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case err := <-ended:
		return err
	case <-timeout.C:
		t.Fatal("Run did not end")
		return nil
	}
}

func TestDrainLetsAPullGoOnFromRequestToRequest(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	up := upstreamtest.New(t)
	content := random(1, 1<<20)
	d, later := up.PutBlob(repo, content), up.PutBlob(repo, random(2, 1000))
	release := halve(up, d.String(), 1<<20)
	p, stop, ended := running(t, up, settings{})
	testkit.Await(t, "the node is ready", func() bool { return p.get("/_/ready").StatusCode == http.StatusOK })
	slow := p.send(http.MethodGet, blobPath(d))
	stop()
	fresh := *p // docker opens a connection for each request
	fresh.client = newClient(t)
	for fresh.get("/_/ready").StatusCode != http.StatusServiceUnavailable {
	}
	fresh.get(blobPath(later)).want(t, 200)
	release()
	if a := read(slow); !bytes.Equal(a.body, content) {
		t.Errorf("%d bytes, %v: the pull was cut", len(a.body), a.err)
	}
	p.client.CloseIdleConnections()
	fresh.client.CloseIdleConnections()
	if err := awaitRun(t, ended); err != nil {
		t.Errorf("Run: %v", err)
	}
	if resp, err := p.try(http.MethodGet, "/v2/"); err == nil {
		_ = resp.Body.Close()
		t.Error("the node still answers after Run has ended")
	}
}

func TestDrainIsBounded(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	up := upstreamtest.New(t)
	content := random(1, 1<<20)
	d := up.PutBlob(repo, content)
	defer halve(up, d.String(), 1<<20)()
	p, stop, ended := running(t, up, settings{top: "shutdown_timeout: 300ms"})
	slow := p.send(http.MethodGet, blobPath(d))
	start := time.Now()
	stop()
	if err := awaitRun(t, ended); err != nil {
		t.Errorf("Run: %v", err)
	}
	if took := time.Since(start); took < 300*time.Millisecond || took > 30*time.Second { // by default it is a minute
		t.Errorf("it took %s", took)
	}
	if a := read(slow); a.err == nil {
		t.Error("the pull was not cut")
	}
	if !strings.Contains(p.log.String(), "pulls cut") {
		t.Errorf("log:\n%s", p.log.String())
	}
}

func TestRunEndsWhenItsListenerDoes(t *testing.T) {
	t.Parallel()
	n, _ := newNode(t, upstreamtest.New(t), settings{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.Run(t.Context(), l); err == nil || !strings.Contains(err.Error(), "serving") {
		t.Errorf("Run: %v", err)
	}
}

func TestWhatWasStoredIsAHitAfterARestart(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	up := upstreamtest.New(t)
	dir := t.TempDir()
	img := up.PutImage(repo, "v1", random(1, 300<<10))
	for _, want := range []string{"oci-proxy; fwd=uri-miss; stored", "oci-proxy; hit"} {
		p, stop, ended := running(t, up, settings{dir: dir, registry: "tag_ttl: 1h"})
		for _, path := range []string{"/v2/" + repo + "/manifests/v1", blobPath(img.Config), blobPath(img.Layers[0])} {
			p.get(path).want(t, 200, "Cache-Status", want)
		}
		p.client.CloseIdleConnections()
		stop()
		if err := awaitRun(t, ended); err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func TestQuietWaitsForAPauseBetweenRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p pulls
		start := time.Now()
		p.quiet(t.Context())
		if took := time.Since(start); took != 0 {
			t.Errorf("no client ever pulled, but the drain took %s", took)
		}
		one, other := new(answering), new(answering)
		p.begin(one)
		p.begin(other)
		go func() {
			time.Sleep(10 * time.Second) // in the bubble
			p.end(one)
			p.end(other)
			time.Sleep(900 * time.Millisecond) // in the bubble
			p.begin(one)
			time.Sleep(5 * time.Second) // in the bubble
			p.end(one)
		}()
		p.quiet(t.Context())
		if took, want := time.Since(start), 16900*time.Millisecond; took != want {
			t.Errorf("quiet after %s, want %s", took, want)
		}
		p.begin(one)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		p.quiet(ctx)
		if took, want := time.Since(start), 76900*time.Millisecond; took != want {
			t.Errorf("given up after %s, want %s", took, want)
		}
	})
}
