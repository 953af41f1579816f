package wait

import (
	"container/list"
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"time"
)

// ErrFull says that others hold the bytes of a [Budget] that were asked for.
var ErrFull = errors.New("the memory for answers on their way is in use by others: try again in a few seconds")

// ErrTooLarge says that a claim would be larger than any claim on its [Budget] may be.
var ErrTooLarge = errors.New("the answer is larger than the memory for any one answer")

// A Budget is a number of bytes that many pieces of work share. When others hold
// the bytes that a claim needs, it waits for its turn: claims that hold some
// already go first, because they end sooner, then the others in the order in
// which they came.
//
// Claims that grow while they wait for each other could wait for ever. So half of
// the bytes are spare: one claim at a time, the favoured one, may use them. It
// always gets what it needs, ends, and the next one is favoured.
type Budget struct {
	most     int64 // bytes in all, half of them spare
	crowd    int   // claims that wait, at most
	patience time.Duration

	mu       sync.Mutex // guards the fields below and held of every claim; never held during I/O
	used     int64
	growing  list.List // of *want: claims that hold some bytes
	fresh    list.List // of *want: claims that hold none
	favoured *Claim
}

// Memory returns how many bytes of memory one Budget is to have: an eighth of what this process
// may use (GOMEMLIMIT), but least at least, and most at most.
func Memory(least, most int64) int64 { return min(max(debug.SetMemoryLimit(-1)/8, least), most) }

// NewBudget returns a Budget of that many bytes. A claim may hold half of them.
// At most crowd claims wait at a time, each for patience at most.
func NewBudget(bytes int64, crowd int, patience time.Duration) *Budget {
	return &Budget{most: bytes, crowd: crowd, patience: patience}
}

// Used returns how many bytes are held, and how many claims wait.
func (b *Budget) Used() (bytes int64, waiting int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used, b.growing.Len() + b.fresh.Len()
}

// Largest returns how many bytes a claim may hold.
func (b *Budget) Largest() int64 { return b.most / 2 }

// Claim returns a Claim that holds nothing yet. Release it.
func (b *Budget) Claim() *Claim { return &Claim{budget: b} }

// A Claim is what one piece of work holds of a Budget. Its methods belong to one
// goroutine at a time.
type Claim struct {
	budget *Budget
	held   int64
}

// A want is a claim that waits for n more bytes.
type want struct {
	claim *Claim
	n     int64
	ready chan struct{} // closed when it has them
}

// Grow adds n bytes to what the claim holds, once there are so many. It fails with
// ErrFull if that takes too long or too many wait, with ErrTooLarge if the claim
// would be larger than any may be, and with ctx's cause. The claim then holds what
// it held before.
func (c *Claim) Grow(ctx context.Context, n int64) error {
	if n <= 0 {
		return nil
	}
	w, in, err := c.budget.ask(c, n)
	if w == nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.budget.patience, ErrFull)
	defer cancel()
	if err := Until(ctx, w.ready, 0); err != nil && c.budget.withdraw(in, w) {
		return err
	}
	return nil
}

// Shrink gives back what the claim holds over n bytes.
func (c *Claim) Shrink(n int64) {
	b := c.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	if over := c.held - max(n, 0); over > 0 {
		c.held -= over
		b.used -= over
		b.serve()
	}
}

// Release gives back all that the claim holds.
func (c *Claim) Release() { c.Shrink(0) }

// ask gives a claim n more bytes, or puts it in a queue, or refuses it.
func (b *Budget) ask(c *Claim, n int64) (w *want, in *list.List, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > b.most/2-c.held {
		return nil, nil, ErrTooLarge
	}
	in = &b.fresh
	if c.held > 0 {
		in = &b.growing
	}
	w = &want{claim: c, n: n, ready: make(chan struct{})}
	place := in.PushBack(w)
	if c == b.favoured {
		in.MoveToFront(place)
	}
	b.serve()
	select {
	case <-w.ready:
		return nil, nil, nil
	default:
	}
	if b.growing.Len()+b.fresh.Len() > b.crowd {
		in.Remove(place)
		return nil, nil, ErrFull
	}
	return w, in, nil
}

// withdraw takes a want back. It reports false if the want was served before.
func (b *Budget) withdraw(in *list.List, w *want) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for e := in.Front(); e != nil; e = e.Next() {
		if e.Value == w {
			in.Remove(e)
			b.serve() // it may have been in the way of others
			return true
		}
	}
	return false
}

// The caller of the methods below holds mu.

// serve gives bytes to those whose turn it is.
func (b *Budget) serve() {
	for {
		if b.used <= b.most/2 {
			b.favoured = nil
		}
		in := &b.growing
		if in.Len() == 0 {
			in = &b.fresh
		}
		first := in.Front()
		if first == nil || !b.give(first.Value.(*want)) {
			return
		}
		in.Remove(first)
	}
}

// give gives a want its bytes if there are so many for it.
func (b *Budget) give(w *want) bool {
	if b.used+w.n > b.most/2 {
		if b.favoured != nil && b.favoured != w.claim {
			return false
		}
		b.favoured = w.claim
	}
	b.used += w.n
	w.claim.held += w.n
	close(w.ready)
	return true
}
