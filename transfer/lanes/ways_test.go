package lanes

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/oci"
)

// by returns lanes over a link that go by other links, too.
func by(t *testing.T, own *link, connections int, ways ...*link) *Lanes {
	t.Helper()
	var others []oci.Upstream
	for _, w := range ways {
		others = append(others, w)
	}
	return over(t, own, connections).Along(func(oci.Ref) []oci.Upstream { return others })
}

// nodes returns links of so many nodes to one registry, each at that rate, one connection
// or several together.
func nodes(n int, size int64, rate float64) []*link {
	links := make([]*link, n)
	for i := range links {
		links[i] = newLink(size)
		links[i].delay, links[i].rate = 10*time.Millisecond, every(rate)
	}
	return links
}

// Where each node's way out gives only so much, several give more.
func TestLegsComeByOtherWays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const size = 32 << 20
		n := nodes(4, size, 1e6)
		start := time.Now()
		lanes := by(t, n[0], 4, n[1:]...)
		all(t, lanes, n[0], 0)
		together := time.Since(start)
		sent := int64(0)
		for i, l := range n {
			sent += l.sent.Load()
			if l.sent.Load() < size/8 || l.most.Load() > 1 {
				t.Errorf("%d bytes came by way of node %d, over %d connections", l.sent.Load(), i, l.most.Load())
			}
		}
		if sent != size {
			t.Errorf("%d bytes were sent", sent)
		}
		alone := took(t, n[0], 1)
		t.Logf("by one way %v, by four %v: %.2f", alone, together, alone.Seconds()/together.Seconds())
		if together*3 > alone {
			t.Errorf("by four ways %v, by one %v", together, alone)
		}
		before := n[1].requests.Load()
		all(t, lanes, n[0], 0) // as if the bytes had been wrong
		if n[1].requests.Load() != before {
			t.Error("the blob came by other ways again")
		}
	})
}

// Ways that fail, lie about the size, hang or crawl are left, and cost no pull.
func TestBadWaysAreLeft(t *testing.T) {
	t.Parallel()
	const size = 16 << 20
	for name, spoil := range map[string]func(*link){
		"refuse":     func(l *link) { l.refuse = every(errors.New("not me")) },
		"other size": func(l *link) { l.change = func(_ int, a *answer) { a.stream.Size++ } },
		"hang":       func(l *link) { l.stallAt = every[int64](1) },
		"cut":        func(l *link) { l.cutAt = every[int64](100) },
		"crawl":      func(l *link) { l.rate = every(1e4) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := nodes(3, size, 1e6)
				spoil(n[1])
				spoil(n[2])
				start := time.Now()
				all(t, by(t, n[0], 4, n[1:]...), n[0], 0)
				if lasted, alone := time.Since(start), 17*time.Second; lasted > alone {
					t.Errorf("it took %v, over one connection %v", lasted, alone)
				}
				if r := n[1].requests.Load(); r > 4 {
					t.Errorf("a bad way was tried %d times", r)
				}
			})
		})
	}
}

// Wrong bytes of another way are the digest's to find.
func TestReadersGetWhatComes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := nodes(2, 4<<20, 1e6)
		n[1].content = bytes.Repeat([]byte("x"), 4<<20)
		s, err := by(t, n[0], 2, n[1]).Open(t.Context(), n[0].ref(), 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(s.Body)
		if err != nil || len(got) != 4<<20 || bytes.Equal(got, n[0].content) {
			t.Errorf("%d bytes, right: %t, %v", len(got), bytes.Equal(got, n[0].content), err)
		}
		_ = s.Body.Close()
	})
}
