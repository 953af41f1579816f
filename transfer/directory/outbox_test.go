package directory

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

const after = time.Second

// placing is a ring whose partitions have those owners.
type placing struct {
	hash   uint64
	owners []string
}

func (p *placing) Hash() uint64            { return p.hash }
func (p *placing) Partitions() int         { return len(p.owners) }
func (p *placing) OwnerOf(n uint16) string { return p.owners[n] }

// Partition: the beginning of a blob's key says it.
func (p *placing) Partition(blob string) uint16 {
	k, _ := KeyOf(blob)
	return uint16(k >> 40)
}

// hers is a ring in which the owner owns all but one partition.
func hers(hash uint64) *placing {
	return &placing{hash, []string{"owner", "owner", "owner", "stranger"}}
}

// blobOf is the blob of that key.
func blobOf(k Key) string { return fmt.Sprintf("sha256:%016x%048d", uint64(k), 0) }

// rig is an outbox and the owner that it tells.
type rig struct {
	*Outbox
	to      *Directory
	held    map[string]bool // what the node holds of what was noted
	part    bool            // it does not know yet all that it holds
	earlier bool            // the owner is of a version that follows no partitions
}

// note makes the node hold the blob, or not any more, and notes that.
func (r *rig) note(k Key, held bool) {
	r.held[blobOf(k)] = held
	r.Note(blobOf(k))
}

func (r *rig) holds(blob string) bool { return r.held[blob] }

// begin begins to tell the owner those keys. The session is 0 if there is nothing to tell.
func (r *rig) begin(owner string, keys ...Key) (session uint64, messages []*Message) {
	list := r.Begin([]string{owner})
	for _, k := range keys {
		list.Add(blobOf(k))
	}
	return list.Messages(owner, true)
}

// tell tells whoever is due. It returns how many were told all, and how many of changes.
func (r *rig) tell(keys ...Key) (all, changes int) {
	tell, flush, _ := r.Due(time.Now(), !r.part)
	list := r.Begin(tell)
	for _, k := range keys {
		list.Add(blobOf(k))
	}
	for _, id := range tell {
		session, messages := list.Messages(id, !r.part)
		well := true
		for _, m := range messages {
			well = well && !r.to.Hear("self", m)
		}
		r.Told(id, session, well, !r.earlier)
	}
	for _, id := range flush {
		m := r.Changes(id, r.holds)
		r.Told(id, m.Session, !r.to.Hear("self", m), !r.earlier)
	}
	return len(tell), len(flush)
}

// wantTold fails the test unless, when all is due, so many are told all, and of changes.
func (r *rig) wantTold(t *testing.T, all, changes int, keys ...Key) {
	t.Helper()
	<-time.After(2 * after)
	if a, c := r.tell(keys...); a != all || c != changes {
		t.Errorf("%d are told all and %d of changes, want %d and %d", a, c, all, changes)
	}
}

func newRig() *rig {
	r := &rig{Outbox: NewOutbox(after), to: New(1000), held: map[string]bool{}}
	r.See(hers(ring), []Owner{{"owner", 1, true}})
	return r
}

func TestOwnersAreToldOnceAndThenOfChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig()
		if all, _, idle := r.Due(time.Now(), !r.part); len(all) > 0 || idle < after || idle > 2*after {
			t.Errorf("%q are told at once, the rest in %v", all, idle)
		}
		r.note(5, true) // it is told all anyhow
		r.wantTold(t, 1, 0, 1, 2, 5)
		if !r.to.Knows(1, 0, ring, []string{"self"}) || len(r.to.Names(1)) != 1 {
			t.Error("the owner was not told all")
		}
		r.wantTold(t, 0, 0)
		r.note(3, true)
		r.note(4, true)
		r.note(4, false)
		r.note(2, false)
		r.note(2, true)
		select {
		case <-r.More():
		default:
			t.Error("nobody hears that there is more")
		}
		if all, changes := r.tell(); all+changes > 0 {
			t.Error("changes are not gathered")
		}
		r.wantTold(t, 0, 1)
		if len(r.to.Names(3)) != 1 || len(r.to.Names(4)) != 0 || len(r.to.Names(2)) != 1 {
			t.Errorf("%q %q %q", r.to.Names(3), r.to.Names(4), r.to.Names(2))
		}
		r.wantTold(t, 0, 0)
	})
}

