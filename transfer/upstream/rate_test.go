package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/oci"
)

// rated returns a client of a registry whose blobs have that size and come at that rate.
func rated(t *testing.T, rate int64, size int) *Client {
	body := strings.Repeat("x", size)
	return faked(t, Registry{FollowRedirects: true, Rate: rate}, func(*http.Request) (*http.Response, error) {
		return reply(200, body), nil
	})
}

func TestBlobsOfARegistryShareARate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rate     int64
		size, of int // bytes of a blob, and how many there are
	}{{1 << 20, 4 << 20, 1}, {1 << 20, 1 << 20, 8}, {10, 100, 2}, {1 << 30, 4 << 20, 4}} {
		synctest.Test(t, func(t *testing.T) {
			client, start := rated(t, c.rate, c.size), time.Now()
			var all sync.WaitGroup
			var first, last time.Duration
			var mu sync.Mutex
			for range c.of {
				all.Go(func() {
					got, err := opened(t.Context(), client, hello(reg))
					if err != nil || len(got) != c.size {
						t.Errorf("%d bytes: %v", len(got), err)
					}
					mu.Lock()
					defer mu.Unlock()
					if last = time.Since(start); first == 0 {
						first = last
					}
				})
			}
			all.Wait()
			want := time.Duration(float64(c.size*c.of) / float64(c.rate) * float64(time.Second))
			if step := want / 10; last > want+step || c.rate > minStep && last < want-step {
				t.Errorf("%d blobs of %d bytes at %d a second took %v", c.of, c.size, c.rate, last)
			}
			if c.rate > minStep && first < last/4 {
				t.Errorf("one was done after %v, the last after %v", first, last)
			}
		})
	}
}

// Whoever leaves waits no longer, and others get the rest of the rate.
func TestWaitingForTheRateEndsWithTheCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := rated(t, 2<<10, 1<<20)
		ctx, cancel := context.WithCancelCause(t.Context())
		s, err := client.Open(ctx, hello(reg), 0)
		if err != nil {
			t.Fatal(err)
		}
		enough, start := errors.New("enough"), time.Now()
		time.AfterFunc(3*time.Second+time.Millisecond, func() { cancel(enough) })
		if _, err := io.Copy(io.Discard, s.Body); !errors.Is(err, enough) || time.Since(start) > 4*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		_ = s.Body.Close()
	})
}

// What is no blob does not wait.
func TestManifestsDoNotWaitForTheRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		body := `{"manifests":[]` + strings.Repeat(" ", 1<<20) + `}`
		client := faked(t, Registry{FollowRedirects: true, Rate: 1 << 10}, func(*http.Request) (*http.Response, error) {
			return reply(200, body, "Content-Type", "application/vnd.oci.image.index.v1+json"), nil
		})
		start := time.Now()
		if _, err := client.Manifest(t.Context(), oci.Ref{Registry: reg, Repository: "team/app", Tag: "1"}, nil); err != nil || time.Since(start) != 0 {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}
