package cache

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

func BenchmarkOpenHit(b *testing.B) {
	for _, size := range []int{4 << 10, 16 << 20} {
		b.Run(fmt.Sprintf("%d KiB", size>>10), func(b *testing.B) {
			s := start(b, b.TempDir(), Options{})
			blob := newSample(1, size)
			keep(b, s, blob)
			settleTime(b, s, blob, s.dir)
			want(b, s, blob)
			client, server := pipe(b)
			go func() { _, _ = io.Copy(io.Discard, client) }()
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				f, err := s.Open(blob.digest)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := f.Send(b.Context(), server, 0, -1); err != nil {
					b.Fatal(err)
				}
				_ = f.Close()
			}
		})
	}
}

// pipe returns the ends of a TCP connection.
func pipe(b *testing.B) (client, server net.Conn) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	if client, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		b.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _, _ = client.Close(), server.Close() })
	return client, server
}

func BenchmarkIngest(b *testing.B) {
	for _, followers := range []int{1, 16} {
		b.Run(fmt.Sprintf("%d followers", followers), func(b *testing.B) {
			s := start(b, b.TempDir(), Options{Bound: 64 << 20})
			seed := uint64(0)
			content := make([]sample, 8)
			for i := range content {
				content[i] = newSample(uint64(i), 16<<20)
			}
			b.SetBytes(16 << 20)
			for b.Loop() {
				blob := content[seed%8]
				seed++
				in := begin(b, s, blob)
				var wg sync.WaitGroup
				for range followers {
					wg.Go(func() {
						f, err := in.Follow(b.Context())
						if err == nil {
							_, err = f.Send(b.Context(), discard{}, 0, -1)
							_ = f.Close()
						}
						if err != nil {
							b.Error(err)
						}
					})
				}
				if err := write(in, blob, 256<<10); err != nil {
					b.Fatal(err)
				}
				wg.Wait()
			}
		})
	}
}

// BenchmarkPut puts small blobs, and compares that with a loop that writes files and renames
// them.
func BenchmarkPut(b *testing.B) {
	b.Run("store", func(b *testing.B) { benchmarkPut(b, Options{}) })
	b.Run("plain", func(b *testing.B) {
		dir := b.TempDir()
		blob := newSample(1, 4<<10)
		i := 0
		defer reportCPU(b)()
		for b.Loop() {
			i++
			tmp := filepath.Join(dir, "tmp")
			if err := os.WriteFile(tmp, blob.content, 0o600); err != nil {
				b.Fatal(err)
			}
			if err := os.Rename(tmp, filepath.Join(dir, strconv.Itoa(i))); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkPutEvict puts small blobs into a store that is full.
func BenchmarkPutEvict(b *testing.B) { benchmarkPut(b, Options{Bound: 4 << 20}) }

// benchmarkPut brings blobs of 4 KiB in, each another one.
func benchmarkPut(b *testing.B, opts Options) {
	s := start(b, b.TempDir(), opts)
	content := newSample(1, 4<<10).content
	i := uint64(0)
	b.ReportAllocs()
	defer reportCPU(b)()
	for b.Loop() {
		i++
		binary.BigEndian.PutUint64(content, i)
		if in := fill(b, s, sample{content, digest.FromBytes(content)}); !in.Stored() {
			b.Fatal("not stored")
		}
	}
}

// BenchmarkStart opens a store that holds many small blobs, and waits until it is listed. It
// reports the processor's time and the memory for each blob.
func BenchmarkStart(b *testing.B) {
	const blobs = 20_000
	dir := b.TempDir()
	s := start(b, dir, Options{})
	content := newSample(1, 100).content
	for i := range uint64(blobs) {
		binary.BigEndian.PutUint64(content, i)
		keep(b, s, sample{content, digest.FromBytes(content)})
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	inUse := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	from := inUse()
	defer reportCPU(b)()
	for b.Loop() {
		s = Open(dir, Options{})
		if err := s.Listed(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		b.ReportMetric(float64(inUse()-from)/blobs, "B/blob")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/blobs, "ns/blob")
}

// reportCPU reports the processor's time for each round once the function that it returns is
// called: on a busy machine that tells more than the time that passes.
func reportCPU(b *testing.B) func() {
	used := func() int64 {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	from := used()
	return func() { b.ReportMetric(float64(used()-from)/float64(b.N), "cpu-ns/op") }
}

func BenchmarkIndexReserve(b *testing.B) {
	const blobs = 1_000_000
	x := newIndex(blobs*100, nil)
	for i := range blobs {
		x.append(found{testName(i), "a", 100, time.Time{}, false})
	}
	i := blobs
	b.ReportAllocs()
	for b.Loop() {
		victims, err := roomOf(x).reserve("a", 100)
		if err != nil {
			b.Fatal(err)
		}
		for _, v := range victims {
			x.removed(v)
		}
		if err := roomOf(x).settle("a", 100); err != nil {
			b.Fatal(err)
		}
		slot, ok := x.insert(testName(i), "a", 100, time.Time{}, false, 0)
		if !ok {
			b.Fatal("inserted twice")
		}
		x.leave(slot, time.Time{})
		i++
	}
}
