package directory

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

const (
	actors   = 7
	parts    = 12 // of the ring
	perPart  = 4
	stepTime = 250 * time.Millisecond
)

// keyOf is the key of one of the blobs of a partition. Versions that know no partitions can't take
// what tells of these for one.
func keyOf(part, i int) Key { return Key(part)<<40 + 1<<30 + Key(i) }

// A play is some members, what they see of each other, and what is on its way between them.
type play struct {
	t       *testing.T
	draw    *rand.Rand
	actors  []*actor
	letters []*letter
	known   int             // how often an owner was believed
	mending map[uint64]bool // sessions that come after one which broke off
}

// An actor is a member, or was or will be one.
type actor struct {
	id      string
	boot    uint64
	alive   bool
	placed  bool // it has a place in the ring
	earlier bool // it is of the version that knows no coverage
	held    map[Key]bool
	here    *Directory
	out     *Outbox
	sees    map[string]sight
	boots   map[string]uint64
}

// A sight is what one member sees of another.
type sight struct {
	boot          uint64
	alive, placed bool
}

// A letter is a telling on its way.
type letter struct {
	from     *actor
	out      *Outbox // of the start of it
	to       string
	session  uint64
	messages []*Message
	late     uint64 // the sender has given it up when this start of the owner had it; 0: it has not
}

func newPlay(t *testing.T, seed uint64) *play {
	t.Helper()
	p := &play{t: t, draw: rand.New(rand.NewPCG(seed, 7)), mending: map[uint64]bool{}}
	for i := range actors {
		a := &actor{id: fmt.Sprint("m", i), earlier: p.draw.IntN(4) == 0 && seed%3 == 0, held: map[Key]bool{}}
		p.actors = append(p.actors, a)
		if i < actors-2 {
			a.placed = true
			p.start(a)
		}
	}
	return p
}

// start starts the member anew. It has what is on its disk, and knows nobody.
func (p *play) start(a *actor) {
	a.boot, a.alive, a.placed = a.boot+1, true, true
	a.here, a.out, a.sees, a.boots = New(1000), NewOutbox(time.Second), map[string]sight{}, nil
	a.out.draw = func(d time.Duration) time.Duration { return time.Duration(p.draw.Int64N(int64(d))) }
	p.look(a, false)
}

// ringOf is the ring that the member sees.
func (p *play) ringOf(a *actor) *placing {
	mask := uint64(0)
	for i, one := range p.actors {
		if one == a || a.sees[one.id].placed {
			mask |= 1 << i
		}
	}
	r := &placing{hash: mask, owners: make([]string, parts)}
	for part := range parts {
		best := uint64(0)
		for i, one := range p.actors {
			if mask>>i&1 == 0 {
				continue
			}
			lot := rand.NewPCG(uint64(part), uint64(i)).Uint64()
			if part%4 == 0 { // these move without need, as they do where loads are bounded
				lot = rand.NewPCG(uint64(part)<<32|mask, uint64(i)).Uint64()
			}
			if lot > best {
				best, r.owners[part] = lot, one.id
			}
		}
	}
	return r
}

// look makes the member see what is; or, if mixed, some of the others as they are not.
func (p *play) look(a *actor, mixed bool) {
	for _, one := range p.actors {
		s := sight{one.boot, one.alive, one.placed}
		if one == a || mixed && p.draw.IntN(3) == 0 {
			continue
		}
		if mixed && p.draw.IntN(8) == 0 {
			s.alive, s.placed = false, p.draw.IntN(2) == 0
		}
		a.sees[one.id] = s
	}
	p.see(a)
}

// see is as directories.see in node/cluster.
func (p *play) see(a *actor) {
	var owners []Owner
	alive := map[string]uint64{}
	for _, one := range p.actors {
		s := a.sees[one.id]
		if s.alive {
			alive[one.id] = s.boot
		}
		if s.placed && one != a {
			owners = append(owners, Owner{one.id, s.boot, s.alive})
		}
	}
	a.out.See(p.ringOf(a), owners)
	for id, boot := range a.boots {
		if alive[id] != boot {
			a.here.Doubt(id)
		}
	}
	a.boots = alive
	member := func(id string) bool { return a.sees[id].placed || a.sees[id].alive }
	a.here.Keep(member)
	p.letters = slices.DeleteFunc(p.letters, func(l *letter) bool { // a member is forgotten later than tellings can come
		return l.late > 0 && l.to == a.id && !member(l.from.id)
	})
}

