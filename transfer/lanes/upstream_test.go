package lanes_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"oci-proxy/transfer/lanes"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstream"
	"oci-proxy/transfer/upstreamtest"
)

// A crowd is a registry's handler that counts the requests that it is answering.
type crowd struct {
	content   []byte
	now, most atomic.Int64
	sent      atomic.Int64
}

func (c *crowd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := c.now.Add(1)
	end := sync.OnceFunc(func() { c.now.Add(-1) })
	defer end()
	for most := c.most.Load(); now > most && !c.most.CompareAndSwap(most, now); most = c.most.Load() {
	}
	http.ServeContent(&counted{w, &c.sent, 0, end}, r, "", time.Time{}, bytes.NewReader(c.content))
}

// counted counts bytes before they are sent, and ends with the last of them: the client may have
// that, and ask again, before this goroutine goes on.
type counted struct {
	http.ResponseWriter
	n    *atomic.Int64
	sent int64
	end  func()
}

func (c *counted) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	if c.sent += int64(len(p)); fmt.Sprint(c.sent) == c.Header().Get("Content-Length") {
		c.end()
	}
	n, err := c.ResponseWriter.Write(p)
	c.n.Add(int64(n - len(p)))
	return n, err
}

// takenOver returns how often lanes of so many downloads took something over from others.
func takenOver(t *testing.T, log *testkit.Log, downloads int) (n int64) {
	t.Helper()
	log.Await(t, "taken_over=", downloads)
	for _, rest := range strings.Split(log.String(), "taken_over=")[1:] {
		var one int64
		if _, err := fmt.Sscan(rest, &one); err != nil {
			t.Fatal(err)
		}
		n += one
	}
	return n
}

// Many downloads over many lanes at once are never more requests than upstream_requests,
// all get on, and each byte comes once, but for what a lane that was late
// on a machine that is busy for seconds had asked for, and another took over.
func TestLanesKeepToTheTurnsOfARegistry(t *testing.T) {
	t.Parallel()
	for _, requests := range []int{1, 2, 3, 8, 32} {
		t.Run(fmt.Sprint(requests), func(t *testing.T) {
			t.Parallel()
			c := &crowd{content: upstreamtest.RandomBytes(1, 3<<20)}
			srv := httptest.NewServer(c)
			defer srv.Close()
			host := strings.TrimPrefix(srv.URL, "http://")
			client, err := upstream.New([]upstream.Registry{{Host: host, Configured: true, Insecure: true, FollowRedirects: true, Requests: requests}},
				upstream.Registry{}, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			var log testkit.Log
			over := lanes.New(client, func(string) int { return 4 }, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
			want := digest.FromBytes(c.content)
			var all sync.WaitGroup
			const downloads = 12
			for i := range downloads {
				all.Go(func() {
					s, err := over.Open(oci.Caller{Client: fmt.Sprint(i % 3)}.Into(t.Context()), oci.Ref{Registry: host, Repository: "a", Digest: want}, 0)
					if err != nil {
						t.Error(err)
						return
					}
					defer s.Body.Close()
					if got, err := digest.FromReader(s.Body); err != nil || got != want {
						t.Errorf("%s: %v", got, err)
					}
				})
			}
			all.Wait()
			moved := takenOver(t, &log, downloads) // the registry may not have noticed by then that a lane left it
			if n := c.most.Load(); n > int64(requests)+moved {
				t.Errorf("%d requests at a time, at most %d are allowed", n, requests)
			}
			if n, size := c.sent.Load(), int64(len(c.content)); n < downloads*size || n > (downloads+moved)*size || moved == 0 && n != downloads*size {
				t.Errorf("%d bytes were sent for %d, and lanes took over %d times", n, downloads*size, moved)
			}
		})
	}
}
