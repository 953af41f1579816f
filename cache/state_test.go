package cache

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// stateOf returns the state of the entry that has n's key, free if there is none.
func stateOf(x *index, n name) state {
	x.mu.Lock()
	defer x.mu.Unlock()
	i, ok := x.table.slots[n.key.prefix()]
	if !ok {
		return free
	}
	return x.table.at(i).state
}

// wantState fails the test unless the entry of n is in that state, and so many
// bytes count.
func wantState(t *testing.T, x *index, n name, want state, used int64) {
	t.Helper()
	if got := stateOf(x, n); got != want || x.shares.total.used.bytes != used {
		t.Errorf("state %d, %d bytes; want state %d, %d bytes", got, x.shares.total.used.bytes, want, used)
	}
	if x.shares.total.leaving.bytes < 0 || x.shares.total.idle.bytes < 0 {
		t.Errorf("%+v", x.shares.total)
	}
}

func TestStatesOfAnEntry(t *testing.T) {
	t.Parallel()
	n, now := testName(1), time.Now()
	f := found{n, "a", 100, now, false}
	x := newIndex(100, nil)
	x.append(f)
	wantState(t, x, n, idle, 100)
	i, _, _, _ := x.acquire(n)
	wantState(t, x, n, inUse, 100)
	if !x.expel(i) || x.expel(i) {
		t.Error("expelled twice, or not")
	}
	wantState(t, x, n, expelled, 100)
	x.removed(i)
	wantState(t, x, n, gone, 100) // its reader has it open
	x.append(f)
	wantState(t, x, n, gone, 100)
	x.leave(i, now)
	wantState(t, x, n, absent, 0)
	x.append(f) // the listing saw the file before it was removed
	wantState(t, x, n, absent, 0)
	x.endListing()
	wantState(t, x, n, free, 0)

	x.append(f)
	i, _, _, _ = x.acquire(n)
	x.expel(i)
	x.leave(i, now)
	wantState(t, x, n, expelled, 100)
	x.stuck(i)
	wantState(t, x, n, damaged, 100)
	if _, _, ok := x.look(n); ok || !x.isDamaged(n) || len(x.damagedNames()) != 1 {
		t.Error("a damaged blob is served, or not known to be damaged")
	}
	x.removedDamaged(n)
	wantState(t, x, n, free, 0)

	x.append(f)
	victims, err := roomOf(x).reserve("a", 50)
	if err != nil || len(victims) != 1 {
		t.Fatal(victims, err)
	}
	wantState(t, x, n, evicted, 100)
	x.stuck(victims[0])
	wantState(t, x, n, idle, 100)
}

// A new file takes the place of a damaged one, and of one that readers still have
// open.
func TestNewFileReplacesADamagedOne(t *testing.T) {
	t.Parallel()
	n, now := testName(3), time.Now()
	x := newIndex(0, nil)
	x.endListing()
	x.append(found{n, "a", 100, now, false})
	i, _, _, _ := x.acquire(n)
	x.expel(i)
	x.stuck(i)
	wantState(t, x, n, damaged, 100)
	roomOf(x).hold("a", 100)
	j, ok := x.insert(n, "a", 100, now, true, x.current())
	if !ok {
		t.Fatal("not inserted")
	}
	wantState(t, x, n, unread, 200) // the reader of the old file still has it
	x.leave(i, now)
	wantState(t, x, n, unread, 100)
	x.leave(j, now)
	wantState(t, x, n, idle, 100)
}

// A directory is lost while blobs are read and files are being removed.
func TestClearForgetsAllStates(t *testing.T) {
	t.Parallel()
	now := time.Now()
	x := newIndex(400, nil)
	for i := range 4 {
		x.append(found{testName(i), "a", 100, now, false})
	}
	x.endListing()
	read, _, _, _ := x.acquire(testName(0))
	bad, _, _, _ := x.acquire(testName(1))
	x.expel(bad)
	victims, err := roomOf(x).reserve("a", 100)
	if err != nil || len(victims) != 1 {
		t.Fatal(victims, err)
	}
	old := x.current()
	x.clear()
	for i := range 4 {
		if got := stateOf(x, testName(i)); got != free {
			t.Errorf("entry %d is in state %d", i, got)
		}
	}
	x.stuck(bad)
	x.removed(victims[0])
	x.leave(read, now)
	x.leave(bad, now)
	roomOf(x).cancel("a", 100)
	if s := x.shares.total; s.used.bytes != 0 || s.idle.bytes != 0 || s.leaving.bytes != 0 || s.reserved != 0 || s.pending != 0 {
		t.Errorf("%+v", s)
	}
	if _, ok := x.insert(testName(5), "a", 0, now, false, old); ok {
		t.Error("a blob of the lost directory was taken")
	}
	if _, ok := x.insert(testName(5), "a", 0, now, false, x.current()); !ok {
		t.Error("a blob of the new directory was not taken")
	}
}

func TestTurnsAreTakenOneByOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var turns turns[string]
		var mu sync.Mutex
		working, most := 0, 0
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				end, err := turns.take(t.Context(), "a")
				if err != nil {
					t.Error(err)
					return
				}
				defer end()
				mu.Lock()
				working++
				most = max(most, working)
				mu.Unlock()
				time.Sleep(time.Second) // in the bubble's time
				mu.Lock()
				working--
				mu.Unlock()
			})
		}
		synctest.Wait()
		if end, err := turns.take(t.Context(), "b"); err != nil {
			t.Error("another key has to wait:", err)
		} else {
			end()
		}
		gone, leave := context.WithCancelCause(t.Context())
		leave(errCut)
		if _, err := turns.take(gone, "a"); !errors.Is(err, errCut) {
			t.Error("a caller that has gone waits on:", err)
		}
		wg.Wait()
		if most != 1 || len(turns.taken) != 0 {
			t.Errorf("%d worked at a time, %d turns are left", most, len(turns.taken))
		}
	})
}

func TestTurnsEndWithClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var all, hung turns[int]
		end, err := all.take(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, end)
		began := time.Now()
		all.close(t.Context())
		if took := time.Since(began); took != time.Second {
			t.Error("close waited", took)
		}
		if _, err := all.take(t.Context(), 2); !errors.Is(err, errClosed) {
			t.Error("a turn after close:", err)
		}
		if _, err := hung.take(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began = time.Now()
		hung.close(ctx)
		if took := time.Since(began); took != time.Minute {
			t.Error("close waited for a turn that hangs", took)
		}
	})
}

// Many tags push out the least recently used one, not all.
func TestTagsInMemoryGoSingly(t *testing.T) {
	t.Parallel()
	tags := newTags(nil, &directory{}, nil)
	tags.keep(Tag{Key: "used"})
	tags.keep(Tag{Key: "unused"})
	for i := range maxTags - 1 {
		if i == 10 {
			tags.get("used")
		}
		tags.keep(Tag{Key: string(rune(i)) + "other"})
	}
	_, used := tags.get("used")
	_, unused := tags.get("unused")
	if !used || unused || tags.memory.Len() != maxTags {
		t.Errorf("used: %v, unused: %v, %d in memory", used, unused, tags.memory.Len())
	}
}
