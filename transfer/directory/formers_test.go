package directory

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// turned is a ring of so many owners, in which each partition is that many owners further on.
func turned(by, owners int) *placing {
	r := &placing{uint64(by), make([]string, maxPartitions)}
	for p := range r.owners {
		r.owners[p] = fmt.Sprint((p + by) % owners)
	}
	return r
}

// What is kept of former owners is bounded: if it would be more, all are told all, and those that
// are down when they are up.
func TestFormerOwnersAreForgotten(t *testing.T) {
	t.Parallel()
	for _, up := range []bool{true, false} {
		t.Run(fmt.Sprint("up: ", up), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := NewOutbox(after)
				var owners []Owner
				for i := range 8 {
					owners = append(owners, Owner{fmt.Sprint(i), 1, true})
				}
				round := 0
				tell := func() (told int) {
					<-time.After(2 * after)
					all, _, _ := o.Due(time.Now(), true)
					list := o.Begin(all)
					for _, id := range all {
						session, messages := list.Messages(id, true)
						o.Told(id, session, true, true)
						told += len(messages)
					}
					return told
				}
				for ; round < 3; round++ {
					o.See(turned(round, len(owners)), owners)
					tell()
				}
				if n := o.former.size(); n != maxFormers {
					t.Fatalf("%d partitions of former owners are kept", n)
				}
				for i := range owners {
					owners[i].Up = up
				}
				o.See(turned(round, len(owners)), owners)
				told := tell()
				if n := o.former.size(); n > 0 || (told > 0) != up {
					t.Errorf("%d partitions of former owners are kept, and %d messages were sent", n, told)
				}
				for i := range owners {
					owners[i].Up = true
				}
				o.See(turned(round, len(owners)), owners)
				if told := tell(); (told > 0) == up {
					t.Errorf("%d messages were sent when all were up", told)
				}
			})
		})
	}
}
