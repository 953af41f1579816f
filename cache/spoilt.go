package cache

// What is damaged and can't be removed counts, and is not served. It is tried
// again; another file that takes the name does as well.

// removeSpoilt tries again to remove what is damaged. No blob comes in under
// their names meanwhile.
func (s *Store) removeSpoilt(d *disk) {
	s.committing.Lock()
	defer s.committing.Unlock()
	for _, n := range s.index.spoiltNames() {
		if err := d.remove(n.path()); err == nil {
			s.index.removed(n.key)
		}
	}
}

// spoiltNames names the blobs whose files are still to be removed.
func (x *index) spoiltNames() (all []name) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, i := range x.spoilt {
		e := &x.entries[i]
		all = append(all, name{key: e.key, long: e.long, rest: x.rests[i]})
	}
	return all
}

// removed says that the file of a spoilt blob is away.
func (x *index) removed(k key) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.replaced(k)
}

// replaced says that another file has taken the name of a spoilt one, if there
// is one.
func (x *index) replaced(k key) {
	if i, ok := x.spoilt[k]; ok {
		delete(x.spoilt, k)
		x.entries[i].file = false
		x.drop(i)
	}
}
