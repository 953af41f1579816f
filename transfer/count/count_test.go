package count_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"oci-proxy/transfer/count"
	"oci-proxy/transfer/oci"
)

func TestRequestsAndBytesAreCountedByOrigin(t *testing.T) {
	t.Parallel()
	var c count.Counters
	for from, n := range map[oci.Origin]int64{oci.Hit: 1, oci.PeerHit: 2, oci.Miss: 3} {
		for range n {
			c.Request(from)
			c.Sent(from).Add(10)
		}
	}
	for name, got := range map[string][2]int64{
		"hits":      {c.Hits.Load(), 1},
		"peer hits": {c.PeerHits.Load(), 2},
		"misses":    {c.Misses.Load(), 3},
		"hit bytes": {c.HitBytes.Load(), 10}, "peer hit bytes": {c.PeerHitBytes.Load(), 20}, "miss bytes": {c.MissBytes.Load(), 30},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: %d, want %d", name, got[0], got[1])
		}
	}
}

func TestBookIsBounded(t *testing.T) {
	t.Parallel()
	var b count.Book
	first := b.Of("first.example.com")
	for i := range 1000 {
		b.Of(fmt.Sprint(i)).Hits.Add(1)
	}
	all := b.All()
	if len(all) != 513 || all["first.example.com"] != first || b.Of("first.example.com") != first {
		t.Errorf("%d registries are counted apart", len(all))
	}
	var sum int64
	for _, c := range all {
		sum += c.Hits.Load()
	}
	if sum != 1000 || all[""].Hits.Load() != 1000-511 {
		t.Errorf("%d hits in all, %d of them counted together", sum, all[""].Hits.Load())
	}
}

func TestReaderCountsWhatIsRead(t *testing.T) {
	t.Parallel()
	var c count.Counters
	got, err := io.ReadAll(count.Reader(strings.NewReader("hello"), &c.FromPeersBytes))
	if err != nil || string(got) != "hello" || c.FromPeersBytes.Load() != 5 {
		t.Errorf("%q, %v; %d bytes counted", got, err, c.FromPeersBytes.Load())
	}
}

// What a writer lets through is counted while it flows, by Write and by ReadFrom.
func TestWriterCountsEachPiece(t *testing.T) {
	t.Parallel()
	for name, to := range map[string]io.Writer{"a writer": struct{ io.Writer }{new(bytes.Buffer)}, "one that reads": new(bytes.Buffer)} {
		var c count.Counters
		w := count.Writer(to, c.Sent(oci.Hit))
		if _, err := io.WriteString(w, "hel"); err != nil || c.HitBytes.Load() != 3 {
			t.Errorf("%s: %d bytes after the first piece, %v", name, c.HitBytes.Load(), err)
		}
		k, err := io.Copy(w, io.LimitReader(strings.NewReader("lo there"), 2))
		if err != nil || k != 2 || c.HitBytes.Load() != 5 {
			t.Errorf("%s: %d bytes copied, %d counted, %v", name, k, c.HitBytes.Load(), err)
		}
	}
}
