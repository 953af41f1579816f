package flight

import (
	"context"
	"sync"
	"time"

	"oci-proxy/transfer/wait"
)

// seatTime bounds how long a member that was sent here waits until this node has heard
// where it sits itself: both answers may have been given at once.
const seatTime = 2 * time.Second

// A chair is where a flight sits in the tree by which its blob spreads (transfer/feed). The
// members that it feeds follow it by its seat. The zero value has none.
type chair struct {
	mu      sync.Mutex // guards the fields below; never held during I/O
	seat    string
	left    chan struct{} // closed when the seat is given up
	asking  bool          // the root is asked for one
	settled chan struct{} // closed when it has answered
}

// ask notes that the root is asked, and returns the seat of the moment.
func (c *chair) ask() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.asking {
		c.asking, c.settled = true, make(chan struct{})
	}
	return c.seat
}

// sit takes a seat, "" for none. Whoever follows by another is to leave.
func (c *chair) sit(seat string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asking {
		c.asking = false
		close(c.settled)
	}
	if seat == c.seat {
		return
	}
	if c.left != nil {
		close(c.left)
		c.left = nil
	}
	if c.seat = seat; seat != "" {
		c.left = make(chan struct{})
	}
}

// has reports whether the flight sits there. left is closed when it does no more.
func (c *chair) has(seat string) (left <-chan struct{}, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.left, seat != "" && c.seat == seat
}

// taken reports whether the flight has a seat.
func (c *chair) taken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seat != ""
}

// await waits while the flight might yet sit there.
func (c *chair) await(ctx context.Context, seat string) {
	c.mu.Lock()
	asking, settled := c.asking && c.seat != seat, c.settled
	c.mu.Unlock()
	if asking {
		_ = wait.Until(ctx, settled, seatTime) // whoever asks next sees how it is
	}
}

// AwaitSeat waits, for 2 s at most, until it is known whether the flight under way may feed
// the member whose ticket it is.
func AwaitSeat(ctx context.Context, f *Flights, t *Ticket) {
	if fl := f.at(flightKey{t.Content(), false}); fl != nil {
		fl.chair.await(ctx, t.Terms.Feed.By)
	}
}

// sits reports whether the ticket is that of a member which this flight feeds.
func (t *Ticket) sits(fl *Flight) bool {
	left, ok := fl.chair.has(t.Terms.Feed.By)
	if ok {
		t.left = left
	}
	return ok
}

// Left is closed when the flight that was boarded gives up the seat by which it feeds the
// ticket's member: then the member has to go. It is nil for all other tickets.
func (t *Ticket) Left() <-chan struct{} { return t.left }
