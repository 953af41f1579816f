package peer

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A narrow conn is one over a path that swallows large packets: what is written in one
// piece that does not fit is lost, and the other end waits for ever.
type narrow struct {
	net.Conn
	fits      int
	in        bool // what comes is lost; else what goes
	done      chan struct{}
	closeOnce sync.Once
}

func (n *narrow) Write(b []byte) (int, error) {
	if !n.in && len(b) > n.fits {
		return len(b), nil
	}
	return n.Conn.Write(b)
}

func (n *narrow) Read(b []byte) (int, error) {
	got, err := n.Conn.Read(b)
	if n.in && got > n.fits {
		<-n.done
		return 0, net.ErrClosed
	}
	return got, err
}

func (n *narrow) Close() error {
	n.closeOnce.Do(func() { close(n.done) })
	return n.Conn.Close()
}

// If large packets get lost, a member does not count as one that answers, though what is
// small arrives: blobs would not.
func TestAMemberThatLargePacketsDoNotReachDoesNotAnswer(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]bool{"what goes is lost": false, "what comes is lost": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(c *Client, w *cable, _ *members) {
				var wide atomic.Bool
				c.links.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
					conn, err := w.dial(ctx, network, addr)
					if err != nil || wide.Load() {
						return conn, err
					}
					return &narrow{Conn: conn, fits: 1460, in: in, done: make(chan struct{})}, nil
				}
				ctx, cancel := context.WithTimeoutCause(context.Background(), 5*time.Second, errLate)
				defer cancel()
				if _, err := c.Stats(ctx, "b"); err == nil {
					t.Fatal("it answered")
				}
				c.Peer("b").Fault(errLate)
				for range strikes {
					c.Peer("b").Fault(errLate)
				}
				if c.Healthy("b") {
					t.Fatal("it is not quarantined")
				}
				time.Sleep(2 * time.Minute) // in the bubble
				if c.Healthy("b") {
					t.Error("a ping that is small was enough")
				}
				wide.Store(true)
				time.Sleep(time.Minute) // in the bubble
				synctest.Wait()
				if !c.Healthy("b") {
					t.Error("it is still quarantined")
				}
			})
		})
	}
}
