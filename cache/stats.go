package cache

import (
	"cmp"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
)

// Stats are figures of one registry's share.
type Stats struct {
	Items     int64  // blobs
	Bytes     int64  // of their content
	Bound     int64  // of the share, or of the store where the share has none
	Evictions uint64 // since start
}

// Stats returns the figures of each registry that has a share.
func (s *Store) Stats() map[string]Stats {
	x := s.index
	x.mu.Lock()
	defer x.mu.Unlock()
	out := make(map[string]Stats, len(x.shares))
	for _, sh := range x.shares {
		bound := sh.room.bound
		if bound == 0 {
			bound = x.room.bound
		}
		out[sh.name] = Stats{Items: sh.items, Bytes: sh.room.used - sh.room.leaving, Bound: bound, Evictions: sh.evictions}
	}
	return out
}

// Size returns the bytes that count towards the bound now: blobs, and room
// reserved for what is on its way in. It never exceeds the bound once the
// directory is listed.
func (s *Store) Size() int64 {
	s.index.mu.Lock()
	defer s.index.mu.Unlock()
	return s.index.room.onDisk()
}

// Bound returns the bound of the whole store in bytes, 0 where there is none.
func (s *Store) Bound() int64 { return s.opts.Bound }

// Origin returns the registry that brought the blob which d names into the
// shard, "" where that can't be told. It reports false if the shard does not
// hold it.
func (s *Store) Origin(d digest.Digest) (registry string, ok bool) {
	if _, ok := s.Stat(d); !ok {
		return "", false
	}
	n, err := nameOf(d)
	if err != nil {
		return "", false
	}
	e, ok := s.index.look(n)
	if !ok {
		return "", false
	}
	return s.origin(n, s.index.shareName(e.share)), true
}

// origin returns the registry that brought n, whose share has that name: shares
// are called after registries unless too many have one together. Then the meta
// tells, or nobody.
func (s *Store) origin(n name, share string) string {
	d := s.disk.Load()
	if share != "" || d == nil {
		return share
	}
	m, err := readMeta(d, n)
	if err != nil {
		return ""
	}
	return m.Registry
}

// shareName returns the name of a share.
func (x *index) shareName(i uint16) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.shares[i].name
}

// Held is a blob of the shard.
type Held struct {
	Digest   digest.Digest
	Registry string // that brought it, "" where that can't be told
	Size     int64  // bytes
}

// Blobs lists the blobs that the index knows by now, those last used first.
func (s *Store) Blobs() []Held {
	names, out := s.index.blobs()
	for i := range out {
		out[i].Registry = s.origin(names[i], out[i].Registry)
	}
	return out
}

// blobs lists the blobs, each with the name of its share as the registry.
func (x *index) blobs() ([]name, []Held) {
	x.mu.Lock()
	defer x.mu.Unlock()
	slots := slices.Collect(maps.Values(x.slots))
	slices.SortFunc(slots, func(a, b int32) int { return cmp.Compare(x.entries[b].used, x.entries[a].used) })
	names, out := make([]name, len(slots)), make([]Held, len(slots))
	for k, i := range slots {
		e := &x.entries[i]
		names[k] = name{key: e.key, long: e.long, rest: x.rests[i]}
		out[k] = Held{Digest: names[k].digest(), Registry: x.shares[e.share].name, Size: e.size}
	}
	return names, out
}

// MediaType returns the media type of a manifest of the shard, "" for a blob,
// and for what is not there.
func (s *Store) MediaType(d digest.Digest) string {
	n, err := nameOf(d)
	disk := s.disk.Load()
	if err != nil || disk == nil {
		return ""
	}
	m, err := readMeta(disk, n)
	if err != nil {
		return ""
	}
	return m.MediaType
}
