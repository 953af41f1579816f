package gate

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// someone returns the client of that number.
func someone(i int) Client {
	return Client{from: network(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))}
}

// A crowd takes and gives back turns.
type crowd struct {
	*turns
	mu    sync.Mutex
	order []Client // whose pulls began, in order
	ends  map[Client][]func()
	errs  map[Client]int
}

func newCrowd(t *turns) *crowd {
	return &crowd{turns: t, ends: map[Client][]func(){}, errs: map[Client]int{}}
}

// ask asks for a pull, and waits until nothing moves any more.
func (c *crowd) ask(ctx context.Context, who Client) {
	go func() {
		end, err := c.begin(ctx, who)
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

// finish ends one of a client's pulls.
func (c *crowd) finish(who Client) {
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

// has returns how many pulls of a client are under way.
func (c *crowd) has(who Client) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ends[who])
}

func TestOneGreedyClientStarvesNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newTurns(limitsOf(20000), time.Hour, func(int) {})
		b.most.Pulls = 50
		c := newCrowd(b)
		greedy := someone(0)
		for range 1000 {
			c.ask(t.Context(), greedy)
		}
		if n := c.has(greedy); n != 40 {
			t.Fatalf("the greedy one alone has %d of 50", n)
		}
		for i := range 5 {
			if c.ask(t.Context(), someone(1+i)); c.has(someone(1+i)) != 1 {
				t.Errorf("client %d waits though there is room", 1+i)
			}
		}
		// When many clients hold all turns, a new one comes next, even if others have waited
		// longer.
		for i := range 200 {
			c.ask(t.Context(), someone(100+i))
		}
		late := someone(999)
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
		seen := map[Client]bool{}
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
		for active, queued := c.figures(); active > 0 || queued > 0; active, queued = c.figures() {
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
		b := newTurns(limitsOf(20000), time.Hour, func(int) {})
		b.most.Pulls = 10
		c := newCrowd(b)
		greedy, thrifty := someone(0), someone(1)
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
		c.turns.patience = 0
		for active, queued := c.figures(); active > 0 || queued > 0; active, queued = c.figures() {
			c.finishAll()
		}
	})
}

func TestPullsThatWaitTooLongOrLeaveAreWithdrawn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newTurns(limitsOf(20000), 2*time.Minute, func(int) {})
		b.most.Pulls, b.most.Waiting = 1, 3
		c := newCrowd(b)
		first, second, third := someone(0), someone(1), someone(2)
		c.ask(t.Context(), first)
		start := time.Now()
		if _, err := b.begin(t.Context(), second); !errors.Is(err, ErrBusy) || time.Since(start) != 2*time.Minute {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		ctx, leave := context.WithCancel(t.Context())
		c.ask(ctx, second)
		leave()
		synctest.Wait()
		if active, queued := c.figures(); active != 1 || queued != 0 || len(b.lines) != 1 {
			t.Errorf("%d under way, %d wait, %d clients", active, queued, len(b.lines))
		}
		// The client with the most waiting pulls loses one, not the last one to come.
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
		for active, queued := c.figures(); active > 0 || queued > 0; active, queued = c.figures() {
			c.finishAll()
		}
	})
}

func TestLimitsOfOpenFiles(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ open, files, pulls, waiting int }{
		{64, 32, 4, 8},
		{1024, 896, 112, 224},
		{20000, 18000, 2048, 4500},
		{1 << 20, 32768, 2048, 8192},
	} {
		l := limitsOf(c.open)
		if want := (Limits{c.files, c.pulls, c.waiting}); l != want {
			t.Errorf("of %d: %+v, want %+v", c.open, l, want)
		}
		if most := l.Pulls*(1+filesPerPull) + l.Waiting; most > l.Files {
			t.Errorf("of %d: pulls that run and wait use %d of %d", c.open, most, l.Files)
		}
	}
	if n := openFiles(); n < 64 {
		t.Errorf("%d open files", n)
	}
}

// Descriptors are reserved before a pull begins, and every one is given back.
func TestDescriptorsAreReservedForPulls(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		conns := newConnections(Limits{Files: 100})
		c := newCrowd(newTurns(Limits{Files: 100, Pulls: 5, Waiting: 20}, time.Hour, conns.reserve))
		for i := range 12 {
			c.ask(t.Context(), someone(i))
		}
		if n := conns.pulls.Load(); n != 5 {
			t.Errorf("descriptors for %d pulls, want 5", n)
		}
		for active, queued := c.figures(); active > 0 || queued > 0; active, queued = c.figures() {
			c.finishAll()
		}
		if n := conns.pulls.Load(); n != 0 {
			t.Errorf("descriptors for %d pulls, want 0", n)
		}
	})
}
