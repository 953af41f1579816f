package directory

import "slices"

// A List is what some owners are told at a time: all, or what this node holds of partitions
// that have become theirs. It belongs to one goroutine.
type List struct {
	o     *Outbox
	ring  Ring
	tells map[string]*told
	by    map[uint16]*told // by partition
}

// A told is what one owner is told.
type told struct {
	session    uint64
	partitions []uint16
	keys       []Key
}

// Begin begins to tell those owners what they are due. What this node holds is to be added to
// the List after that, so that Note brings all that changes meanwhile, and Told is to hear of each.
func (o *Outbox) Begin(owners []string) *List {
	o.mu.Lock()
	defer o.mu.Unlock()
	l := &List{o: o, ring: o.ring, tells: map[string]*told{}, by: map[uint16]*told{}}
	begun := map[*box]bool{}
	for _, id := range owners {
		b := o.boxes[id]
		if b == nil || b.telling != 0 {
			continue
		}
		t := &told{}
		if b.all {
			begun[b] = true
			o.session = max(1, o.session+1)
			b.session, b.next, b.ring = o.session, 0, l.ring.Hash()
			b.all, b.part, b.begins, b.earlier, b.changes = false, false, true, false, nil
		} else {
			t.partitions = b.gains
		}
		b.gains = nil
		b.telling, t.session, l.tells[id] = b.session, b.session, t
		for _, p := range t.partitions {
			l.by[p] = t
		}
	}
	if len(begun) > 0 {
		o.former.drop(begun) // until the owner hears of the session, it is told nothing anyhow
		l.own(o.boxes, begun)
	}
	return l
}

// own lists the partitions of those that are told all.
func (l *List) own(boxes map[string]*box, begun map[*box]bool) {
	for p := range uint16(l.ring.Partitions()) {
		id := l.ring.OwnerOf(p)
		if begun[boxes[id]] {
			t := l.tells[id]
			t.partitions = append(t.partitions, p)
			l.by[p] = t
		}
	}
}

// Add hears that this node holds the blob.
func (l *List) Add(blob string) {
	if t := l.by[l.ring.Partition(blob)]; t != nil {
		if k, ok := KeyOf(blob); ok {
			t.keys = append(t.keys, k)
		}
	}
}

// Messages returns the messages that tell the owner, and in which session, 0 if there is nothing to
// tell. Unless whole, this node may hold more than was added, and the messages say so.
func (l *List) Messages(owner string, whole bool) (session uint64, all []*Message) {
	t := l.tells[owner]
	if t == nil {
		return 0, nil
	}
	l.o.mu.Lock()
	defer l.o.mu.Unlock()
	b := l.o.boxes[owner]
	if b == nil || b.session != t.session {
		return t.session, nil
	}
	b.part = !whole
	keys, partitions := t.keys, t.partitions
	if !whole {
		partitions = nil
	}
	for begins := b.next == 0; ; {
		m := &Message{Session: t.session, Number: b.next, Ring: b.ring, First: b.next == 0}
		b.next++
		m.Held, keys = cut(keys, MaxKeys)
		if room := MaxKeys - len(m.Held); len(keys) == 0 && room > 1 {
			m.Covers, partitions = cut(partitions, 4*(room-1))
		}
		all = append(all, m)
		if len(keys)+len(partitions) == 0 {
			m.Last = begins && whole
			return t.session, all
		}
	}
}

// cut cuts off at most so many.
func cut[T any](all []T, most int) (some, rest []T) {
	n := min(len(all), most)
	return slices.Clip(all[:n]), all[n:]
}
