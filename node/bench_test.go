package node

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

func BenchmarkHitSmall(b *testing.B) { benchmarkHit(b, 2<<10) }
func BenchmarkHitLarge(b *testing.B) { benchmarkHit(b, 64<<20) }

// benchmarkHit compares a hit with net/http's file server serving the same bytes.
func benchmarkHit(b *testing.B, size int64) {
	content := random(1, size)
	b.Run("node", func(b *testing.B) {
		up := upstreamtest.New(b)
		d := up.PutBlob(repo, content)
		p := newProxy(b, up, settings{})
		p.get(blobPath(d))
		benchmarkGet(b, p.client, p.url+blobPath(d), size)
	})
	b.Run("FileServer", func(b *testing.B) {
		dir := b.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "blob"), content, 0o600); err != nil {
			b.Fatal(err)
		}
		srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
		client := newClient(b)
		defer srv.Close()
		defer client.CloseIdleConnections()
		benchmarkGet(b, client, srv.URL+"/blob", size)
	})
}

func benchmarkGet(b *testing.B, client *http.Client, url string, size int64) {
	b.SetBytes(size)
	buf := make([]byte, 256<<10)
	for b.Loop() {
		resp, err := client.Get(url)
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, buf)
		if n != size || err != nil {
			b.Fatalf("%d of %d bytes: %v", n, size, err)
		}
		_ = resp.Body.Close() // it was read to its end
	}
}

func BenchmarkColdMiss(b *testing.B) {
	const size = 16 << 20
	up := upstreamtest.New(b)
	p := newProxy(b, up, settings{defaults: "cache_max_size: 100m"})
	b.SetBytes(size)
	seed := uint64(0)
	for b.Loop() {
		b.StopTimer()
		seed++
		d := up.PutRandomBlob(repo, seed, size)
		b.StartTimer()
		if a := p.get(blobPath(d)); len(a.body) != size {
			b.Fatalf("%d bytes, %v", len(a.body), a.err)
		}
	}
}
