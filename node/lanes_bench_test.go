package node

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"oci-proxy/transfer/upstreamtest"
)

// BenchmarkLanes compares several connections for a blob with one, in the same run. It
// reports ratios: how many times as fast, and how many times as late the first byte is.
//
//	go test ./node -run - -bench Lanes -benchtime 1x
func BenchmarkLanes(b *testing.B) {
	for _, n := range []int{2, 4, 8} {
		b.Run(fmt.Sprintf("10 MB per s each, %d connections", n), func(b *testing.B) {
			compare(b, n, 1, 100<<20, func(up *upstreamtest.Registry) {
				up.Fault(upstreamtest.Fault{Match: aBlob, SlowBytesPerSecond: 10e6})
			})
		})
	}
	b.Run("30 blobs of 2 MB, 4 connections", func(b *testing.B) {
		compare(b, 4, 30, 2<<20, func(up *upstreamtest.Registry) {
			up.Fault(upstreamtest.Fault{Match: aBlob, SlowBytesPerSecond: 10e6})
		})
	})
	b.Run("1 in 3 stands still, 4 connections", func(b *testing.B) {
		compare(b, 4, 6, 20<<20, func(up *upstreamtest.Registry) {
			for range 1000 {
				up.Fault(upstreamtest.Fault{Match: aBlob, Times: 2, SlowBytesPerSecond: 10e6})
				up.Fault(upstreamtest.Fault{Match: aBlob, Times: 1, SlowBytesPerSecond: 10e6, Stall: true, StallAfter: 300 << 10})
			}
		})
	})
}

// aBlob matches requests for blobs.
var aBlob = upstreamtest.Match{Method: http.MethodGet, PathPart: "/blobs/"}

// compare downloads blobs of that size, one after the other, through a node with several
// connections for each and through one with one.
func compare(b *testing.B, connections, blobs int, size int64, faults func(*upstreamtest.Registry)) {
	var one, several, firstOfOne, firstOfSeveral time.Duration
	var sent float64
	for b.Loop() {
		for _, n := range []int{1, connections} {
			up := upstreamtest.New(b)
			faults(up)
			p := newProxy(b, up, settings{registry: fmt.Sprintf("upstream_connections: %d", n), defaults: "cache_max_size: 4g"})
			var first, all time.Duration
			for i := range blobs {
				f, a := timed(b, p, blobPath(up.PutRandomBlob(repo, uint64(i), size)), size)
				first, all = first+f, all+a
			}
			p.close()
			if n == 1 {
				one, firstOfOne = one+all, firstOfOne+first
				continue
			}
			several, firstOfSeveral = several+all, firstOfSeveral+first
			sent = float64(up.BytesSent()) / float64(int64(blobs)*size)
		}
	}
	b.ReportMetric(one.Seconds()/several.Seconds(), "times-as-fast")
	b.ReportMetric(firstOfSeveral.Seconds()/firstOfOne.Seconds(), "first-byte")
	b.ReportMetric(sent, "bytes-sent")
	b.ReportMetric(0, "ns/op")
}

// timed gets a blob, and returns how long its first byte and all of it took.
func timed(b *testing.B, p *proxy, path string, size int64) (first, all time.Duration) {
	b.Helper()
	start := time.Now()
	resp, err := p.client.Get(p.url + path)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, 1)); err != nil {
		b.Fatal(err)
	}
	first = time.Since(start)
	if n, err := io.Copy(io.Discard, resp.Body); n != size-1 || err != nil {
		b.Fatalf("%d of %d bytes: %v", n, size, err)
	}
	return first, time.Since(start)
}
