package gate

import (
	"container/list"
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// ErrBusy says that a pull was refused because of others.
var ErrBusy = errors.New("the node is at its limits and has no turn for this pull: try again later")

// share is how many times as much as is free a client may hold: a client alone
// holds 4/5 of all turns, so that the next client finds room at once.
const share = 4

// A Client is whom a pull is for: a user and an address together, since many
// machines may share one or the other.
type Client struct {
	user string // "" for none
	from netip.Prefix
}

// turns let a bounded number of pulls run. When all turns are taken, pulls wait:
// clients that have none running come first, then the others in turn. A client
// that asks for a thousand at once only delays itself.
type turns struct {
	most     Limits
	patience time.Duration
	reserve  func(more int) // is told how many more pulls run; not under mu
	refused  atomic.Int64

	mu      sync.Mutex // guards the fields below and every line; never held during I/O
	active  int        // pulls that run
	waiting int        // pulls that wait
	lines   map[Client]*line
	fresh   list.List // of *line: pulls wait and none runs
	others  list.List // of *line: pulls wait and some run
}

// A line is one client's pulls.
type line struct {
	client Client
	active int
	queue  list.List     // of *waiter
	in     *list.List    // fresh, others or nil
	place  *list.Element // in it
}

// A waiter is a pull that waits.
type waiter struct {
	ready   chan struct{} // closed when it may run, or is refused
	refused bool          // set before ready is closed
}

func newTurns(most Limits, patience time.Duration, reserve func(more int)) *turns {
	return &turns{most: most, patience: patience, reserve: reserve, lines: map[Client]*line{}}
}

// begin waits for a pull's turn. The caller calls end when the pull is answered.
func (t *turns) begin(ctx context.Context, who Client) (end func(), err error) {
	l, w := t.join(who)
	if err := t.wait(ctx, l, w); err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { t.end(l) }), nil
}

// join adds a pull to its client's line, and lets run what may run.
func (t *turns) join(who Client) (*line, *waiter) {
	w := &waiter{ready: make(chan struct{})}
	t.mu.Lock()
	l := t.lines[who]
	if l == nil {
		l = &line{client: who}
		t.lines[who] = l
	}
	l.queue.PushBack(w)
	t.waiting++
	t.file(l)
	begun := t.dispatch()
	if t.waiting > t.most.Waiting {
		t.refuseOne()
	}
	t.mu.Unlock()
	t.run(begun, len(begun))
	return l, w
}

// run begins pulls once there are descriptors for them; more is how many more
// pulls run than before.
func (t *turns) run(begun []*waiter, more int) {
	if more != 0 {
		t.reserve(more)
	}
	for _, w := range begun {
		close(w.ready)
	}
}

// wait waits until w is ready.
func (t *turns) wait(ctx context.Context, l *line, w *waiter) error {
	select {
	case <-w.ready: // most never wait
	default:
		if err := t.waitFor(ctx, w.ready); err != nil && t.withdraw(l, w) {
			return t.refusal(err)
		}
		<-w.ready // at the latest when withdraw came too late
	}
	if w.refused {
		return t.refusal(ErrBusy)
	}
	return nil
}

// waitFor waits for a turn as long as patience lasts.
func (t *turns) waitFor(ctx context.Context, ready <-chan struct{}) error {
	ctx, cancel := context.WithTimeoutCause(ctx, t.patience, ErrBusy)
	defer cancel()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// refusal counts pulls that got no turn.
func (t *turns) refusal(err error) error {
	if errors.Is(err, ErrBusy) {
		t.refused.Add(1)
	}
	return err
}

// withdraw takes a waiter back. It reports false if the waiter left the line
// before.
func (t *turns) withdraw(l *line, w *waiter) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for e := l.queue.Front(); e != nil; e = e.Next() {
		if e.Value == w {
			l.queue.Remove(e)
			t.waiting--
			t.file(l)
			return true
		}
	}
	return false
}

// end gives a pull's turn to the next.
func (t *turns) end(l *line) {
	t.mu.Lock()
	t.active--
	l.active--
	t.file(l)
	begun := t.dispatch()
	t.mu.Unlock()
	t.run(begun, len(begun)-1)
}

// figures are how many pulls run and how many wait.
func (t *turns) figures() (active, waiting int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.active, t.waiting
}

// The caller of the methods below holds mu.

// file puts a line where its turn is looked for: nowhere if nothing waits.
func (t *turns) file(l *line) {
	var in *list.List
	switch {
	case l.queue.Len() == 0:
		if l.active == 0 {
			delete(t.lines, l.client)
		}
	case l.active == 0:
		in = &t.fresh
	default:
		in = &t.others
	}
	if in == l.in {
		return
	}
	if l.in != nil {
		l.in.Remove(l.place)
	}
	if l.in = in; in != nil {
		l.place = in.PushBack(l)
	}
}

// dispatch takes out of the lines what may run now.
func (t *turns) dispatch() (begun []*waiter) {
	for t.active < t.most.Pulls {
		l := t.next()
		if l == nil {
			break
		}
		begun = append(begun, l.queue.Remove(l.queue.Front()).(*waiter))
		t.waiting--
		t.active++
		l.active++
		if l.in == &t.others {
			t.others.MoveToBack(l.place)
		}
		t.file(l)
	}
	return begun
}

// next is the line whose turn it is, nil if there is none.
func (t *turns) next() *line {
	if e := t.fresh.Front(); e != nil {
		return e.Value.(*line)
	}
	for e := t.others.Front(); e != nil; e = e.Next() {
		if l := e.Value.(*line); l.active < share*(t.most.Pulls-t.active) {
			return l
		}
	}
	return nil
}

// refuseOne refuses the last pull of the longest line.
func (t *turns) refuseOne() {
	var longest *line
	for _, in := range []*list.List{&t.others, &t.fresh} {
		for e := in.Front(); e != nil; e = e.Next() {
			if l := e.Value.(*line); longest == nil || l.queue.Len() > longest.queue.Len() {
				longest = l
			}
		}
	}
	w := longest.queue.Remove(longest.queue.Back()).(*waiter)
	t.waiting--
	t.file(longest)
	w.refused = true
	close(w.ready)
}
