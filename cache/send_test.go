package cache

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
)

// A kernel stands for a connection that copies by sendfile. It notes its sources.
type kernel struct {
	bytes.Buffer
	files, others int
	err           error // returned once limit bytes are there
	limit         int64
}

func (k *kernel) ReadFrom(r io.Reader) (int64, error) {
	lr, ok := r.(*io.LimitedReader)
	if ok {
		_, ok = lr.R.(*os.File)
	}
	if !ok {
		k.others++
		return k.Buffer.ReadFrom(r)
	}
	k.files++
	if k.err == nil {
		return k.Buffer.ReadFrom(r)
	}
	n, err := io.CopyN(&k.Buffer, r, min(lr.N, k.limit-int64(k.Len())))
	if int64(k.Len()) == k.limit {
		err = k.err
	}
	return n, err
}

func TestFilesAreSentByTheKernel(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	b := newSample(90, 3*segment+1)
	in := begin(t, s, b)
	in.SetSize(int64(len(b.content)))
	follower, err := in.Follow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := write(in, b, 1<<20); err != nil {
		t.Fatal(err)
	}
	hit, err := s.Open(b.digest)
	if err != nil {
		t.Fatal(err)
	}
	for _, blob := range []Blob{follower, hit} {
		var k kernel
		n, err := blob.Send(t.Context(), &k, 10, -1)
		if err != nil || n != int64(len(b.content))-10 || !bytes.Equal(k.Bytes(), b.content[10:]) || k.files == 0 || k.others != 0 {
			t.Errorf("%d bytes, %v, %d by files, %d not", n, err, k.files, k.others)
		}
		if err := blob.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A client that goes away, even at the last byte, is not taken for a bad disk.
func TestClientThatGoesAwayDoesNotCostTheBlob(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	b := newSample(91, segment+500)
	keep(t, s, b)
	gone := errors.New("connection reset")
	for _, at := range []int64{0, 1, segment, segment + 499, segment + 500} {
		blob, err := s.Open(b.digest)
		if err != nil {
			t.Fatal("the blob was lost:", err)
		}
		n, err := blob.Send(t.Context(), &kernel{err: gone, limit: at}, 0, -1)
		if !errors.Is(err, gone) || errors.Is(err, ErrDamaged) || n != at {
			t.Errorf("at %d: %d bytes, %v", at, n, err)
		}
		if err := blob.Close(); err != nil {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	blob, err := s.Open(b.digest)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := blob.Send(ctx, discard{}, 0, -1); n != 0 || !errors.Is(err, context.Canceled) {
		t.Error(n, err)
	}
	if err := blob.Close(); err != nil {
		t.Error(err)
	}
	want(t, s, b)
}

func TestRangesOfHits(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	for _, size := range []int64{0, 1, 1000, 2*chunkSize + 5} {
		b := newSample(92, int(size))
		keep(t, s, b)
		for range 2 {
			blob, err := s.Open(b.digest)
			if err != nil {
				t.Fatal(err)
			}
			for _, off := range []int64{0, 1, size / 2, chunkSize, size, size + 1} {
				for _, n := range []int64{-1, 0, 1, size, chunkSize + 1, 1<<63 - 1} {
					var out bytes.Buffer
					k, err := blob.Send(t.Context(), &out, off, n)
					if err != nil || k != int64(out.Len()) || !bytes.Equal(out.Bytes(), b.span(off, n)) {
						t.Errorf("size %d, range %d+%d: %d bytes, %v", size, off, n, k, err)
					}
				}
			}
			if err := blob.Close(); err != nil {
				t.Error(err)
			}
			s.shard.small.remove(mustName(b)) // and once more from disk
		}
	}
}

func mustName(b sample) name {
	n, err := nameOf(b.digest)
	if err != nil {
		panic(err)
	}
	return n
}

// On real connections, a client that hangs up and one that reads nothing disturb
// neither the ingest nor each other.
func TestClientsOnSocketsDoNotTroubleTheFill(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), Options{})
	b := newSample(93, 6<<20)
	in := begin(t, s, b)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	dial := func() (client, server net.Conn) {
		client, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if server, err = ln.Accept(); err != nil {
			t.Fatal(err)
		}
		return client, server
	}
	var wg sync.WaitGroup
	serve := func(server net.Conn, whole bool) {
		wg.Go(func() {
			blob, err := in.Follow(t.Context())
			if err == nil {
				_, err = blob.Send(t.Context(), server, 0, -1)
				_ = blob.Close()
			}
			if whole && err != nil {
				t.Error(err)
			}
			_ = server.Close()
		})
	}
	fast, a := dial()
	stuck, c := dial()
	left, d := dial()
	serve(a, true)
	serve(c, false)
	serve(d, false)
	got := make(chan []byte)
	go func() {
		p, _ := io.ReadAll(fast)
		got <- p
	}()
	go func() {
		_, _ = io.CopyN(io.Discard, left, 100_000)
		_ = left.Close()
	}()
	joined(t, in, 3)
	if err := write(in, b, 50_000); err != nil {
		t.Error(err)
	}
	if err := same(<-got, b.content); err != nil {
		t.Error(err)
	}
	want(t, s, b)
	_ = stuck.Close()
	_ = fast.Close()
	wg.Wait()
}
