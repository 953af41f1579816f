package flight

import (
	"bytes"
	"io"
	"testing"
	"testing/synctest"
	"time"

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
