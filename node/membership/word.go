package membership

import "time"

// best returns the boot that stands for the id; for this node's id that is its own.
// The newest boot counts alone: one that left for good takes the boots before it
// along, though they may not be found dead yet. But an older boot that outlives the
// time for that is a node of its own, and the living one counts. It is called with
// r.mu held.
func (r *roster) best(id string, now time.Time) *boot {
	if own := r.boots[id][r.epoch]; id == r.self && own != nil {
		return own
	}
	newest, living := r.boots[id].newest()
	if newest == nil || newest.member.alive || living == nil || now.Before(newest.first.Add(r.surely())) {
		return newest
	}
	return living
}

// newest returns the newest boot, and the newest live one.
func (all boots) newest() (newest, living *boot) {
	for _, b := range all {
		if newest == nil || b.member.Epoch > newest.member.Epoch {
			newest = b
		}
		if b.member.alive && (living == nil || b.member.Epoch > living.member.Epoch) {
			living = b
		}
	}
	return newest, living
}

// surely returns the time in which a boot that died is certainly found dead. It is
// called with r.mu held.
func (r *roster) surely() time.Duration { return foundDead(len(r.boots)) + time.Second }

// leave notes that the id has left for good, or was forgotten, with the boot of that
// epoch or an earlier one. A boot that has proved to live stays.
func (r *roster) leave(id string, epoch uint64, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	newest, _ := r.boots[id].newest()
	if id == r.self || newest == nil || newest.member.Epoch > epoch || newest.member.State == Draining && !newest.counts(now) {
		return
	}
	if newest.member.alive && (newest.member.Epoch == epoch || !now.Before(newest.first.Add(r.surely()))) {
		return
	}
	m := newest.member
	m.Epoch, m.State, m.alive = epoch, Draining, false
	r.put(&boot{member: m, since: now, until: now})
}

// drains notes that a boot has said that it leaves for good, if this node missed that.
// It reports whether that is news.
func (r *roster) drains(id string, epoch uint64, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := r.boots[id][epoch]
	if b == nil || b.member.State == Draining || id == r.self {
		return false
	}
	b.member.State = Draining
	if !b.member.alive {
		b.until = now
	}
	r.changed()
	return true
}