func TestAllIsToldAnew(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		happens func(r *rig)
		told    int
	}{
		"nothing":                            {func(r *rig) { r.See(hers(ring), []Owner{{"owner", 1, true}}) }, 0},
		"another ring that gives it nothing": {func(r *rig) { r.See(hers(ring+1), []Owner{{"owner", 1, true}}) }, 0},
		"one that gives it something": {func(r *rig) {
			r.See(&placing{ring + 1, []string{"owner", "owner", "other", "owner"}}, []Owner{{"owner", 1, true}})
		}, 1},
		"another ring, of an earlier version": {func(r *rig) {
			r.earlier = true
			r.note(1, true)
			r.wantChanges()
			r.See(hers(ring+1), []Owner{{"owner", 1, true}})
		}, 1},
		"the owner has started":  {func(r *rig) { r.See(hers(ring), []Owner{{"owner", 2, true}}) }, 1},
		"it is down":             {func(r *rig) { r.See(hers(ring), []Owner{{"owner", 2, false}}) }, 0},
		"it left, and came back": {func(r *rig) { r.See(hers(ring), nil); r.See(hers(ring), []Owner{{"owner", 1, true}}) }, 1},
		"another one joins":      {func(r *rig) { r.See(hers(ring+1), []Owner{{"owner", 1, true}, {"other", 1, true}}) }, 1},
		"nothing, for long":      {func(*rig) { <-time.After(2 * mendAfter) }, 1},

		"too many changes":    {func(r *rig) { many(r) }, 1},
		"it missed something": {func(r *rig) { r.note(1, true); r.to = New(1000); <-time.After(after); r.tell() }, 0},
		"and some seconds later so": {func(r *rig) {
			r.note(1, true)
			r.to = New(1000)
			<-time.After(after)
			r.tell()
			<-time.After(firstPause)
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newRig()
				r.wantTold(t, 1, 0)
				test.happens(r)
				r.wantTold(t, test.told, 0)
			})
		})
	}
}

// wantChanges tells changes that are due.
func (r *rig) wantChanges() {
	<-time.After(after)
	r.tell()
}

func many(r *rig) {
	for i := range maxChanges + 10 {
		r.note(Key(i), true)
	}
}

// Whoever can't be told is told again later and later, and not for nothing.
func TestOwnersThatAreNotReachedAreToldLater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig()
		for _, least := range []time.Duration{0, firstPause / 2, firstPause, 2 * firstPause, 4 * firstPause} {
			began := time.Now()
			for {
				all, _, idle := r.Due(time.Now(), !r.part)
				if len(all) > 0 {
					break
				}
				<-time.After(idle)
			}
			if took := time.Since(began); took < least || took > lastPause {
				t.Errorf("told again after %v, want %v at least", took, least)
			}
			session, _ := r.begin("owner")
			r.Told("owner", session, false, true)
		}
	})
}

// While all is told, another ring or more changes begin it anew; changes are told afterwards.
func TestWhatHappensWhileAllIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig()
		<-time.After(2 * after)
		session, messages := r.begin("owner", 1, 2)
		twice, _ := r.begin("owner")
		if other, _ := r.begin("stranger"); twice != 0 || other != 0 {
			t.Error("told twice at a time")
		}
		r.note(1, false)
		if all, changes := r.tell(); all+changes > 0 || r.Changes("owner", r.holds) != nil {
			t.Error("changes are told before the rest")
		}
		for _, m := range messages {
			r.to.Hear("self", m)
		}
		r.Told("owner", session, true, !r.earlier)
		r.wantTold(t, 0, 1)
		if len(r.to.Names(1)) != 0 || len(r.to.Names(2)) != 1 {
			t.Errorf("%q %q", r.to.Names(1), r.to.Names(2))
		}
		r.earlier = true
		r.See(hers(ring+1), []Owner{{"owner", 1, true}})
		r.note(2, false)
		r.wantTold(t, 0, 1) // which tells that it is of an earlier version,
		<-time.After(2 * after)
		session, messages = r.begin("owner", 1)
		r.See(hers(ring+2), []Owner{{"owner", 1, true}})
		for _, m := range messages {
			r.to.Hear("self", m)
		}
		r.Told("owner", session, true, false)
		r.wantTold(t, 1, 0) // and so is told all by the new ring too
		if !r.to.Knows(1, 0, ring+2, []string{"self"}) {
			t.Error("not told by the new ring")
		}
	})
}

