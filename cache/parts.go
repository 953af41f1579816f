package cache

import (
	"errors"
	"slices"
	"sync"
	"time"
)

const (
	// partMin is how many bytes make a part worth keeping.
	partMin = 1 << 20
	// partStep is after how many bytes, at least, an ingest notes how far it
	// is. A kill costs the bytes since. Notes grow with the blob, so steps do too.
	partStep = 4 << 20
	// partAge is how long a part is kept.
	partAge = 24 * time.Hour
)

// A part is a download that broke off: a file in tmp, and a note beside it with all
// that is needed to go on. It counts like a blob on its way in.
type part struct {
	disk     *disk
	tmp      string
	note     string
	name     name
	registry string
	offset   int64 // as the note says
	bytes    int64 // that the file holds, and that count
	saved    time.Time
}

// stale reports whether a part is too old to be kept, or from the future.
func (p *part) stale(now time.Time) bool { return now.Sub(p.saved).Abs() > partAge }

// cut cuts a part's file to what its note covers.
func (p *part) cut() error {
	f, err := p.disk.edit(p.tmp)
	if err != nil {
		return err
	}
	defer func() { _ = f.close() }() // only cut
	return f.truncate(p.bytes)
}

// A partList holds the parts of the directory in use that no ingest has taken
// up, the oldest first.
type partList struct {
	mu    sync.Mutex // guards the fields below; never held during I/O
	epoch uint64     // of the directory
	all   []*part
}

// begin makes the list take parts of the directory of that epoch alone. It
// returns those that it had.
func (l *partList) begin(epoch uint64) []*part {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.all
	l.epoch, l.all = epoch, nil
	return before
}

// add adds a part. It returns a part that is not needed: the shorter of two of one
// blob from one registry, or a part of another directory.
func (l *partList) add(p *part) (less *part) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.disk.epoch != l.epoch {
		return p
	}
	at := slices.IndexFunc(l.all, func(o *part) bool { return o.name == p.name && o.registry == p.registry })
	if at >= 0 {
		if less = l.all[at]; less.bytes > p.bytes {
			return p
		}
		l.all = slices.Delete(l.all, at, at+1)
	}
	l.all = append(l.all, p)
	slices.SortStableFunc(l.all, func(a, b *part) int { return a.saved.Compare(b.saved) })
	return less
}

// take takes out the oldest part that fits, nil if there is none.
func (l *partList) take(fits func(*part) bool) *part {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := slices.IndexFunc(l.all, fits)
	if at < 0 {
		return nil
	}
	p := l.all[at]
	l.all = slices.Delete(l.all, at, at+1)
	return p
}

// registries returns the registries that the parts came from.
func (l *partList) registries() (all []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range l.all {
		all = append(all, p.registry)
	}
	return all
}

// parts keep downloads that broke off, for the next ingest of the blob.
type parts struct {
	list   partList
	room   room
	strays *strays
}

// adopt takes the parts that were found in the directory of that epoch.
func (p *parts) adopt(epoch uint64, all []*part) {
	p.forget(epoch)
	for _, one := range all {
		p.room.hold(one.registry, one.bytes)
		p.add(one)
	}
}

// forget forgets the parts of a directory that was lost. From now on it takes parts
// of the directory of that epoch.
func (p *parts) forget(epoch uint64) {
	for _, one := range p.list.begin(epoch) {
		p.room.release(one.registry, one.bytes)
	}
}

// add keeps a part. Its bytes are reserved already.
func (p *parts) add(one *part) {
	if less := p.list.add(one); less != nil {
		p.discard(less)
	}
}

// discard removes a part's files.
func (p *parts) discard(one *part) {
	if removedAnyhow(errors.Join(one.disk.remove(one.note), one.disk.remove(one.tmp))) {
		p.room.release(one.registry, one.bytes)
		return
	}
	p.strays.add(stray{one.disk, one.tmp, one.registry, one.bytes})
}

// drop discards all parts that fit.
func (p *parts) drop(fits func(*part) bool) {
	for one := p.list.take(fits); one != nil; one = p.list.take(fits) {
		p.discard(one)
	}
}

// yield drops parts when n more bytes of a registry need room: those that are
// older than the blob that would be evicted.
func (p *parts) yield(registry string, n int64) (dropped bool) {
	for {
		lack := p.room.lack(registry, n)
		if !lack.any {
			return dropped
		}
		one := p.list.take(func(one *part) bool {
			return one.saved.Unix() <= lack.used && (!lack.own || one.registry == registry)
		})
		if one == nil {
			return dropped
		}
		p.discard(one)
		dropped = true
	}
}

// expire drops the parts that are too old.
func (p *parts) expire(now time.Time) { p.drop(func(one *part) bool { return one.stale(now) }) }

// supersede drops the parts of a blob that is in the shard.
func (p *parts) supersede(n name) { p.drop(func(one *part) bool { return one.name == n }) }
