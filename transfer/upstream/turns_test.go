package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/oci"
)

// A load is a registry's network that counts what is under way: requests, and answers
// that are still being read. Blobs end when done is closed.
type load struct {
	now, most, tokens atomic.Int64
	done              chan struct{}
	header            chan struct{} // no answer begins before it is closed; nil: at once
}

func (l *load) trip(req *http.Request) (*http.Response, error) {
	if strings.HasSuffix(req.URL.Path, "/token") {
		l.tokens.Add(1)
		return reply(200, `{"token":"t"}`), nil
	}
	for n := l.now.Add(1); n > l.most.Load(); {
		l.most.Store(n)
	}
	if l.header != nil {
		select {
		case <-l.header:
		case <-req.Context().Done():
			l.now.Add(-1)
			return nil, req.Context().Err()
		}
	}
	resp := reply(200, "hello", "Docker-Content-Digest", helloDigest)
	if req.Header.Get("Authorization") == "" {
		resp = reply(401, "", "WWW-Authenticate", `Bearer realm="https://reg.example.com/token"`)
	} else if strings.Contains(req.URL.Path, "/blobs/") && req.Method == http.MethodGet {
		resp.Body = &slowBody{Reader: resp.Body, until: l.done, ctx: req.Context()}
	}
	resp.Body = &turnBody{ReadCloser: resp.Body, end: sync.OnceFunc(func() { l.now.Add(-1) })}
	return resp, nil
}

// A slowBody ends when its channel is closed, or its request's context.
type slowBody struct {
	io.Reader
	until chan struct{}
	ctx   context.Context
}

func (b *slowBody) Read(p []byte) (int, error) {
	select {
	case <-b.until:
		return b.Reader.Read(p)
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	}
}

func (b *slowBody) Close() error { return nil }

// loaded returns a client of a registry with that network.
func loaded(t *testing.T, requests int) (*Client, *load) {
	l := &load{done: make(chan struct{})}
	return faked(t, Registry{FollowRedirects: true, Requests: requests}, l.trip), l
}

const reg = "reg.example.com"

// download downloads n blobs for a client, and counts how many came.
func download(t *testing.T, c *Client, who string, n int, all *sync.WaitGroup, came *atomic.Int64) {
	ctx := oci.Caller{Client: who}.Into(t.Context())
	for range n {
		all.Go(func() {
			if got, err := opened(ctx, c, hello(reg)); err == nil && got == "hello" {
				came.Add(1)
			} else if oci.KindOf(err) != oci.Busy {
				t.Error(err)
			}
		})
	}
	synctest.Wait()
}

func TestRequestsToARegistryAreBounded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ most, clients, downloads int }{
		{0, 1, 23}, {0, 2, 27}, {0, 600, 28}, {1, 3, 1}, {2, 3, 1}, {8, 8, 7}, {100, 100, 88},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client, l := loaded(t, c.most)
				var all sync.WaitGroup
				var came atomic.Int64
				for i := range c.clients {
					download(t, client, fmt.Sprint("client ", i), 600/c.clients, &all, &came)
				}
				if n := l.now.Load(); n != int64(c.downloads) {
					t.Errorf("%d downloads at a time, want %d", n, c.downloads)
				}
				if c.most != 1 { // what is short gets through, all the while
					for range 50 {
						if _, err := client.Stat(t.Context(), hello(reg), true, nil); err != nil {
							t.Error(err)
						}
					}
				}
				close(l.done)
				all.Wait()
				if n := came.Load(); n != int64(600/c.clients*c.clients) {
					t.Errorf("%d of 600 came", n)
				}
				most := c.most
				if most == 0 {
					most = DefaultRequests
				}
				if l.most.Load() > int64(most) || l.now.Load() != 0 {
					t.Errorf("%d at a time, %d are left", l.most.Load(), l.now.Load())
				}
				if running, waiting, _ := client.named[reg].turns.all.Figures(); running != 0 || waiting != 0 {
					t.Errorf("%d turns are not given back, %d wait", running, waiting)
				}
			})
		})
	}
}

func TestShortRequestsAreBoundedToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, l := loaded(t, 0)
		l.header = make(chan struct{})
		var all sync.WaitGroup
		for i := range 600 {
			all.Go(func() {
				ctx := oci.Caller{Client: fmt.Sprint(i % 10)}.Into(t.Context())
				if _, err := client.Stat(ctx, hello(reg), i%2 == 0, nil); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := l.now.Load(); n != DefaultRequests {
			t.Errorf("%d at a time", n)
		}
		close(l.header)
		all.Wait()
	})
}

func TestAnotherClientDoesNotWaitForAGreedyOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, l := loaded(t, 0)
		var all sync.WaitGroup
		var greedy, other atomic.Int64
		download(t, client, "greedy", 600, &all, &greedy)
		before := l.now.Load()
		download(t, client, "other", 2, &all, &other)
		if n := l.now.Load() - before; n != 2 {
			t.Errorf("%d of the other client's began", n)
		}
		close(l.done)
		all.Wait()
	})
}

// Who gets no turn is told so in time, and what for.
func TestNoTurnIsAnErrorThatNamesTheRegistry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client, l := loaded(t, 2)
		var all sync.WaitGroup
		var came atomic.Int64
		download(t, client, "a", 1, &all, &came)
		start := time.Now()
		_, err := opened(t.Context(), client, hello(reg))
		e := wantError(t, err, oci.Busy, "raise upstream_requests")
		if took := time.Since(start); took != turnWithin || e.Registry != reg || e.RetryAfter != busyRetry || !e.Passing() {
			t.Errorf("%v after %s", e, took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		all.Go(func() {
			if _, err := opened(ctx, client, hello(reg)); !errors.Is(err, context.Canceled) {
				t.Errorf("%v, want the caller's own end", err)
			}
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(l.done)
		all.Wait()
	})
}

// All registries that nobody configured share a bound, and a client has no more than its
// part of it.
func TestStrangersShareABound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, l := newClient(t), &load{done: make(chan struct{})}
		var all sync.WaitGroup
		for i := range 40 {
			host := fmt.Sprintf("reg%d.example.com", i)
			r, err := c.registry(host)
			if err != nil {
				t.Fatal(err)
			}
			r.net.own, r.net.elsewhere = tripFunc(l.trip), tripFunc(l.trip)
			for n := range 20 {
				all.Go(func() {
					ref := hello(host)
					if got, err := opened(oci.Caller{Client: fmt.Sprint(n)}.Into(t.Context()), c, ref); err != nil || got != "hello" {
						t.Error(got, err)
					}
				})
			}
		}
		synctest.Wait()
		if n := l.now.Load(); n > strangersRequests || n < strangersRequests*9/10 {
			t.Errorf("%d at a time", n)
		}
		close(l.done)
		all.Wait()
		if running, waiting, _ := c.strangers.turns.Figures(); running != 0 || waiting != 0 {
			t.Errorf("%d turns are not given back, %d wait", running, waiting)
		}
	})
}
