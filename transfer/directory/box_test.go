package directory

import (
	"testing"
	"testing/synctest"
	"time"
)

// A member may tell an owner that has started anew all before it sees that start. It does not cease
// to tell it of changes, on which the owner counts, when it sees it.
func TestAStartThatIsSeenLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig()
		r.wantTold(t, 1, 0)
		r.to = New(1000)
		r.note(1, true)
		r.wantTold(t, 0, 1) // which the owner does not understand,
		<-time.After(firstPause)
		r.wantTold(t, 1, 0, 1) // and so it is told all
		r.See(hers(ring), []Owner{{"owner", 2, true}})
		r.note(2, true)
		<-time.After(gatherFor)
		r.tell()
		if r.to.Knows(2, 0, ring, []string{"self"}) && len(r.to.Names(2)) == 0 {
			t.Error("the owner counts on what it was told, and was not told of a blob")
		}
		r.wantTold(t, 1, 0, 1, 2)
	})
}

// Owners that come up together are not told all at once, however long it has been due.
func TestOwnersThatComeUpAreToldTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig()
		r.See(hers(ring), []Owner{{"owner", 1, false}})
		<-time.After(time.Minute)
		r.See(hers(ring), []Owner{{"owner", 1, true}})
		if all, _, idle := r.Due(time.Now(), true); len(all) > 0 || idle < after {
			t.Errorf("%q are told at once, others after %v", all, idle)
		}
		r.wantTold(t, 1, 0)
	})
}
