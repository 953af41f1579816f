package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"

	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/upstreamtest"
)

func TestAHundredConcurrentPullsAreOneDownload(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	d, content := r.put(1, 3*mib)
	release := r.registry.Hold(upstreamtest.Match{Method: "GET"})
	done := make(chan struct{})
	go func() {
		defer close(done)
		each(100, func(int) {
			if _, _, err := r.pull(r.ref(d), content, 0, -1); err != nil {
				t.Error(err)
			}
		})
	}()
	r.registry.WaitFor(upstreamtest.Match{Method: "GET"}, 1)
	release()
	<-done
	r.wantGets(d, 1)
	r.mustPull(r.ref(d), content, oci.Hit)
	c := r.Counters()[r.registry.Host()]
	if c.Misses.Load() < 1 || c.Hits.Load()+c.Misses.Load() != 101 {
		t.Errorf("%d hits and %d misses counted, want 101 in all", c.Hits.Load(), c.Misses.Load())
	}
}

func TestOneDownloadEvenIfItLandsWhileOthersBoard(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	for i := range 60 {
		d, content := r.put(uint64(i), int64(100+i))
		each(12, func(int) {
			if _, _, err := r.pull(r.ref(d), content, 0, -1); err != nil {
				t.Error(err)
			}
		})
		r.wantGets(d, 1)
	}
}

func TestRangesAtManyOffsetsShareTheDownloadUnderWay(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	const size = 4 * mib
	d, content := r.put(2, size)
	release := r.registry.Hold(upstreamtest.Match{Method: "GET"})
	spans := [][2]int64{
		{0, 1},
		{0, -1},
		{1, 100},
		{size - 1, 1},
		{size - 1, -1},
		{size - 64*kib, -1},
		{size - 64*kib - 1, 64 * kib},
		{size / 2, 300 * kib},
		{3*mib + 7, -1},
		{256*kib - 1, 2},
		{256 * kib, 256 * kib},
		{0, size},
		{100, 0},
		{size / 3, size / 3},
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		each(3*len(spans), func(i int) {
			s := spans[i%len(spans)]
			if k, _, err := r.pull(r.ref(d), content, s[0], s[1]); err != nil {
				t.Errorf("range %v: %d bytes, error %v", s, k, err)
			}
		})
	}()
	r.registry.WaitFor(upstreamtest.Match{Method: "GET"}, 1)
	release()
	<-done
	r.wantGets(d, 1)
}

// containerd 2 asks for open-ended ranges in parallel and closes each once it
// has its part.
func TestParallelOpenEndedRangesDroppedHalfWayFillTheCache(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	const part = mib
	d, content := r.put(3, 4*part)
	each(4, func(i int) {
		a, err := r.Blob(t.Context(), r.ref(d))
		if err != nil {
			t.Error(err)
			return
		}
		defer a.Close()
		w := &quitter{left: part}
		_, err = a.Send(t.Context(), w, int64(i)*part, -1)
		if i < 3 && !errors.Is(err, errQuit) {
			t.Errorf("part %d ended with %v", i, err)
		}
		if !bytes.Equal(w.Bytes(), content[i*part:(i+1)*part]) {
			t.Errorf("part %d is wrong", i)
		}
	})
	r.events.await(filled, 1)
	r.wantGets(d, 1)
	r.mustPull(r.ref(d), content, oci.Hit)
}

var errQuit = errors.New("the client has hung up")

// A quitter is a client that hangs up once it has as many bytes as it wants.
type quitter struct {
	buf  bytes.Buffer
	left int
}

func (q *quitter) Bytes() []byte { return q.buf.Bytes() }

func (q *quitter) Write(p []byte) (int, error) {
	n := min(len(p), q.left)
	q.buf.Write(p[:n])
	q.left -= n
	if n < len(p) {
		return n, errQuit
	}
	return n, nil
}

func TestAClientThatHangsUpDoesNotStopTheDownload(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]bool{"before the header": true, "in mid-body": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, setup{})
			d, content := r.put(4, 2*mib)
			release := r.registry.Hold(upstreamtest.Match{Method: "GET"})
			ctx, hangUp := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() {
				a, err := r.Blob(ctx, r.ref(d))
				if err == nil {
					_, err = a.Send(ctx, &quitter{left: 1000}, 0, -1)
					err = errors.Join(err, a.Close())
				}
				ended <- err
			}()
			r.registry.WaitFor(upstreamtest.Match{Method: "GET"}, 1)
			if before {
				hangUp()
				if err := <-ended; !errors.Is(err, context.Canceled) {
					t.Errorf("the client that left was told %v", err)
				}
				release()
			} else {
				release()
				if err := <-ended; !errors.Is(err, errQuit) {
					t.Errorf("the client that left was told %v", err)
				}
				hangUp()
			}
			r.events.await(filled, 1)
			r.mustPull(r.ref(d), content, oci.Hit)
			r.wantGets(d, 1)
		})
	}
}

