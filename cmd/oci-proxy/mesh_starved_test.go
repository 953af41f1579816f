package main

import (
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// starve lets a process run for 20 ms of each 400 ms until the test ends.
func (f *fleet) starve(i int) {
	process := f.nodes[i].cmd.Process
	end := make(chan struct{})
	var gone sync.WaitGroup
	gone.Go(func() {
		for phase := 0; ; phase++ {
			what, how := syscall.SIGSTOP, 380*time.Millisecond
			if phase%2 == 1 {
				what, how = syscall.SIGCONT, 20*time.Millisecond
			}
			_ = process.Signal(what) // it may be gone
			select {
			case <-time.After(how):
			case <-end:
				_ = process.Signal(syscall.SIGCONT) // as above
				return
			}
		}
	})
	f.t.Cleanup(func() {
		close(end)
		gone.Wait()
	})
}

// TestMeshFigureStarvedNodes measures what the registry sends while two of five nodes get 20 ms
// of each 400 ms of a processor.
func TestMeshFigureStarvedNodes(t *testing.T) {
	if os.Getenv("MESH_TEST_FIGURES") == "" || runtime.GOOS != "linux" {
		t.Skip("this only measures; set MESH_TEST_FIGURES to run it")
	}
	f := newFleet(t, 5)
	f.starve(0)
	f.starve(1)
	const blobs, width = 120, 4
	var unique int64
	work := make(chan digest.Digest, blobs)
	for k := range uint64(blobs) {
		size := int64(100_000)
		if k%10 == 0 {
			size = 8 << 20
		}
		unique += size
		work <- f.up.PutRandomBlob(repo, 1000+k, size)
	}
	close(work)
	began := time.Now()
	var all sync.WaitGroup
	for range width {
		all.Go(func() {
			for d := range work {
				var one sync.WaitGroup
				for i := range f.nodes {
					one.Go(func() {
						if err := f.try(i, d); err != nil {
							t.Errorf("a pull through %s failed: %v", f.nodes[i].name, err)
						}
					})
				}
				one.Wait()
			}
		})
	}
	all.Wait()
	t.Logf("%d blobs through 5 nodes in %v: the registry sent %.4f × their bytes", blobs, time.Since(began).Round(time.Second), float64(f.up.BytesSent())/float64(unique))
	if os.Getenv("MESH_TEST_FIGURES") == "logs" {
		for _, m := range f.nodes {
			t.Logf("%s:\n%s", m.name, m.log.String())
		}
	}
}
