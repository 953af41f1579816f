package lanes

import (
	"testing"
	"testing/synctest"
	"time"
)

// Connections that stand still hold a download up for seconds, not until they are given up.
func TestStallsAreTakenOver(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		stallAt func(int) int64
		moved   int
	}{
		{"the first", nth[int64](100<<10, 1), 1},
		{"two of four", nth[int64](1, 2, 4), 2},
		{"three of four", nth[int64](100<<10, 1, 2, 3), 3},
		{"one in three", func(n int) int64 { return int64(n%3/2) * 200 << 10 }, 1},
		{"at the end", nth[int64](1<<10, 20), 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLink(32 << 20)
				l.delay, l.rate, l.stallAt = 20*time.Millisecond, every(1e7), c.stallAt
				lasted := took(t, l, 4)
				t.Logf("took %v with %d requests", lasted, l.requests.Load())
				if l.sent.Load() != 32<<20 {
					t.Errorf("%d bytes were sent", l.sent.Load())
				}
				if lasted > 40*time.Second {
					t.Errorf("it took %v", lasted)
				}
			})
		})
	}
}

// A connection that crawls is left, a registry that is slow to all is not.
func TestCrawlingIsTakenOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLink(32 << 20)
		l.delay = 20 * time.Millisecond
		l.rate = func(n int) float64 {
			if n == 3 {
				return 2e4
			}
			return 1e7
		}
		if lasted := took(t, l, 4); lasted > 5*time.Second {
			t.Errorf("it took %v", lasted)
		}
		slow := newLink(4 << 20)
		slow.rate = every(5e4)
		lanes := over(t, slow, 4)
		all(t, lanes, slow, 0)
		if n := slow.requests.Load(); n > 20 {
			t.Errorf("%d requests to a slow registry", n)
		}
	})
}

// While nothing at all comes, no connection is given up.
func TestPauseOfTheNetworkCostsNoConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLink(32 << 20)
		l.delay, l.rate = 20*time.Millisecond, every(1e7)
		without := took(t, l, 4)
		l.pause, l.pauseFor = time.Now().Add(without/2), 15*time.Second
		if lasted := took(t, l, 4); lasted > without+l.pauseFor+time.Second {
			t.Errorf("it took %v, without a pause %v", lasted, without)
		}
		if n := l.left.Load(); n != 0 {
			t.Errorf("%d connections were given up", n)
		}
	})
}

func TestBrokenLegsGoOnFromTheByteReached(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLink(16 << 20)
		l.delay, l.rate = time.Millisecond, every(1e7)
		l.cutAt = func(n int) int64 { return int64(n%2) * 300 << 10 }
		all(t, over(t, l, 4), l, 0)
		if l.sent.Load() != 16<<20 {
			t.Errorf("%d bytes were sent", l.sent.Load())
		}
	})
}
