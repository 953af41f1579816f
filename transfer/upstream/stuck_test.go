package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/oci"
)

// A holeable place answers until its connections become holes: what is sent over them is
// taken and never answered, as by a NAT gateway that has restarted (distribution#4723).
// New connections answer.
type holeable struct {
	mu    sync.Mutex
	holes []*atomic.Bool
	hold  chan struct{} // no answer is sent before it is closed
}

// dial makes a connection.
func (h *holeable) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	conn, err := greets(ctx, to)
	hole := new(atomic.Bool)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.holes = append(h.holes, hole)
	return &holed{Conn: conn, hole: hole, hold: h.hold, closed: make(chan struct{})}, err
}

// lose makes holes of all connections there are.
func (h *holeable) lose() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, hole := range h.holes {
		hole.Store(true)
	}
}

// A holed connection is one of a holeable place.
type holed struct {
	net.Conn
	hole   *atomic.Bool
	hold   chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (c *holed) Write(p []byte) (int, error) {
	if c.hole.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *holed) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	select {
	case <-c.hold:
	case <-c.closed:
	}
	return n, err
}

func (c *holed) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func (c *holed) RemoteAddr() net.Addr { return c.Conn.RemoteAddr() }

// TestConnectionsThatWereLostUnnoticed: whatever is asked next succeeds, however many idle
// connections there are, and one answer in vain is waited for at most.
func TestConnectionsThatWereLostUnnoticed(t *testing.T) {
	t.Parallel()
	tagged := oci.Ref{Registry: "reg.example.com", Repository: "team/app", Tag: "v1"}
	for name, c := range map[string]struct {
		ask  func(*testing.T, *Client)
		most time.Duration
	}{
		"a blob": {func(t *testing.T, c *Client) { wantHello(t, c, "reg.example.com") }, headerTimeout + time.Second},
		"a HEAD, then a GET": {func(t *testing.T, c *Client) {
			// "hello" is no manifest: that a GET was answered is what counts.
			_, err := c.Stat(t.Context(), tagged, false, nil)
			wantError(t, err, oci.Corrupt, "not a manifest")
		}, headTimeout + time.Second},
		"many at once": {func(t *testing.T, c *Client) {
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					if got, err := opened(t.Context(), c, hello("reg.example.com")); err != nil || got != "hello" {
						t.Errorf("%q, %v", got, err)
					}
				})
			}
			all.Wait()
		}, headerTimeout + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				place := &holeable{hold: make(chan struct{})}
				n := &terrain{names: means("8.8.8.8"), places: place.dial}
				client := onTerrain(t, n, Registry{Insecure: true})
				var all sync.WaitGroup
				for range 12 {
					all.Go(func() { _, _ = opened(t.Context(), client, hello("reg.example.com")) })
				}
				synctest.Wait()
				close(place.hold)
				all.Wait()
				if got := n.dials.Load(); got != 12 {
					t.Fatalf("%d connections, want 12 idle ones", got)
				}
				place.lose()
				start := time.Now()
				c.ask(t, client)
				if took := time.Since(start); took > c.most {
					t.Errorf("it took %v, want %v at most", took, c.most)
				}
				client.Close()
			})
		})
	}
}

// TestWhatCountsAsSilence: who goes says nothing about the connections.
func TestWhatCountsAsSilence(t *testing.T) {
	t.Parallel()
	ended := func(why error) context.Context {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(why)
		return ctx
	}
	gone, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		err  error
		want bool
	}{
		"no header came":         {t.Context(), timeoutError{}, true},
		"the try is over":        {ended(errTry), context.Canceled, true},
		"all time is over":       {ended(errLate), context.Canceled, true},
		"the caller went":        {ended(nil), context.Canceled, false},
		"the caller's deadline":  {gone, context.DeadlineExceeded, false},
		"the connection broke":   {t.Context(), io.ErrUnexpectedEOF, false},
		"the answer is no HTTP":  {t.Context(), errors.New("malformed HTTP response"), false},
		"nobody waited for this": {ended(errUnreached), timeoutError{}, false},
	} {
		if got := wasSilent(c.ctx, c.err); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
