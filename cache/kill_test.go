package cache

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// victimDir names the variable that makes the test binary a process to kill.
const victimDir = "OCI_PROXY_TEST_VICTIM"

// killBound is the victims' bound; their blobs make them evict all the time.
const killBound = 12 << 20

// victimBlob is the i-th blob of the k-th cycle: tiny to several chunks.
func victimBlob(k, i int) sample {
	return newSample(uint64(1000*k+i), []int{0, 10, 60_000, 300_000, 900_000, 1_500_000}[i%6]+i)
}

// victim fills a shard from several goroutines, prints what it has committed, and
// goes on until it is killed.
func victim(dir string) {
	var k int
	_, _ = fmt.Sscan(os.Getenv(victimDir+"_CYCLE"), &k)
	s := Open(dir, Options{Bound: killBound})
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for i := w; ; i = (i + 3) % 900 {
				b := victimBlob(k, i)
				if err := pull(context.Background(), s, b); err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				fmt.Println(i)
			}
		})
	}
	wg.Wait()
}

// killed runs a victim, kills it once it has committed n blobs, and returns
// them.
func killed(t *testing.T, dir string, k, n int) (committed []int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), victimDir+"="+dir, fmt.Sprintf("%s_CYCLE=%d", victimDir, k))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var i int
		if _, err := fmt.Sscan(lines.Text(), &i); err != nil {
			t.Error(strings.TrimSpace(lines.Text()))
			break
		}
		if committed = append(committed, i); len(committed) == n {
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait() // it was killed
	return committed
}

// exists reports whether there is a file.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestShardSurvivesKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cycles := 15
	if testing.Short() {
		cycles = 3
	}
	for k := range cycles {
		committed := killed(t, dir, k, 5+11*k%40)
		bound := int64(killBound)
		if k%4 == 3 {
			bound /= 2
		}
		s := Open(dir, Options{Bound: bound})
		if bound == killBound { // nothing is evicted: it is served before the listing is done
			for _, i := range committed {
				if b := victimBlob(k, i); exists(b.path(dir)) {
					want(t, s, b)
				}
			}
		}
		if err := s.Listed(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := temporaries(t, dir); n > 0 {
			t.Errorf("cycle %d: %d leftovers", k, n)
		}
		if got := usage(t, dir); got > bound || got != s.Size() {
			t.Errorf("cycle %d: %d bytes on disk, %d counted, %d allowed", k, got, s.Size(), bound)
		}
		hits := 0
		for _, i := range committed {
			b := victimBlob(k, i)
			if _, ok := s.Stat(b.digest); ok {
				want(t, s, b)
				hits++
			}
		}
		if hits == 0 {
			t.Errorf("cycle %d: no committed blob is left", k)
		}
		keep(t, s, newSample(uint64(90_000+k), 100_000))
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
