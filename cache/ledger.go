package cache

import "time"

// A ledger is the data that an index guards: the entries, the shares that they
// count towards, and their readers. It has no lock.
type ledger struct {
	table   table
	shares  shares
	pins    map[int32]*pin
	listed  bool   // the listing has ended: all that the disk holds is known
	changed signal // fires when a file is removed or back, or room was given up
	// retains are the blobs that are never evicted, whether the shard has them or not.
	retains map[name]struct{}
}

// vacate frees k for a blob whose file has just been put in place. It reports false
// if another blob has k.
func (l *ledger) vacate(k key) bool {
	i, ok := l.table.slots[k.prefix()]
	if !ok {
		return true
	}
	switch e := l.table.at(i); {
	case e.key != k: // another blob's, which has the same prefix
		return false
	case e.state.held() || e.state.leaving():
		return false
	case e.state == absent:
		l.table.release(i)
	default: // damaged, and its file is replaced by now; or gone
		l.table.unname(i)
		e.state = gone
		l.drop(i)
	}
	return true
}

// add makes the entry of a blob whose file is in place.
func (l *ledger) add(n name, registry string, size int64, used time.Time, st state) int32 {
	sh := l.shares.number(registry)
	l.shares.all[sh].items++
	l.shares.count(sh, func(s *space) { s.used.add(loadOf(size)) })
	last := used
	if used.Equal(neverUsed) { // somebody asked for it when it came, and nobody knows when that was
		last = time.Now()
	}
	return l.table.add(n, entry{size: size, share: sh, state: st, last: seconds(last), touched: seconds(used)})
}

// link makes slot i idle, or retained.
func (l *ledger) link(i int32, recent bool) {
	e := l.table.at(i)
	if _, kept := l.retains[l.table.name(i)]; kept {
		l.table.age(i, recent)
		e.state = retained
		return
	}
	e.state = idle
	l.table.link(i, recent)
	l.count(i)
}

// count counts slot i, which is in the order of use by now, as idle.
func (l *ledger) count(i int32) {
	e := l.table.at(i)
	l.shares.count(e.share, func(s *space) {
		s.idle.add(loadOf(e.size))
		if e.spare {
			s.spare.add(loadOf(e.size))
		}
	})
}

// unlink takes the idle slot i out of the order of use.
func (l *ledger) unlink(i int32) {
	e := l.table.at(i)
	l.table.unlink(i)
	l.shares.count(e.share, func(s *space) {
		s.idle.take(loadOf(e.size))
		if e.spare {
			s.spare.take(loadOf(e.size))
		}
	})
}

// remove takes a blob out of the shard: it becomes evicted or expelled. Its bytes
// count until its file is removed and its last reader has left.
func (l *ledger) remove(i int32, to state) {
	e := l.table.at(i)
	was := e.state
	e.state = to
	delete(l.table.checks, i)
	l.shares.all[e.share].items--
	if was == idle {
		l.unlink(i)
	}
	if was == idle || was == retained || was == unranked { // else its readers decide when its bytes are free
		l.leaving(e)
	}
}

// leaving says that the file of a blob which nobody reads is being removed.
func (l *ledger) leaving(e *entry) {
	l.shares.count(e.share, func(s *space) { s.leaving.add(loadOf(e.size)) })
}

// left says that removing a file has ended, whether it succeeded or not.
func (l *ledger) left(i int32) {
	if e := l.table.at(i); e.state.leaving() && l.pins[i] == nil {
		l.shares.count(e.share, func(s *space) { s.leaving.take(loadOf(e.size)) })
	}
	l.changed.fire()
}

// drop frees the slot of a blob that is gone once it has no reader.
func (l *ledger) drop(i int32) {
	e := l.table.at(i)
	if e.state != gone || l.pins[i] != nil {
		return
	}
	l.shares.count(e.share, func(s *space) { s.used.take(loadOf(e.size)) })
	if !l.listed && l.table.named(i) {
		e.state, e.size = absent, 0
	} else {
		l.table.release(i)
	}
	l.changed.fire()
}

// note reports whether use was last noted on disk more than a minute ago, and
// takes it as noted now.
func (l *ledger) note(i int32, now time.Time) bool {
	e := l.table.at(i)
	if now.Unix()-int64(e.touched) < 60 {
		return false
	}
	e.touched = seconds(now)
	return true
}

// evict takes out the least recently used blobs, what is another node's to keep before
// what is this node's, and returns their slots: first of the share until n more bytes
// are within its own bound, then of all.
func (l *ledger) evict(sh uint16, n int64) (out []int32) {
	take := func(i int32, why Cause) {
		l.shares.all[l.table.at(i).share].evictions[why]++
		l.remove(i, evicted)
		out = append(out, i)
	}
	own := &l.shares.all[sh].space
	for own.over(n) > 0 && l.table.ordersOf(sh).tail() != none {
		take(l.table.ordersOf(sh).tail(), OverShareBound)
	}
	for l.shares.total.over(n) > 0 {
		i := l.table.oldest()
		if i == none {
			break
		}
		take(i, l.shares.total.cause())
	}
	return out
}

// unreserve gives up n reserved bytes, so many of them pending.
func (l *ledger) unreserve(sh uint16, n, pending int64) {
	l.shares.reserve(sh, -n, -pending)
	l.changed.fire()
}
