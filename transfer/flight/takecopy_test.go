package flight

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/cache"
	"oci-proxy/transfer/grants"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// Copies are taken slowly, all of them together, and more slowly while requests wait for
// downloads.
func TestCopiesAreTakenBehindRequests(t *testing.T) {
	t.Parallel()
	for _, busy := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := New(Config{Mesh: mesh.New(mesh.Config{})})
			rate := copyRate
			if busy {
				f.flights[flightKey{oci.Content{}, true}] = &entry{Flight: &Flight{}, aboard: 1}
				rate = busyCopyRate
			}
			const size = 5 << 20
			began := time.Now()
			done := make(chan int64, copyWidth)
			for range copyWidth {
				go func() {
					n, err := io.Copy(io.Discard, &pacedReader{t.Context(), bytes.NewReader(make([]byte, size)), f})
					if err != nil {
						t.Error(err)
					}
					done <- n
				}()
			}
			for range copyWidth {
				if n := <-done; n != size {
					t.Errorf("%d bytes came", n)
				}
			}
			if took, want := time.Since(began), copyWidth*size*time.Second/time.Duration(rate); took < want || took > want+want/10 {
				t.Errorf("busy %v: it took %v, want %v", busy, took, want)
			}
		})
	}
}

// Where there is no room for the size that its holder tells, nothing is asked of the holder.
func TestACopyWithoutRoomIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	f, c := newFlights()
	shard := grants.OpenShard(t.TempDir(), cache.Options{Bound: 1 << 20})
	t.Cleanup(func() { _ = shard.Close() })
	if err := shard.Listed(t.Context()); err != nil {
		t.Fatal(err)
	}
	q := request("team/app", "large")
	q.Shard = shard
	if err := TakeCopy(t.Context(), f, c.members["a"], q, "", 2<<20); !errors.Is(err, mesh.ErrUnwanted) {
		t.Errorf("%v", err) // a member that answers nothing would have panicked
	}
	if len(f.pace.slots)+len(f.pace.queue) > 0 {
		t.Error("it has a turn")
	}
}

// More copies than are taken at a time wait for their turn: not for ever, and not too many.
func TestCopiesWaitForTheirTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPace()
		for range copyWidth {
			if !p.enter(t.Context()) {
				t.Fatal("there is room")
			}
		}
		turns := make(chan bool, copyQueue)
		for range copyQueue {
			go func() { turns <- p.enter(t.Context()) }()
		}
		synctest.Wait()
		began := time.Now()
		if p.enter(t.Context()) || time.Since(began) > 0 {
			t.Errorf("it waited %v behind a full queue", time.Since(began))
		}
		p.leave()
		if !<-turns {
			t.Error("a turn was not taken")
		}
		for range copyQueue - 1 {
			if <-turns {
				t.Error("more turns than there are")
			}
		}
		if took := time.Since(began); took != copyPatience {
			t.Errorf("they waited %v", took)
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if p.enter(ended) {
			t.Error("it waited for one that is gone")
		}
	})
}