// Much is told in messages that are small, and what is told at a time is bounded.
func TestManyBlobsAreToldInParts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig()
		r.to = New(100_000)
		<-time.After(2 * after)
		var keys []Key
		for k := range 2*MaxKeys + 1 {
			keys = append(keys, Key(k))
		}
		session, all := r.begin("owner", keys...)
		if len(all) != 3 || !all[0].First || all[0].Last || all[1].First || !all[2].Last {
			t.Errorf("%d messages", len(all))
		}
		for _, m := range all {
			if b := m.Encode(); len(b) > MaxMessage || r.to.Hear("self", m) {
				t.Errorf("%d bytes", len(b))
			}
		}
		r.Told("owner", session, true, !r.earlier)
		if f := r.to.Figures(); f.Entries != len(keys) || f.Members != 1 {
			t.Errorf("%+v", f)
		}
	})
}

// The owners of a large cluster are told together, from one list, whatever they ask for meanwhile.
func TestAllOwnersAreDueTogether(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := NewOutbox(after)
		var owners []Owner
		for i := range 999 {
			owners = append(owners, Owner{fmt.Sprint(i), 1, true})
		}
		o.See(hers(ring), owners)
		for _, one := range owners { // tell this node before it tells them
			o.Again(one.ID)
		}
		_, _, idle := o.Due(time.Now(), true)
		<-time.After(idle)
		all, _, _ := o.Due(time.Now(), true)
		if len(all) != len(owners) || slices.Contains(all, "") {
			t.Errorf("%d are due", len(all))
		}
		list := o.Begin(all)
		for _, id := range all {
			session, _ := list.Messages(id, true)
			o.Told(id, session, true, true)
			o.Again(id) // it has seen this node away
			<-time.After(time.Millisecond)
		}
		_, _, idle = o.Due(time.Now(), true)
		<-time.After(idle)
		if all, _, _ := o.Due(time.Now(), true); len(all) != len(owners) {
			t.Errorf("%d are due that asked for it", len(all))
		}
	})
}

// Words about a blob may overtake each other: what is true when the owner is told counts.
func TestWhatIsTrueIsTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig()
		r.wantTold(t, 1, 0, 2)
		r.held[blobOf(1)] = true // it came after it had gone, and the first word comes last
		r.Note(blobOf(1))
		r.Note(blobOf(1))
		r.Note(blobOf(2))
		r.wantTold(t, 0, 1)
		if len(r.to.Names(1)) != 1 || len(r.to.Names(2)) != 0 {
			t.Errorf("%q %q", r.to.Names(1), r.to.Names(2))
		}
	})
}

// While a node does not know yet all that it holds, it tells what it knows, and what changes, but
// not that this is all.
func TestAPartIsToldBeforeAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig()
		r.part = true
		r.wantTold(t, 1, 0, 1)
		r.note(2, true)
		r.wantTold(t, 0, 1)
		r.wantTold(t, 0, 0)
		if len(r.to.Names(1)) != 1 || len(r.to.Names(2)) != 1 || r.to.Knows(1, 0, ring, []string{"self"}) {
			t.Errorf("%q %q, all told: %v", r.to.Names(1), r.to.Names(2), r.to.Knows(1, 0, ring, []string{"self"}))
		}
		r.part = false
		r.tell() // sees that it is whole
		r.wantTold(t, 1, 0, 1, 2, 3)
		if len(r.to.Names(1)) != 1 || len(r.to.Names(3)) != 1 || !r.to.Knows(1, 0, ring, []string{"self"}) {
			t.Error("all was not told")
		}
		r.wantTold(t, 0, 0)
	})
}

// A telling that has outlived the member's place in the cluster changes nothing of the next.
func TestATellingOfBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig()
		<-time.After(2 * after)
		former, _ := r.begin("owner")
		r.See(hers(ring), nil)
		r.See(hers(ring), []Owner{{"owner", 1, true}})
		<-time.After(2 * after)
		session, _ := r.begin("owner")
		r.Told("owner", former, false, true)
		twice, _ := r.begin("owner")
		if r.Wants("owner", former) || !r.Wants("owner", session) || twice != 0 {
			t.Error("the former telling counts")
		}
		r.Told("owner", session, true, !r.earlier)
		r.wantTold(t, 0, 0)
	})
}
