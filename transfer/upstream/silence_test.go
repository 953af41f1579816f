package upstream

import (
	"context"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/oci"
)

// connectedTo tells a request's trace that there is a connection.
func connectedTo(r *http.Request) {
	here, there := net.Pipe()
	_ = there.Close()
	httptrace.ContextClientTrace(r.Context()).GotConn(httptrace.GotConnInfo{Conn: located{here, "8.8.8.8:443"}, Reused: true})
}

// hangs takes the request and never answers.
func hangs(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, context.Cause(r.Context())
}

// A registry that takes requests and does not answer costs a few of them their time. Then one
// at a time sees whether it answers again, and the others fail at once.
func TestARegistryThatIsSilentIsAskedByOneAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var under, most, asked atomic.Int32
		var silent atomic.Bool
		silent.Store(true)
		c := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
			asked.Add(1)
			most.Store(max(most.Load(), under.Add(1)))
			defer under.Add(-1)
			connectedTo(r)
			if silent.Load() {
				return hangs(r)
			}
			return reply(200, "hello"), nil
		})
		for range 3 {
			_, err := opened(t.Context(), c, hello("reg.example.com"))
			wantError(t, err, oci.Timeout, "no answer")
		}
		asked.Store(0)
		most.Store(0)
		var all sync.WaitGroup
		var quick atomic.Int32
		for range 20 {
			all.Go(func() {
				began := time.Now()
				_, err := opened(t.Context(), c, hello("reg.example.com"))
				wantError(t, err, oci.Timeout, "no answer")
				if time.Since(began) < time.Second {
					quick.Add(1)
				}
			})
		}
		all.Wait()
		if most.Load() != 1 || quick.Load() < 19 {
			t.Errorf("%d requests at a time, %d of 20 failed at once; want 1 and 19", most.Load(), quick.Load())
		}
		if s := c.Standings(); s[0].State != Down || s[0].LastError == "" {
			t.Errorf("it stands as %+v", s[0])
		}
		silent.Store(false)
		for range 20 {
			all.Go(func() { _, _ = opened(t.Context(), c, hello("reg.example.com")) })
		}
		all.Wait()
		wantHello(t, c, "reg.example.com")
		if s := c.Standings(); s[0].State != Up {
			t.Errorf("it stands as %+v", s[0])
		}
	})
}

// Many requests that wait in vain at the same time do not make a place silent that answers
// others meanwhile.
func TestAPlaceThatAnswersOthersIsNotSilent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
			connectedTo(r)
			if strings.Contains(r.URL.Path, "/stuck/") {
				return hangs(r)
			}
			<-time.After(100 * time.Millisecond) // in the bubble's time
			return reply(200, "hello"), nil
		})
		stuck := hello("reg.example.com")
		stuck.Repository = "stuck/app"
		var all sync.WaitGroup
		for range 2 * silentAfter {
			all.Go(func() {
				_, err := opened(t.Context(), c, stuck)
				wantError(t, err, oci.Timeout, "no answer")
			})
		}
		for range 500 { // as long as those wait, and after
			time.Sleep(100 * time.Millisecond) // in the bubble's time
			for range 3 {
				all.Go(func() {
					if got, err := opened(t.Context(), c, hello("reg.example.com")); err != nil || got != "hello" {
						t.Errorf("%q, %v", got, err)
					}
				})
			}
		}
		all.Wait()
		if s := c.Standings(); s[0].State != Up {
			t.Errorf("it stands as %+v", s[0])
		}
	})
}

// What answers now and then is not silent, and neither is what says 503, sends a slow body, or
// whose clients leave.
func TestWhatIsNotSilent(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(n int32, r *http.Request) (*http.Response, error){
		"every third hangs": func(n int32, r *http.Request) (*http.Response, error) {
			if n%3 != 0 {
				return hangs(r)
			}
			return reply(404, "", "Docker-Distribution-Api-Version", "registry/2.0"), nil
		},
		"503": func(int32, *http.Request) (*http.Response, error) { return reply(503, ""), nil },
		"a reset": func(_ int32, r *http.Request) (*http.Response, error) {
			return nil, &net.OpError{Op: "read", Err: net.ErrClosed}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var n atomic.Int32
				c := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
					connectedTo(r)
					return answer(n.Add(1), r)
				})
				for range 6 {
					before := n.Load()
					if _, err := opened(t.Context(), c, hello("reg.example.com")); err == nil || n.Load() == before {
						t.Errorf("no request was sent, %v", err)
					}
				}
			})
		})
	}
	t.Run("clients that leave", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var n atomic.Int32
			c := faked(t, Registry{FollowRedirects: true}, func(r *http.Request) (*http.Response, error) {
				n.Add(1)
				connectedTo(r)
				return hangs(r)
			})
			for i := range int32(6) {
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(7*time.Second, cancel)
				if _, err := opened(ctx, c, hello("reg.example.com")); err == nil || n.Load() != i+1 {
					t.Errorf("%d requests were sent, %v", n.Load(), err)
				}
			}
		})
	})
}
