package certs

import (
	"cmp"
	"crypto/rand"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
)

// A shelf is this node's copy of all records: in memory, and in a folder on its disk. A disk
// that fails changes nothing for those who read and write.
type shelf struct {
	id     string // of this start: a place in its order means nothing to another start
	folder string
	turn   chan struct{} // holds a value while the folder is written

	mu     sync.Mutex // guards the fields below; never held during I/O
	slots  map[string]*slot
	last   uint64 // place of the record that came last
	top    uint64 // the highest version that was ever here
	bytes  int
	came   chan struct{} // closed when a record comes
	failed error         // why the folder cannot be used; nil if it can

	unsaved map[string]error // keys whose records are not in the folder as they are here, and why
}

// A slot is a record and its place in the order in which records came.
type slot struct {
	record
	place uint64
}

// openShelf reads the folder.
func openShelf(folder string) *shelf {
	s := &shelf{id: rand.Text(), folder: folder, turn: make(chan struct{}, 1), slots: map[string]*slot{}, unsaved: map[string]error{}, came: make(chan struct{})}
	records, err := readFolder(folder)
	for i := range records {
		err = errors.Join(err, s.keep(&records[i]))
	}
	s.failed = err
	return s
}

// failure returns why the folder cannot be used.
func (s *shelf) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, err := range s.unsaved {
		return err
	}
	return s.failed
}

// changes is closed when a record comes.
func (s *shelf) changes() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.came
}

// get returns the value of a key.
func (s *shelf) get(key string) (value []byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.slots[key]
	if one == nil || one.Gone {
		return nil, false
	}
	return slices.Clone(one.Value), true
}

// record returns the record of a key that has a value. Nobody may change it.
func (s *shelf) record(key string) (r record, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := s.slots[key]; one != nil && !one.Gone {
		return one.record, true
	}
	return record{}, false
}

// under lists the records with values below a folder, "" for all, in the order of their keys.
// Nobody may change their values.
func (s *shelf) under(folder string) (all []record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, one := range s.slots {
		if !one.Gone && (folder == "" || strings.HasPrefix(key, folder+"/")) {
			all = append(all, one.record)
		}
	}
	slices.SortFunc(all, func(a, b record) int { return cmp.Compare(a.Key, b.Key) })
	return all
}

// write numbers a record, and keeps it. by is who numbers it.
func (s *shelf) write(r record, by string) (record, error) {
	s.mu.Lock()
	r.Version, r.By = s.top+1, by
	err := r.check()
	if err == nil {
		_, err = s.place(&r)
	}
	s.mu.Unlock()
	if err != nil {
		return r, err
	}
	s.save(r.Key)
	return r, nil
}

// highest is the highest version that was ever here.
func (s *shelf) highest() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.top
}

// raise numbers what is written next beyond a version that another node has seen.
func (s *shelf) raise(version uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if version <= s.top+maxLeap {
		s.top = max(s.top, version)
	}
}

// put keeps a record that came from another member, if it is newer.
func (s *shelf) put(r *record) error {
	if err := r.check(); err != nil {
		return err
	}
	s.mu.Lock()
	if r.Version > s.top+maxLeap {
		s.mu.Unlock()
		return nil // of a member that lies: nothing could be numbered after it
	}
	news, err := s.place(r)
	s.mu.Unlock()
	if news {
		s.save(r.Key)
	}
	return err
}

// keep keeps a record that came from the folder.
func (s *shelf) keep(r *record) error {
	if err := r.check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Version > s.top+maxLeap {
		return errRecord
	}
	_, err := s.place(r)
	return err
}

var errFull = errors.New("there are too many certificates to keep")

// place gives a record its place, if it is newer. The caller holds mu.
func (s *shelf) place(r *record) (news bool, err error) {
	old := s.slots[r.Key]
	if old != nil && !r.newer(&old.record) {
		return false, nil
	}
	grown := s.bytes + len(r.Value)
	if old != nil {
		grown -= len(old.Value)
	} else if len(s.slots) >= maxRecords && !s.forget() {
		return false, errFull
	}
	if grown > maxBytes {
		return false, errFull
	}
	s.bytes, s.last, s.top = grown, s.last+1, max(s.top, r.Version)
	s.slots[r.Key] = &slot{record{r.Key, r.Version, r.By, r.Gone, slices.Clone(r.Value)}, s.last}
	close(s.came)
	s.came = make(chan struct{})
	return true, nil
}

// forget makes room: the oldest record of what was deleted goes. The caller holds mu.
func (s *shelf) forget() bool {
	oldest := ""
	for key, one := range s.slots {
		if one.Gone && (oldest == "" || one.Version < s.slots[oldest].Version) {
			oldest = key
		}
	}
	delete(s.slots, oldest)
	return oldest != ""
}

// after lists records in the order in which they came, those after a place, until page bytes of
// values are reached. last is the place of the last one; more reports whether others follow.
func (s *shelf) after(place uint64, page int) (all []record, last uint64, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var slots []*slot
	for _, one := range s.slots {
		if one.place > place {
			slots = append(slots, one)
		}
	}
	slices.SortFunc(slots, func(a, b *slot) int { return cmp.Compare(a.place, b.place) })
	last = place
	for bytes := 0; len(slots) > 0; slots = slots[1:] {
		if bytes += len(slots[0].Value) + len(slots[0].Key) + 100; bytes > page && len(all) > 0 {
			return all, last, true
		}
		all, last = append(all, slots[0].record), slots[0].place
	}
	return all, last, false
}

// save writes the record of a key to the folder, as it is by then.
func (s *shelf) save(key string) {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.mu.Lock()
	one := s.slots[key]
	s.mu.Unlock()
	var err error
	if one != nil { // its fields never change
		err = saveRecord(s.folder, &one.record)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.unsaved[key] = err
		return
	}
	delete(s.unsaved, key)
	s.failed = nil
}

// saveAgain tries to write what could not be written.
func (s *shelf) saveAgain() {
	s.mu.Lock()
	keys := slices.Collect(maps.Keys(s.unsaved))
	s.mu.Unlock()
	for _, key := range keys {
		s.save(key)
	}
}