// step is a moment. Unless wild, nothing happens and nothing is lost.
func (p *play) step(wild bool) {
	p.t.Helper()
	<-time.After(stepTime)
	if wild && p.draw.IntN(3) == 0 {
		p.happen(p.actors[p.draw.IntN(actors)])
	}
	for _, a := range p.actors {
		if !a.alive {
			continue
		}
		if !wild {
			p.look(a, false)
		} else if p.draw.IntN(6) == 0 {
			p.look(a, p.draw.IntN(2) == 0)
		}
		p.tell(a)
		if wild {
			p.change(a)
		}
	}
	for _, l := range slices.Clone(p.letters) {
		p.move(l, wild)
		p.judge()
	}
	p.judge()
}

// rest is a time in which nothing happens.
func (p *play) rest(while time.Duration) {
	p.t.Helper()
	for over := time.Now().Add(while); time.Now().Before(over); {
		<-time.After(time.Second)
		p.step(false)
	}
}

// happen makes something happen to a member.
func (p *play) happen(a *actor) {
	switch p.draw.IntN(5) {
	case 4: // it tells all once more
		if a.alive {
			a.out.mend = time.Now()
		}
	case 0:
		if !a.alive {
			p.start(a)
		}
	case 1: // it crashes, and keeps its place
		a.alive = false
	case 2: // it starts anew at once
		if a.alive {
			p.start(a)
		}
	case 3:
		if a.alive = a.alive && p.draw.IntN(2) == 0; !a.alive {
			a.placed = false
		}
	}
}

// change makes the member get or lose a blob.
func (p *play) change(a *actor) {
	if p.draw.IntN(3) > 0 {
		return
	}
	k := keyOf(p.draw.IntN(parts), p.draw.IntN(perPart))
	a.held[k] = !a.held[k]
	a.out.Note(blobOf(k))
}

// tell sends what is due.
func (p *play) tell(a *actor) {
	tell, changes, _ := a.out.Due(time.Now(), true)
	slices.Sort(tell)
	slices.Sort(changes)
	for _, id := range changes {
		if m := a.out.Changes(id, func(blob string) bool { k, _ := KeyOf(blob); return a.held[k] }); m != nil {
			p.letters = append(p.letters, &letter{a, a.out, id, m.Session, []*Message{m}, 0})
		}
	}
	broke := map[string]bool{}
	for _, id := range tell {
		broke[id] = a.out.boxes[id].session == 0
	}
	list := a.out.Begin(tell)
	for part := range parts {
		for i := range perPart {
			if k := keyOf(part, i); a.held[k] {
				list.Add(blobOf(k))
			}
		}
	}
	for _, id := range tell {
		session, messages := list.Messages(id, true)
		p.mending[session] = broke[id]
		p.letters = append(p.letters, &letter{a, a.out, id, session, messages, 0})
	}
}

// move brings a letter on, or loses it.
func (p *play) move(l *letter, wild bool) {
	switch what := p.draw.IntN(20); {
	case l.late > 0 && (!wild || what < 2):
		if l.late == p.actor(l.to).boot && l.from.out == l.out { // connections end with either
			p.hear(l)
		}
		p.end(l)
	case l.late > 0:
	case !l.from.alive || l.from.out != l.out: // it ended
		p.end(l)
	case !l.out.Wants(l.to, l.session) || wild && what == 0:
		p.end(l)
		l.out.Told(l.to, l.session, false, false)
	case wild && what == 1: // the answer is lost
		p.hear(l)
		p.end(l)
		l.out.Told(l.to, l.session, false, false)
	case wild && what == 2:
		l.late = p.actor(l.to).boot
		l.out.Told(l.to, l.session, false, false)
	case wild && what < 10:
	default:
		well, follows := p.hear(l)
		if !well || len(l.messages) == 0 {
			p.end(l)
			l.out.Told(l.to, l.session, well, follows)
		}
	}
}

// end takes a letter away.
func (p *play) end(l *letter) {
	p.letters = slices.DeleteFunc(p.letters, func(one *letter) bool { return one == l })
}

// hear makes the owner hear the next message of a letter.
func (p *play) hear(l *letter) (well, follows bool) {
	to := p.actor(l.to)
	if !to.alive {
		return false, false
	}
	m := *l.messages[0]
	m.Again = l.from.here.Doubts(l.to)
	l.messages = l.messages[1:]
	if l.from.earlier {
		m.Covers = nil
	}
	parsed, err := Parse(m.Encode())
	if to.earlier {
		parsed, err = parseEarlier(m.Encode())
	}
	if err != nil {
		p.t.Fatal(err)
	}
	if parsed.Again && !to.earlier {
		to.out.Again(l.from.id)
	}
	return !to.here.Hear(l.from.id, parsed), !to.earlier && !l.from.earlier
}

// parseEarlier is Parse as it was before partitions were told.
func parseEarlier(b []byte) (*Message, error) {
	b[1] &= first | last
	return Parse(b)
}

func (p *play) actor(id string) *actor {
	return p.actors[slices.IndexFunc(p.actors, func(a *actor) bool { return a.id == id })]
}
