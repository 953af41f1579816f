package transfer_test

import (
	"bytes"
	"sync"
	"testing"

	"oci-proxy/cache"
)

// An overtaken client waits at each MiB until another client has got the whole blob.
type overtaken struct {
	got  bytes.Buffer
	next int
	wait func()
}

// Write implements io.Writer.
func (o *overtaken) Write(p []byte) (int, error) {
	if o.got.Len() >= o.next {
		o.next += mib
		o.wait()
	}
	return o.got.Write(p)
}

// A blob passes through memory. Other clients overtake a slow client again and again, and
// it gets the whole blob all the same.
func TestSlowClientIsOvertakenAnyNumberOfTimes(t *testing.T) {
	t.Parallel()
	r := newRig(t, setup{cache: cache.Options{Bound: mib}})
	d, content := r.put(3, 20*mib)
	a, err := r.Blob(t.Context(), r.ref(d))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }() // only read
	done, ended := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				if k, _, err := r.pull(r.ref(d), content, 0, -1); err != nil {
					t.Errorf("a fast client got %d bytes: %v", k, err)
				}
				select {
				case <-done:
					return
				case ended <- struct{}{}:
				}
			}
		})
	}
	slow := &overtaken{wait: func() { <-ended }}
	k, err := a.Send(t.Context(), slow, 0, -1)
	if err != nil || !bytes.Equal(slow.got.Bytes(), content) {
		t.Errorf("the slow client got %d of %d bytes: %v", k, len(content), err)
	}
	close(done)
	wg.Wait()
}
