package cache

import "math"

// maxShares bounds the shares. Registries beyond it have one share together,
// so that names made up by clients cost neither memory nor time.
const maxShares = 1024

// shares are the registries' parts of the shard. They have no lock; the index
// guards them.
type shares struct {
	total  space
	all    []share
	byName map[string]uint16
}

// A Cause is why a blob was evicted.
type Cause int

// The causes.
const (
	OverBound      Cause = iota // of the whole store
	OverShareBound              // of the registry's own share
	DiskFull                    // the disk has room for less than the bound
	Idle                        // nobody asked for it as long as Options.MaxIdle says
	causes                      // how many there are
)

// String returns the cause in a word.
func (c Cause) String() string {
	return [...]string{"bound", "registry_bound", "disk_full", "idle"}[c]
}

// A share is one registry's part of the shard.
type share struct {
	name      string
	space     space
	items     int64
	evictions [causes]uint64
}

// newShares returns shares with a bound for all, and bounds for single ones.
func newShares(bound int64, bounds map[string]int64) shares {
	s := shares{total: space{bound: bound}, byName: map[string]uint16{}}
	for name, b := range bounds {
		s.all[s.number(name)].space.bound = b
	}
	return s
}

// number returns the number of a registry's share, and makes the share if it is
// new.
func (s *shares) number(registry string) uint16 {
	if i, ok := s.byName[registry]; ok {
		return i
	}
	if len(s.all) >= maxShares {
		registry = "" // the share of all others
		if i, ok := s.byName[registry]; ok {
			return i
		}
	}
	i := uint16(len(s.all))
	s.all = append(s.all, share{name: registry})
	s.byName[registry] = i
	return i
}

// every reports whether ok holds for all that a share's bytes count towards.
func (s *shares) every(sh uint16, ok func(*space) bool) bool {
	return ok(&s.all[sh].space) && ok(&s.total)
}

// count calls add for all that a share's bytes count towards.
func (s *shares) count(sh uint16, add func(*space)) {
	add(&s.all[sh].space)
	add(&s.total)
}

// within reports whether n bytes of a share are within the bounds at all.
func (s *shares) within(sh uint16, n int64) bool {
	return s.every(sh, func(p *space) bool { return p.most() == 0 || n <= p.most() })
}

// exceeded reports whether a share or the whole is over its bound.
func (s *shares) exceeded(sh uint16) bool {
	return !s.every(sh, func(p *space) bool { return p.over(0) <= 0 })
}

// reserve counts n bytes as on their way in. Those that are pending may not be
// written yet.
func (s *shares) reserve(sh uint16, n, pending int64) {
	s.count(sh, func(p *space) {
		p.reserved += n
		p.pending += pending
	})
}

// A space is a bound and what counts towards it, in bytes. A blob counts its bytes;
// where there are very many small ones, also what they take on disk beside those: see
// load.
//
// Room is given out as if the leaving files were removed already, so that two blobs
// on their way in do not both evict for the same bytes. It is written to only once
// there is room on disk.
type space struct {
	bound    int64 // 0: none
	limit    int64 // how much the disk has room for, if that is less; 0: not known
	used     load  // blobs of the shard, leaving ones included
	idle     load  // part of used that could be evicted
	spare    load  // part of idle that is another node's to keep
	leaving  load  // part of used whose files are being removed, and that nobody reads
	reserved int64 // on its way in
	pending  int64 // part of reserved that may not be written yet
}

// over returns by how much n more bytes would exceed the bound once the leaving
// files are removed.
func (s *space) over(n int64) int64 {
	most := s.most()
	if most == 0 {
		return math.MinInt64
	}
	return n - (most - s.staying())
}

// staying returns what counts once the leaving files are removed.
func (s *space) staying() int64 { return s.used.without(s.leaving).counts(s.most()) + s.reserved }

// least returns what would count if all idle blobs were evicted too.
func (s *space) least() int64 {
	return s.used.without(s.leaving).without(s.idle).counts(s.most()) + s.reserved
}

// cause is why something is evicted to keep within most.
func (s *space) cause() Cause {
	if s.most() != s.bound {
		return DiskFull
	}
	return OverBound
}

// most returns the bound that counts: the lesser of bound and limit, 0: none.
func (s *space) most() int64 {
	if s.limit == 0 || s.bound != 0 && s.bound < s.limit {
		return s.bound
	}
	return s.limit
}

// fits reports whether evicting idle blobs would make room for n bytes. More bytes
// than the bound are refused before they are added to anything: strangers announce
// sizes.
func (s *space) fits(n int64) bool {
	most := s.most()
	return most == 0 || n <= most && n <= most-s.least()
}

// fitsBeside is fits for what is another node's to keep: nothing goes for it that is this
// node's.
func (s *space) fitsBeside(n int64) bool {
	most := s.most()
	return most == 0 || n <= most && n <= most-s.used.without(s.leaving).without(s.spare).counts(most)-s.reserved
}

// onDisk returns how many bytes of content the disk holds at most.
func (s *space) onDisk() int64 { return s.used.bytes + s.reserved - s.pending }

// crowded reports whether n pending bytes may not be written yet.
func (s *space) crowded(n int64) bool {
	most := s.most()
	return most != 0 && s.used.counts(most)+s.reserved-s.pending > most-n
}
