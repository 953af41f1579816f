package count

import (
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"oci-proxy/transfer/oci"
)

func TestCountersTellOriginsApart(t *testing.T) {
	t.Parallel()
	var c Counters
	for i, from := range []oci.Origin{oci.Hit, oci.PeerHit, oci.Miss} {
		for range i + 1 {
			c.Request(from)
			c.Sent(from, 10)
		}
	}
	c.ToPeer(7)
	c.ToPeer(8)
	for name, one := range map[string]struct {
		is   *atomic.Int64
		want int64
	}{
		"hits": {&c.Hits, 1}, "peer hits": {&c.PeerHits, 2}, "misses": {&c.Misses, 3},
		"bytes of hits": {&c.HitBytes, 10}, "bytes of peer hits": {&c.PeerHitBytes, 20}, "bytes of misses": {&c.MissBytes, 30},
		"blobs to peers": {&c.ToPeers, 2}, "bytes to peers": {&c.ToPeersBytes, 15},
	} {
		if got := one.is.Load(); got != one.want {
			t.Errorf("%s: %d, want %d", name, got, one.want)
		}
	}
}

// Registries beyond the bound are counted together; those before go on as they were.
func TestBookIsBounded(t *testing.T) {
	t.Parallel()
	var b Book
	first := b.Of("0")
	for i := range maxRegistries + 100 {
		b.Of(strconv.Itoa(i)).Hits.Add(1)
	}
	all := b.All()
	if len(all) != maxRegistries+1 || all[""].Hits.Load() != 100 || all["0"] != first || first.Hits.Load() != 1 {
		t.Errorf("%d registries, %d hits of the others", len(all), all[""].Hits.Load())
	}
	if b.Of("0") != first || b.Of("another") != all[""] {
		t.Error("a registry is counted elsewhere than before")
	}
}

func TestReaderCountsWhatIsRead(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	n.Store(1)
	if _, err := io.CopyN(io.Discard, Reader(strings.NewReader("hello"), &n), 3); err != nil || n.Load() != 4 {
		t.Error(n.Load(), err)
	}
}
