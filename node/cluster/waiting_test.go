package cluster

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/cache"
)

// blobNamed is a blob of a digest of its own.
func blobNamed(i int) cache.Held {
	return cache.Held{Digest: digest.FromString(fmt.Sprint(i)), Registry: "r.example", Size: int64(i)}
}

// wantNext takes the next blob, which is to be the one of that number; -1: none.
func wantNext(t *testing.T, w *waiting, now time.Time, i int) (idle time.Duration) {
	t.Helper()
	b, ok, idle := w.next(now)
	if ok != (i >= 0) || ok && b != blobNamed(i) {
		t.Fatalf("blob %d is next, %v; want %d", b.Size, ok, i)
	}
	return idle
}

// The newest come first, once they are old enough, and all that is held after them.
func TestWaitingBlobsComeInOrder(t *testing.T) {
	t.Parallel()
	w, now := newWaiting(time.Second), time.Now()
	if idle := wantNext(t, w, now, -1); idle != 0 {
		t.Errorf("idle for %v", idle)
	}
	w.look([]cache.Held{blobNamed(10), blobNamed(11), blobNamed(12)})
	w.add(blobNamed(0), now)
	w.add(blobNamed(1), now.Add(100*time.Millisecond))
	wantNext(t, w, now.Add(200*time.Millisecond), 10)
	wantNext(t, w, now.Add(1200*time.Millisecond), 1)
	wantNext(t, w, now.Add(1200*time.Millisecond), 0)
	wantNext(t, w, now.Add(1200*time.Millisecond), 11)
	w.add(blobNamed(2), now.Add(1200*time.Millisecond))
	w.look(nil) // the ring has changed
	if idle := wantNext(t, w, now.Add(1300*time.Millisecond), -1); idle != 900*time.Millisecond {
		t.Errorf("idle for %v", idle)
	}
	wantNext(t, w, now.Add(3*time.Second), 2)
	w.add(blobNamed(3), now)
	w.add(blobNamed(4), now)
	if all := w.takeFresh(); len(all) != 2 || all[0] != blobNamed(4) || w.size() != 0 {
		t.Errorf("%v, %d are left", all, w.size())
	}
}

func TestWaitingBlobsAreBounded(t *testing.T) {
	t.Parallel()
	w, now := newWaiting(0), time.Now()
	for i := range maxFresh + 10 {
		if lost := w.add(blobNamed(i), now); lost != (i >= maxFresh) {
			t.Fatalf("number %d: lost %v", i, lost)
		}
	}
	w.look(make([]cache.Held, maxBacklog+10))
	if n := w.size(); n != maxFresh+maxBacklog {
		t.Errorf("%d wait", n)
	}
	wantNext(t, w, now, maxFresh+9)
}

// Clients go first, but not for ever.
func TestCopiesYieldToClients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		busyUntil := time.Now().Add(time.Second)
		c := &copies{busy: func() bool { return time.Now().Before(busyUntil) }}
		for _, want := range []time.Duration{time.Second, 0} {
			began := time.Now()
			if c.yield(t.Context()); time.Since(began) != want {
				t.Errorf("it waited %v, want %v", time.Since(began), want)
			}
		}
		busyUntil = time.Now().Add(time.Hour)
		began := time.Now()
		if c.yield(t.Context()); time.Since(began) != yieldTime {
			t.Errorf("it waited %v", time.Since(began))
		}
	})
}

// What has lost its second copy comes in its own order, and a later loss begins that anew.
func TestWaitingBlobsThatLieAlone(t *testing.T) {
	t.Parallel()
	w := newWaiting(time.Hour)
	w.hurry([]cache.Held{blobNamed(0), blobNamed(1), blobNamed(2)})
	next := func(want int) {
		t.Helper()
		if b, ok := w.urgent(); ok != (want >= 0) || ok && b != blobNamed(want) {
			t.Fatalf("blob %d is next, %v; want %d", b.Size, ok, want)
		}
	}
	<-w.rush
	next(0)
	<-w.rush // another may see to the next
	w.hurry([]cache.Held{blobNamed(1), blobNamed(3)})
	w.look(nil) // the ring has changed
	if n := w.size(); n != 2 {
		t.Errorf("%d wait", n)
	}
	next(1)
	next(3)
	next(-1)
	w.hurry(make([]cache.Held, maxBacklog+10))
	if n := w.size(); n != maxBacklog {
		t.Errorf("%d wait", n)
	}
}
