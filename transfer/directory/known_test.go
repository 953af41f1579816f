package directory

import (
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// An owner that believes to know all holders of a blob has been told of each: by all members that
// are alive to it, of all that they hold but for what is on its way to it. That holds whatever
// happens: members join, leave, crash and start anew, also of an earlier version; they see each
// other late, not at all, or now so and now otherwise; and tellings are lost, or come late. When
// nothing more happens, all owners know all.
func TestWhoIsBelievedToKnowIsTold(t *testing.T) {
	t.Parallel()
	seeds := uint64(24)
	if os.Getenv("LONG_TESTS") != "" {
		seeds = 5000
	}
	known := 0
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) {
			p := newPlay(t, seed)
			for range 400 {
				p.step(true)
			}
			p.rest(3 * time.Minute) // longer than owners wait that could not be told
			if seed%3 != 0 {        // members of the earlier version may not hear that they are doubted
				p.wantAll()
			}
			<-time.After(2 * mendAfter)
			p.rest(time.Minute)
			p.wantAll()
			known += p.known
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d seeds: owners believed %d times to know all holders", seeds, known)
}

// judge fails the test if an owner is believed to know all holders of a blob, and does not.
func (p *play) judge() {
	p.t.Helper()
	for _, owner := range p.actors {
		if !owner.alive {
			continue
		}
		r := p.ringOf(owner)
		for part, id := range r.owners {
			if id != owner.id {
				continue
			}
			for i := range perPart {
				p.judgeOne(owner, r, uint16(part), keyOf(part, i))
			}
		}
	}
}

func (p *play) judgeOne(owner *actor, r *placing, part uint16, k Key) {
	p.t.Helper()
	var others []string
	for id, s := range owner.sees {
		if s.alive {
			others = append(others, id)
		}
	}
	if !owner.here.Knows(k, part, r.hash, others) {
		return
	}
	p.known++
	names := owner.here.Names(k)
	for _, id := range others {
		one := p.actor(id)
		if one.alive && one.held[k] && !slices.Contains(names, id) && !p.owes(one, owner, k) {
			p.t.Fatalf("%s is believed to know that %q hold %d, and %s holds it: %+v", owner.id, names, k, id, one.out.boxes[owner.id])
		}
	}
}

// owes reports whether the owner is still to hear that the member holds the blob, and the
// member sees to that.
func (p *play) owes(one, owner *actor, k Key) bool {
	b := one.out.boxes[owner.id]
	if b == nil || b.session == 0 || b.begins && p.mending[b.session] {
		return true // it does not know the owner, or could not tell it, and tries again
	}
	if _, noted := b.changes[k]; noted {
		return true
	}
	former := p.ringOf(one).owners[k>>40] != owner.id // by the member's ring: its next session does not cover the blob
	for _, l := range p.letters {
		if l.out == one.out && l.to == owner.id && l.session == b.session && slices.ContainsFunc(l.messages, func(m *Message) bool { return m.First && former || slices.Contains(m.Held, k) }) {
			return true
		}
	}
	// One of the two is of an earlier version, which counts on what it was told in its ring, and
	// the member's is another, or was in between.
	return (one.earlier || owner.earlier) && (b.all || p.ringOf(one).hash != p.ringOf(owner).hash)
}

// wantAll fails the test unless all owners know all.
func (p *play) wantAll() {
	p.t.Helper()
	if len(p.letters) > 0 {
		p.t.Errorf("%d letters are on their way", len(p.letters))
	}
	for _, owner := range p.actors {
		if !owner.alive {
			continue
		}
		r := p.ringOf(owner)
		var others []string
		for _, one := range p.actors {
			if one.alive && one != owner {
				others = append(others, one.id)
			}
		}
		for part, id := range r.owners {
			for i := range perPart {
				k := keyOf(part, i)
				var want []string
				for _, one := range p.actors {
					if one.alive && one != owner && one.held[k] {
						want = append(want, one.id)
					}
				}
				got := slices.DeleteFunc(names(owner.here, k), func(id string) bool { return !p.actor(id).alive }) // those that are down may come back
				if id == owner.id && len(others) > 0 && (!slices.Equal(got, want) || !owner.here.Knows(k, uint16(part), r.hash, others)) {
					p.t.Errorf("%s, at the end: %d is held by %q, want %q; all told: %v", owner.id, k, got, want, owner.here.Knows(k, uint16(part), r.hash, others))
				}
			}
		}
	}
}
