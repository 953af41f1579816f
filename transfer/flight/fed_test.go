package flight

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"oci-proxy/transfer/feed"
	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// A teller is a root that hears reports, and answers them.
type teller struct {
	member
	heard []mesh.Report
	says  mesh.Progress
	err   error
}

func (r *teller) Report(_ context.Context, _ oci.Ref, how mesh.Report) (mesh.Progress, error) {
	r.heard = append(r.heard, how)
	return r.says, r.err
}

// A node tells the root how far it is, and leaves a feeder that is far slower than others'.
func TestASlowFeederIsLeft(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for name, test := range map[string]struct {
		each     int64 // bytes that come within feed.Every
		says     mesh.Progress
		err      error
		mayLeave bool
		leaves   bool
	}{
		"as fast as others":        {200 * mib, mesh.Progress{Offset: 1 << 40, Best: 100 * mib}, nil, true, false},
		"far slower":               {2 * mib, mesh.Progress{Offset: 1 << 40, Best: 100 * mib}, nil, true, true},
		"far slower, all but here": {2 * mib, mesh.Progress{Offset: 1 << 40, Best: 100 * mib}, nil, false, false},
		"as far as the root":       {2 * mib, mesh.Progress{Offset: 100 * mib, Best: 100 * mib}, nil, true, false},
		"nobody tells":             {2 * mib, mesh.Progress{Offset: 1 << 40}, nil, true, false},
		"the root is gone":         {2 * mib, mesh.Progress{}, errors.New("gone"), true, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			root := &teller{says: test.says, err: test.err}
			d := &diner{filler: &filler{Flight: &Flight{}}, root: root, offset: func() int64 {
				return int64(time.Since(start)/feed.Every) * test.each
			}}
			ctx, end := context.WithCancelCause(t.Context())
			context.AfterFunc(ctx, func() {})
			stop := time.AfterFunc(5*feed.Every+time.Second, func() { end(nil) })
			defer stop.Stop()
			d.tell(ctx, end, "seat", true, test.mayLeave)
			if left := errors.Is(context.Cause(ctx), mesh.ErrSlow); left != test.leaves {
				t.Errorf("%s: left: %v", name, left)
			}
			if want := map[bool]int{true: 1, false: 5}[test.leaves]; len(root.heard) != want || root.heard[0] != (mesh.Report{Seat: "seat", Came: test.each}) {
				t.Errorf("%s: the root heard %v", name, root.heard)
			}
		})
	}
}

// A feeder that sends nothing though the root is ahead is left, however many were before; the
// root is not, nor one that can't be ahead.
func TestAFeederThatStandsStillIsLeft(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		ahead  int64
		fed    bool
		leaves bool
	}{
		"the root is ahead": {stillBehind + 1, true, true},
		"nobody is ahead":   {stillBehind, true, false},
		"the root sends":    {stillBehind + 1, false, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			root := &teller{says: mesh.Progress{Offset: test.ahead}}
			d := &diner{filler: &filler{Flight: &Flight{}}, root: root, offset: func() int64 { return 0 }}
			ctx, end := context.WithCancelCause(t.Context())
			stop := time.AfterFunc(2*stillReports*feed.Every, func() { end(nil) })
			defer stop.Stop()
			d.tell(ctx, end, "seat", test.fed, false)
			if left := errors.Is(context.Cause(ctx), mesh.ErrSlow); left != test.leaves {
				t.Errorf("%s: left: %v", name, left)
			}
			if test.leaves && len(root.heard) != stillReports {
				t.Errorf("%s: left after %d reports", name, len(root.heard))
			}
		})
	}
}

// Whoever follows by a seat is cut off when the flight gives it up, and only then.
func TestAChair(t *testing.T) {
	t.Parallel()
	f, _ := newFlights()
	q := request("app", "content")
	fl := f.list(q, false)
	by := func(seat string) *Ticket {
		one := held(q, "a")
		one.Terms.Feed.By = seat
		return one
	}
	boards := func(t *Ticket) bool { got, _, err := f.Board(t); return err == nil && got == fl }
	if boards(by("")) || boards(by("s")) {
		t.Error("a member boards a flight that follows others")
	}
	fl.chair.ask()
	fl.chair.sit("s")
	one := by("s")
	if !boards(one) || boards(by("other")) || boards(by("")) {
		t.Error("not just the members that were sent to the seat board")
	}
	fl.chair.ask() // it leaves its feeder, and keeps its seat
	fl.chair.sit("s")
	select {
	case <-one.Left():
		t.Error("the member is cut off")
	default:
	}
	fl.chair.sit("s2")
	<-one.Left()
	if boards(by("s")) || !boards(by("s2")) {
		t.Error("the former seat counts")
	}
	fl.chair.sit("")
	if boards(by("")) || boards(by("s2")) || fl.chair.taken() {
		t.Error("a seat counts that was given up")
	}
}

// A member may be sent here before this node has heard of its own seat.
func TestASeatIsAwaited(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c chair
		start := time.Now()
		c.await(t.Context(), "s") // it asks nobody
		c.ask()
		time.AfterFunc(time.Second, func() { c.sit("s") })
		c.await(t.Context(), "s")
		if took := time.Since(start); took != time.Second {
			t.Errorf("it took %v", took)
		}
		c.ask()
		c.await(t.Context(), "s") // it has it all the while
		c.await(t.Context(), "other")
		if took := time.Since(start); took != time.Second+seatTime {
			t.Errorf("it took %v", took)
		}
	})
}