func TestASlowClientDoesNotSlowTheDownload(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	d, content := r.put(5, 3*mib)
	slow := r.begin(d, 1000)
	slow.send(0)
	<-slow.reached
	r.events.await(filled, 1)
	r.mustPull(r.ref(d), content, oci.Hit)
	close(slow.open)
	if err := <-slow.ended; err != nil || !bytes.Equal(slow.Bytes(), content) {
		t.Errorf("the slow client got %d bytes: %v", slow.Len(), err)
	}
	r.wantGets(d, 1)
}

func TestEmptyAndSmallBlobs(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	for i, size := range []int64{0, 1, 64*kib - 1, 64 * kib, 64*kib + 1, 256 * kib, 256*kib + 1} {
		d, content := r.put(uint64(i), size)
		r.mustPull(r.ref(d), content, oci.Miss)
		r.events.await(filled, i+1)
		r.mustPull(r.ref(d), content, oci.Hit)
		r.wantGets(d, 1)
	}
}

func TestABlobOfUnknownSizeIsStreamedAndKept(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	r.registry.Fault(upstreamtest.Fault{NoLength: true})
	for i, size := range []int64{10, 64 * kib, 3 * mib} {
		d, content := r.put(uint64(10+i), size)
		r.mustPull(r.ref(d), content, oci.Miss)
		r.events.await(filled, i+1)
		r.mustPull(r.ref(d), content, oci.Hit)
		r.wantGets(d, 1)
	}
}

func TestHeadOfABlob(t *testing.T) {
	t.Parallel()
	stat := func(t *testing.T, r *rig, ref oci.Ref, size int64, from oci.Origin) {
		t.Helper()
		got, err := r.StatBlob(t.Context(), ref)
		if err != nil || got.Size != size || got.Origin != from {
			t.Errorf("HEAD: size %d as a %v, error %v; want %d as a %v", got.Size, got.Origin, err, size, from)
		}
	}
	t.Run("is passed on, and gets nothing", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, setup{})
		d, _ := r.put(1, mib)
		stat(t, r, r.ref(d), mib, oci.Miss)
		r.wantGets(d, 0)
	})
	t.Run("asks nobody while the blob arrives and when it is here", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, setup{})
		d, _ := r.put(1, mib)
		r.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: "GET"}, Stall: true, StallAfter: 1000, Times: 1})
		a, err := r.Blob(t.Context(), r.ref(d))
		if err != nil {
			t.Fatal(err)
		}
		stat(t, r, r.ref(d), mib, oci.Miss)
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		e, content := r.put(2, mib)
		r.mustPull(r.ref(e), content, oci.Miss)
		r.events.await(filled, 1)
		stat(t, r, r.ref(e), mib, oci.Hit)
		if n := r.registry.Count("HEAD", ""); n != 0 {
			t.Errorf("%d HEADs reached the registry", n)
		}
	})
	t.Run("is answered from the first byte where upstream does not offer it", func(t *testing.T) {
		t.Parallel()
		for _, status := range []int{http.StatusMethodNotAllowed, http.StatusNotImplemented, http.StatusForbidden, http.StatusNotFound, http.StatusBadGateway} {
			r := newRig(t, setup{})
			r.registry.Fault(upstreamtest.Fault{Match: upstreamtest.Match{Method: "HEAD"}, Status: status})
			d, content := r.put(1, mib)
			stat(t, r, r.ref(d), mib, oci.Miss)
			if sent := r.registry.BytesSent(); sent > 1<<10 {
				t.Errorf("%d: a HEAD cost %d bytes of the blob", status, sent)
			}
			r.mustPull(r.ref(d), content, oci.Miss)
			r.wantGets(d, 2)
		}
	})
	t.Run("fails as upstream says", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, setup{})
		d, _ := r.put(1, 10)
		missing := r.ref(d)
		missing.Repository = "team/other"
		_, err := r.StatBlob(t.Context(), missing)
		wantKind(t, err, oci.NotFound)
	})
}

func TestSendTellsTheClientsErrorAndNotItsOwn(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{})
	d, _ := r.put(1, mib)
	a, err := r.Blob(t.Context(), r.ref(d))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	pr, pw := io.Pipe()
	_ = pr.Close()
	if n, err := a.Send(t.Context(), pw, 0, -1); n != 0 || !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("sent %d bytes, error %v", n, err)
	}
}
