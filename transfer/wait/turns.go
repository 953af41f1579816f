package wait

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// ErrBusy ends a wait for a turn that lasts too long, or among too many.
var ErrBusy = errors.New("no turn: too many others wait or run")

// fairness is how many times as much as is free a client may hold: a client alone
// holds 4/5 of all turns, so that the next client finds room at once.
const fairness = 4

// Turns let a bounded number of jobs run. When all turns are taken, jobs wait:
// clients that have none running come first, then the others in turn. A client
// that asks for a thousand at once only delays itself.
type Turns[C comparable] struct {
	most     Bounds
	patience atomic.Int64   // a time.Duration
	reserve  func(more int) // is told how many more jobs run; not under mu
	refused  atomic.Int64

	mu      sync.Mutex // guards the fields below and every line; never held during I/O
	active  int        // jobs that run
	waiting int        // jobs that wait
	lines   map[C]*line[C]
	spare   *line[C]  // one that nobody uses: a client alone gets one anew for each job
	fresh   list.List // of *line: jobs wait and none runs
	others  list.List // of *line: jobs wait and some run
}

// Bounds are how many jobs may run at a time, and how many more may wait.
type Bounds struct{ Running, Waiting int }

// A line is one client's jobs.
type line[C comparable] struct {
	client C
	active int
	queue  list.List     // of *waiter
	in     *list.List    // fresh, others or nil
	place  *list.Element // in it
}

// A waiter is a job that waits.
type waiter struct {
	ready   chan struct{} // closed when it may run, or is refused
	refused bool          // set before ready is closed
}

// NewTurns returns turns that a job waits for as long as patience lasts. reserve is
// told how many more jobs run than before, fewer if it is negative, before they
// begin; nil for nobody.
func NewTurns[C comparable](most Bounds, patience time.Duration, reserve func(more int)) *Turns[C] {
	if reserve == nil {
		reserve = func(int) {}
	}
	t := &Turns[C]{most: most, reserve: reserve, lines: map[C]*line[C]{}}
	t.SetPatience(patience)
	return t
}

// SetPatience changes how long jobs wait that come from now on.
func (t *Turns[C]) SetPatience(d time.Duration) { t.patience.Store(int64(d)) }

// Begin waits for a job's turn. The caller calls end when the job is done. The error
// is ErrBusy, or the cause of ctx's end.
func (t *Turns[C]) Begin(ctx context.Context, who C) (end func(), err error) {
	if end, ok := t.Try(who); ok { // most never wait
		return end, nil
	}
	l, w := t.join(who)
	if err := t.wait(ctx, l, w); err != nil {
		return nil, err
	}
	return (&turn[C]{turns: t, line: l}).end, nil
}

// Try begins a job at once if a turn is free for it and nobody waits for one. It reports
// false otherwise. The caller calls end when the job is done.
func (t *Turns[C]) Try(who C) (end func(), ok bool) {
	l := t.seize(who)
	if l == nil {
		return nil, false
	}
	t.reserve(1)
	return (&turn[C]{turns: t, line: l}).end, true
}

// A turn is a job that runs.
type turn[C comparable] struct {
	turns *Turns[C]
	line  *line[C]
	ended atomic.Bool
}

// end ends the job, if it has not ended.
func (t *turn[C]) end() {
	if t.ended.CompareAndSwap(false, true) {
		t.turns.end(t.line)
	}
}

// seize takes a turn that is free, and returns the line of the job that has it now.
func (t *Turns[C]) seize(who C) *line[C] {
	t.mu.Lock()
	defer t.mu.Unlock()
	free := t.most.Running - t.active
	l := t.lines[who]
	if t.waiting > 0 || free <= 0 || l != nil && l.active >= fairness*free {
		return nil
	}
	if l == nil {
		l = t.newLine(who)
	}
	t.active++
	l.active++
	return l
}

// join adds a job to its client's line, and lets run what may run.
func (t *Turns[C]) join(who C) (*line[C], *waiter) {
	w := &waiter{ready: make(chan struct{})}
	t.mu.Lock()
	l := t.lines[who]
	if l == nil {
		l = t.newLine(who)
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

// run begins jobs once reserve knows of them; more is how many more
// jobs run than before.
func (t *Turns[C]) run(begun []*waiter, more int) {
	if more != 0 {
		t.reserve(more)
	}
	for _, w := range begun {
		close(w.ready)
	}
}

// wait waits until w is ready.
func (t *Turns[C]) wait(ctx context.Context, l *line[C], w *waiter) error {
	select {
	case <-w.ready:
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
func (t *Turns[C]) waitFor(ctx context.Context, ready <-chan struct{}) error {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(t.patience.Load()), ErrBusy)
	defer cancel()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// refusal counts jobs that got no turn.
func (t *Turns[C]) refusal(err error) error {
	if errors.Is(err, ErrBusy) {
		t.refused.Add(1)
	}
	return err
}

// withdraw takes a waiter back. It reports false if the waiter left the line
// before.
func (t *Turns[C]) withdraw(l *line[C], w *waiter) bool {
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

// end gives a job's turn to the next.
func (t *Turns[C]) end(l *line[C]) {
	t.mu.Lock()
	t.active--
	l.active--
	t.file(l)
	begun := t.dispatch()
	t.mu.Unlock()
	t.run(begun, len(begun)-1)
}

// Figures returns how many jobs run and wait now, and how many got no turn so far.
func (t *Turns[C]) Figures() (running, waiting int, refused int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.active, t.waiting, t.refused.Load()
}

// The caller of the methods below holds mu.

// newLine returns a line for a client that has none.
func (t *Turns[C]) newLine(who C) *line[C] {
	l := t.spare
	if l == nil {
		l = &line[C]{}
	}
	t.spare = nil
	l.client = who
	t.lines[who] = l
	return l
}

// file puts a line where its turn is looked for: nowhere if nothing waits.
func (t *Turns[C]) file(l *line[C]) {
	var in *list.List
	switch {
	case l.queue.Len() == 0:
		if l.active == 0 {
			delete(t.lines, l.client)
			t.spare = l
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
func (t *Turns[C]) dispatch() (begun []*waiter) {
	for t.active < t.most.Running {
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
func (t *Turns[C]) next() *line[C] {
	if e := t.fresh.Front(); e != nil {
		return e.Value.(*line[C])
	}
	for e := t.others.Front(); e != nil; e = e.Next() {
		if l := e.Value.(*line[C]); l.active < fairness*(t.most.Running-t.active) {
			return l
		}
	}
	return nil
}

// refuseOne refuses the last job of the longest line.
func (t *Turns[C]) refuseOne() {
	var longest *line[C]
	for _, in := range []*list.List{&t.others, &t.fresh} {
		for e := in.Front(); e != nil; e = e.Next() {
			if l := e.Value.(*line[C]); longest == nil || l.queue.Len() > longest.queue.Len() {
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
