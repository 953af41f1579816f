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
	"oci-proxy/transfer/wait"
)

// A teller is a root that hears reports, and answers them.
type teller struct {
	member
	heard []mesh.Report
	at    []time.Duration // since it began
	began time.Time
	says  func(n int) (mesh.Progress, error) // to the report of that number
}

func (r *teller) Report(_ context.Context, _ oci.Ref, how mesh.Report) (mesh.Progress, error) {
	r.heard, r.at = append(r.heard, how), append(r.at, time.Since(r.began))
	return r.says(len(r.heard))
}

// tells lets a node tell a root how far it is while a stream comes, for so long at most. It
// returns what the root heard, and whether the node left its feeder. A byte comes each millisecond.
func tells(t *testing.T, most time.Duration, mayLeave, whole bool, says func(n int) (mesh.Progress, error)) (*teller, bool) {
	t.Helper()
	flights, _ := newFlights()
	flights.cfg.Life = wait.NewLife()
	root := &teller{began: time.Now(), says: says}
	d := &diner{
		filler: &filler{Flight: &Flight{}, flights: flights}, root: root,
		offset: func() int64 { return time.Since(root.began).Milliseconds() }, whole: func() bool { return whole },
	}
	ctx, end := context.WithCancelCause(t.Context())
	stop := time.AfterFunc(most, func() { end(nil) })
	defer stop.Stop()
	d.tell(ctx, end, "seat", mayLeave)
	return root, errors.Is(context.Cause(ctx), mesh.ErrSlow)
}

// A node tells the root how far it is as often as that wants, within limits.
func TestANodeTellsAsOftenAsTheRootWants(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		next int64 // milliseconds
		err  error
		want time.Duration
	}{
		"soon":                   {300, nil, 300 * time.Millisecond},
		"too soon":               {1, nil, feed.Soon},
		"too late":               {1 << 60, nil, feed.Every},
		"of an earlier version":  {0, nil, feed.Every},
		"the root does not hear": {300, errors.New("gone"), feed.Every},
	} {
		synctest.Test(t, func(t *testing.T) {
			root, left := tells(t, 2*test.want+1, true, false, func(int) (mesh.Progress, error) { return mesh.Progress{Next: test.next}, test.err })
			if left || len(root.heard) != 3 || root.at[0] != 0 || root.at[1] != test.want || root.at[2] != 2*test.want {
				t.Errorf("%s: left: %v; the root heard at %v", name, left, root.at)
			}
			if want := (mesh.Report{Seat: "seat", Came: test.want.Milliseconds()}); len(root.heard) > 1 && root.heard[1] != want {
				t.Errorf("%s: the root heard %v", name, root.heard)
			}
		})
	}
}

// It leaves its feeder by the root's word, unless nobody but the root is left: then it tells
// less often. When all has come it says so.
func TestANodeLeavesByTheRootsWord(t *testing.T) {
	t.Parallel()
	says := func(n int) (mesh.Progress, error) { return mesh.Progress{Next: 100, Leave: n == 2}, nil }
	synctest.Test(t, func(t *testing.T) {
		if root, left := tells(t, time.Minute, true, true, says); !left || len(root.heard) != 2 {
			t.Errorf("left: %v; the root heard %v", left, root.heard)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		root, left := tells(t, 450*time.Millisecond, false, true, says)
		if left || len(root.heard) != 3 || root.heard[1].Came != 100 || root.heard[2].Came != 450 {
			t.Errorf("left: %v; the root heard %v", left, root.heard)
		}
	})
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
