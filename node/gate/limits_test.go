package gate

import (
	"context"
	"math"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/wait"
)

func TestLimitsOfOpenFiles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		open                  int
		memory                int64
		files, pulls, waiting int
	}{
		{64, math.MaxInt64, 32, 4, 8},
		{1024, math.MaxInt64, 896, 112, 224},
		{20000, 8 << 30, 18000, 2048, 4500},
		{1 << 20, math.MaxInt64, 32768, 2048, 8192},
		{1 << 20, 1 << 30, 13107, 1638, 3276},
		{20000, 230 << 20, 2944, 368, 736},
		{20000, 1 << 20, 128, 16, 32},
	} {
		l := limitsOf(c.open, c.memory)
		if want := (Limits{c.files, c.pulls, c.waiting}); l != want {
			t.Errorf("of %d: %+v, want %+v", c.open, l, want)
		}
		if most := l.Pulls*(1+filesPerPull) + l.Waiting; most > l.Files {
			t.Errorf("of %d: pulls that run and wait use %d of %d", c.open, most, l.Files)
		}
	}
	if n := openFiles(); n < 64 {
		t.Errorf("%d open files", n)
	}
}

// Descriptors are reserved before a pull begins, and every one is given back.
func TestDescriptorsAreReservedForPulls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conns := newConnections(Limits{Files: 100})
		turns := wait.NewTurns[Client](wait.Bounds{Running: 5, Waiting: 20}, time.Hour, conns.reserve)
		done := make(chan struct{})
		for i := range 12 {
			go func() {
				end, err := turns.Begin(context.WithoutCancel(t.Context()), Client{from: Network(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))})
				if err != nil {
					t.Error(err)
					return
				}
				<-done
				end()
			}()
		}
		synctest.Wait()
		if n := conns.pulls.Load(); n != 5 {
			t.Errorf("descriptors for %d pulls, want 5", n)
		}
		close(done)
		synctest.Wait()
		if n := conns.pulls.Load(); n != 0 {
			t.Errorf("descriptors for %d pulls, want 0", n)
		}
	})
}
