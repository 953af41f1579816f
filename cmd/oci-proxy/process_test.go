package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

const repo = "team/app"

func blobURL(addr string, d digest.Digest) string {
	return "http://" + addr + "/v2/" + repo + "/blobs/" + d.String()
}

func TestTermDrainsAndExitsWithZero(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	content := random(1, 1<<20)
	d := up.PutBlob(repo, content)
	release := make(chan struct{})
	up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: http.MethodGet, PathPart: d.String()}, Wrap: func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		_, _ = w.Write(content[:len(content)/2])
		_ = http.NewResponseController(w).Flush()
		select {
		case <-release:
			_, _ = w.Write(content[len(content)/2:])
		case <-r.Context().Done():
		}
		return true
	}})
	file, addr := nodeConfig(t, up, t.TempDir(), "")
	p := start(t, addr, "serve", "-c", file)
	type pulled struct {
		body []byte
		err  error
	}
	got := make(chan pulled, 1)
	go func() {
		body, _, err := pull(t.Context(), newClient(), blobURL(addr, d))
		got <- pulled{body, err}
	}()
	up.WaitFor(upstreamtest.Match{Method: http.MethodGet, PathPart: d.String()}, 1)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for { // until the node drains
		if _, err := get(t.Context(), "http://"+addr+"/_/ready"); err != nil {
			break
		}
	}
	close(release)
	if g := <-got; g.err != nil || !bytes.Equal(g.body, content) {
		t.Errorf("the pull was cut after %d bytes: %v", len(g.body), g.err)
	}
	<-p.done
	if status := p.cmd.ProcessState.ExitCode(); status != exitDone {
		t.Errorf("status %d\n%s", status, p.log.String())
	}
}

func TestFurtherSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	d := up.PutBlob(repo, random(1, 1<<20))
	up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: d.String()}, Stall: true, StallAfter: 1000})
	file, addr := nodeConfig(t, up, t.TempDir(), "")
	p := start(t, addr, "serve", "-c", file)
	got := make(chan error, 1)
	go func() {
		_, _, err := pull(t.Context(), newClient(), blobURL(addr, d))
		got <- err
	}()
	up.WaitFor(upstreamtest.Match{PathPart: d.String()}, 1)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := get(t.Context(), "http://"+addr+"/_/ready"); err != nil {
			break
		}
	}
	// A signal that comes together with the first one is merged with it, so the test
	// sends signals until the process is gone.
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for over := false; !over; {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-tick.C:
		case <-p.done:
			over = true
		}
	}
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGTERM {
		t.Errorf("the process ended with %v", p.cmd.ProcessState)
	}
	if err := <-got; err == nil {
		t.Error("the pull was not cut")
	}
}

// killCycles is how often one node is killed before it gets a new directory.
const killCycles = 10

// A kill loses what was under way, and nothing else. LONG_TESTS=1 kills 2,000 times.
func TestKilledAgainAndAgain(t *testing.T) { //nolint:tparallel // the rounds run one by one
	t.Parallel()
	if testing.Short() {
		t.Skip("slow: it kills a process again and again")
	}
	done := 0
	defer func() { t.Log("cycles:", done) }()
	for range testkit.Times(killCycles, 2000) / killCycles {
		t.Run("", killAgainAndAgain)
		done += killCycles
	}
}

// killAgainAndAgain kills one node again and again, for as long as its cache has room
// for all blobs that it was seen to store.
func killAgainAndAgain(t *testing.T) {
	const bound, cycles = 8 << 20, killCycles
	up := upstreamtest.New(t)
	dir := t.TempDir()
	file, addr := nodeConfig(t, up, dir, "")
	contents := map[digest.Digest][]byte{}
	var all []digest.Digest
	for i := range 2 * cycles {
		content := random(uint64(i), int64(1+i*30_000))
		d := up.PutBlob(repo, content)
		contents[d] = content
		all = append(all, d)
	}
	served := map[digest.Digest]bool{}
	for cycle := range cycles {
		p := start(t, addr, "serve", "-c", file)
		if left, err := os.ReadDir(filepath.Join(dir, "tmp")); err != nil || len(left) > 0 {
			t.Errorf("cycle %d: %d files in tmp, %v", cycle, len(left), err)
		}
		for d := range served {
			body, status, err := pull(t.Context(), newClient(), blobURL(addr, d))
			if err != nil || status != "oci-proxy; hit" || !bytes.Equal(body, contents[d]) {
				t.Errorf("cycle %d: a blob of %d bytes that was stored: got %d bytes, %q, %v", cycle, len(contents[d]), len(body), status, err)
			}
		}
		for d := range pullUntil(p, addr, all, len(served)+2) {
			served[d] = true
		}
		if n := sizeOf(t, dir); n > bound {
			t.Errorf("cycle %d: %d bytes on disk, more than the bound", cycle, n)
		}
	}
	p := start(t, addr, "serve", "-c", file)
	for i := range 10 {
		if _, _, err := pull(t.Context(), newClient(), blobURL(addr, up.PutBlob(repo, random(uint64(100+i), 1<<20)))); err != nil {
			t.Error(err)
		}
	}
	if n := sizeOf(t, dir); n > bound {
		t.Errorf("%d bytes on disk", n)
	}
	if status := p.end(syscall.SIGTERM); status != exitDone {
		t.Errorf("status %d\n%s", status, p.log.String())
	}
}

// pullUntil pulls all blobs, three at a time. When n have been stored, it kills the
// process. It returns the blobs that were stored.
func pullUntil(p *process, addr string, all []digest.Digest, n int) map[digest.Digest]bool {
	var mu sync.Mutex
	whole := map[digest.Digest]bool{}
	queue := make(chan digest.Digest, len(all))
	for _, d := range all {
		queue <- d
	}
	close(queue)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			client := newClient()
			for d := range queue {
				_, status, err := pull(p.t.Context(), client, blobURL(addr, d))
				mu.Lock()
				if err == nil && (strings.Contains(status, "stored") || strings.Contains(status, "hit")) {
					whole[d] = true
				}
				if len(whole) >= n {
					_ = p.cmd.Process.Kill()
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	p.end(syscall.SIGKILL)
	return whole
}

// sizeOf returns the bytes of content on disk, including those in tmp.
func sizeOf(t *testing.T, dir string) int64 {
	t.Helper()
	var sum int64
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasSuffix(path, ".meta") {
			return err
		}
		info, err := e.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return sum
}
