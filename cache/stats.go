package cache

import (
	"math"

	"github.com/opencontainers/go-digest"
)

// Stats are figures of one registry's share.
type Stats struct {
	Items     int64          // blobs
	Bytes     int64          // of their content
	Bound     int64          // of the share, or of the store if the share has none
	Evictions [causes]uint64 // since start, by Cause
}

// Evicted returns how many blobs were evicted since start, for whatever cause.
func (s Stats) Evicted() (n int64) {
	for _, one := range s.Evictions {
		n += int64(one)
	}
	return n
}

// Stats returns the figures of each registry that has a share.
func (s *Store) Stats() map[string]Stats { return s.shard.allocator.stats() }

// Size returns the bytes that count towards the bound now: blobs, and room reserved
// for blobs on their way in. It never exceeds the bound once the directory is
// listed.
func (s *Store) Size() int64 { return s.shard.allocator.size() }

// Bound returns the bound of the whole store in bytes, 0 if there is none.
func (s *Store) Bound() int64 { return room{s.shard.index}.bound() }

// SetBounds changes what Options.Bound and Options.Shares said. What is too much by then goes
// within seconds, unless it is being read.
func (s *Store) SetBounds(bound int64, shares map[string]int64) {
	room{s.shard.index}.setBounds(bound, shares)
}

// HasRoomBeside reports whether size bytes of a registry have room at the moment beside what
// is this node's to keep: a Replica of that size would be kept.
func (s *Store) HasRoomBeside(registry string, size int64) bool {
	return room{s.shard.index}.hasRoomBeside(registry, size)
}

// Free returns how many bytes were free on the disk when the store last looked, a few
// seconds ago. It reports false if no directory is in use, or if the disk does not tell.
// It does no I/O.
func (s *Store) Free() (bytes int64, ok bool) {
	n := s.care.free.Load()
	return max(n, 0), n >= 0
}

// Verified returns what the store verified since start: of what came in, by its digest,
// and of what it holds, by its sums.
func (s *Store) Verified() (incoming, held Verified) { return s.shard.verified.figures() }

// Origin returns the registry that brought the blob which d names into the
// shard, "" if that can't be told. It reports false if the shard does not hold
// it. It may read the disk.
func (s *Store) Origin(d digest.Digest) (registry string, ok bool) {
	n, err := nameOf(d)
	if err != nil {
		return "", false
	}
	_, share, ok := s.shard.opener.find(n)
	if !ok {
		return "", false
	}
	return s.shard.opener.origin(n, share), true
}

// Held is a blob of the shard.
type Held struct {
	Digest   digest.Digest
	Registry string // that brought it, "" if that can't be told
	Size     int64  // bytes
}

// Blobs lists the blobs that the index knows by now, those last used first. It
// may read the disk. What comes or goes meanwhile may be listed or not.
func (s *Store) Blobs() []Held { return s.Newest(math.MaxInt) }

// Newest is Blobs for at most so many, those last used. It needs room for those alone.
func (s *Store) Newest(most int) []Held {
	r := stockroom{s.shard.index}
	uses := r.uses()
	out := r.held(uses[:min(len(uses), most)])
	for i := range out {
		if n, err := nameOf(out[i].Digest); err == nil { // it was made of a name
			out[i].Registry = s.shard.opener.origin(n, out[i].Registry)
		}
	}
	return out
}
