package wait

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A crowd takes and gives back turns. Its clients are numbers.
type crowd struct {
	*Turns[int]
	mu    sync.Mutex
	order []int // whose jobs began, in order
	ends  map[int][]func()
	errs  map[int]int
}

func newCrowd(t *Turns[int]) *crowd {
	return &crowd{Turns: t, ends: map[int][]func(){}, errs: map[int]int{}}
}

// ask asks for a job, and waits until nothing moves any more.
func (c *crowd) ask(ctx context.Context, who int) {
	go func() {
		end, err := c.Begin(ctx, who)
		c.mu.Lock()
		defer c.mu.Unlock()
		if err != nil {
			c.errs[who]++
			return
		}
		c.order = append(c.order, who)
		c.ends[who] = append(c.ends[who], end)
	}()
	synctest.Wait()
}

// finish ends one of a client's jobs.
func (c *crowd) finish(who int) {
	c.mu.Lock()
	end := c.ends[who][0]
	c.ends[who] = c.ends[who][1:]
	c.mu.Unlock()
	end()
	synctest.Wait()
}

func (c *crowd) finishAll() {
	for who, ends := range c.ends {
		for range ends {
			c.finish(who)
		}
	}
}

// has returns how many jobs of a client are under way.
func (c *crowd) has(who int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ends[who])
}

func TestOneGreedyClientStarvesNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewTurns[int](Bounds{Running: 2048, Waiting: 4500}, time.Hour, nil)
		b.most.Running = 50
		c := newCrowd(b)
		greedy := 0
		for range 1000 {
			c.ask(t.Context(), greedy)
		}
		if n := c.has(greedy); n != 40 {
			t.Fatalf("the greedy one alone has %d of 50", n)
		}
		for i := range 5 {
			if c.ask(t.Context(), 1+i); c.has(1+i) != 1 {
				t.Errorf("client %d waits though there is room", 1+i)
			}
		}
		// When many clients hold all turns, a new one comes next, even if others have waited
		// longer.
		for i := range 200 {
			c.ask(t.Context(), 100+i)
		}
		late := 999
		c.ask(t.Context(), late)
		c.order = nil
		for range 200 {
			for who := range c.ends {
				if c.has(who) > 0 {
					c.finish(who)
					break
				}
			}
		}
		seen := map[int]bool{}
		for i, who := range c.order {
			if who == greedy && i < 190 {
				t.Errorf("the greedy one is served as number %d, while others wait for their first", i)
				break
			}
			seen[who] = true
		}
		if !seen[late] {
			t.Errorf("the last of 201 was not served among the first %d", len(c.order))
		}
		for active, queued, _ := c.Figures(); active > 0 || queued > 0; active, queued, _ = c.Figures() {
			c.finishAll()
		}
		if len(b.lines) != 0 || b.fresh.Len() != 0 || b.others.Len() != 0 {
			t.Errorf("%d clients are remembered", len(b.lines))
		}
	})
}

func TestANewClientWaitsForAFewTurnsOnly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewTurns[int](Bounds{Running: 2048, Waiting: 4500}, time.Hour, nil)
		b.most.Running = 10
		c := newCrowd(b)
		greedy, thrifty := 0, 1
		for range 1000 {
			c.ask(t.Context(), greedy)
		}
		for range 3 { // takes what the greedy one may not have, and waits for one more
			c.ask(t.Context(), thrifty)
		}
		if c.has(greedy) != 8 || c.has(thrifty) != 2 {
			t.Fatalf("%d and %d", c.has(greedy), c.has(thrifty))
		}
		c.order = nil
		for range 4 {
			c.finish(greedy)
		}
		for i, who := range c.order {
			if who == thrifty {
				if i > 1 {
					t.Errorf("it came as number %d", i)
				}
				break
			}
			if i == len(c.order)-1 {
				t.Errorf("it did not come among %d", len(c.order))
			}
		}
		c.SetPatience(0)
		for active, queued, _ := c.Figures(); active > 0 || queued > 0; active, queued, _ = c.Figures() {
			c.finishAll()
		}
	})
}

func TestJobsThatWaitTooLongOrLeaveAreWithdrawn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewTurns[int](Bounds{Running: 1, Waiting: 3}, 2*time.Minute, nil)
		c := newCrowd(b)
		first, second, third := 0, 1, 2
		c.ask(t.Context(), first)
		start := time.Now()
		if _, err := b.Begin(t.Context(), second); !errors.Is(err, ErrBusy) || time.Since(start) != 2*time.Minute {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		ctx, leave := context.WithCancel(t.Context())
		c.ask(ctx, second)
		leave()
		synctest.Wait()
		if active, queued, _ := c.Figures(); active != 1 || queued != 0 || len(b.lines) != 1 {
			t.Errorf("%d under way, %d wait, %d clients", active, queued, len(b.lines))
		}
		// The client with the most waiting jobs loses one, not the last one to come.
		for range 3 {
			c.ask(t.Context(), second)
		}
		c.ask(t.Context(), third)
		if c.errs[second] != 2 || c.errs[third] != 0 || b.refused.Load() != 2 {
			t.Errorf("refused: %v, %d in all", c.errs, b.refused.Load())
		}
		c.finish(first)
		c.finish(second)
		if c.has(third) != 1 {
			t.Errorf("began: %v", c.order)
		}
		for active, queued, _ := c.Figures(); active > 0 || queued > 0; active, queued, _ = c.Figures() {
			c.finishAll()
		}
	})
}

// Try takes what is free, and nothing that others wait for.
func TestTryWaitsForNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns := NewTurns[string](Bounds{Running: 5, Waiting: 5}, time.Minute, nil)
		var ends []func()
		for end, ok := turns.Try("greedy"); ok; end, ok = turns.Try("greedy") {
			ends = append(ends, end)
		}
		if len(ends) != 4 { // as many as a client may have that is alone
			t.Fatalf("%d turns of 5", len(ends))
		}
		last, ok := turns.Try("other")
		if _, more := turns.Try("third"); !ok || more {
			t.Errorf("the last turn: %t, one more: %t", ok, more)
		}
		var begun atomic.Bool
		go func() {
			end, err := turns.Begin(t.Context(), "waiting")
			if err != nil {
				t.Error(err)
				return
			}
			begun.Store(true)
			end()
		}()
		synctest.Wait()
		ends[0]()
		ends[0]() // is given back once
		synctest.Wait()
		if !begun.Load() {
			t.Error("who waited did not get the turn")
		}
		for _, end := range append(ends, last) {
			end()
		}
		if running, waiting, refused := turns.Figures(); running != 0 || waiting != 0 || refused != 0 {
			t.Errorf("%d run, %d wait, %d refused", running, waiting, refused)
		}
	})
}
