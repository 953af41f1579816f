package cache

import (
	"math"
	"sync/atomic"
	"time"
)

// A state says whether an entry's blob is served, and what happens to its file.
type state uint8

const (
	free     state = iota // the slot is not used
	idle                  // in the shard, and nobody reads it: it can be evicted
	inUse                 // in the shard, and read
	retained              // in the shard, nobody reads it, and it is never evicted
	unranked              // in the shard, found by the listing, which has not put it into the order of use yet
	unread                // in the shard, a replica that is open only since it came in: evicted first
	evicted               // not served; its file is being removed to make room
	expelled              // not served; its file is being removed because it is damaged
	damaged               // not served; its file could not be removed and still counts
	gone                  // its file is removed; its bytes count until the last reader has left
	absent                // nothing counts; keeps the listing from adding a file that was removed meanwhile
)

// held reports whether the shard serves the blob.
func (s state) held() bool {
	return s == idle || s == inUse || s == unread || s == retained || s == unranked
}

// leaving reports whether the file is being removed.
func (s state) leaving() bool { return s == evicted || s == expelled }

// An entry is one blob of the index. It holds no pointer, and no more than each blob needs:
// see table.
type entry struct {
	key        key
	size       int64
	used       uint64 // the table's tick when it was last used
	prev, next int32  // towards more and less recently used; next also links the free slots
	last       uint32 // unix seconds when it was last used, or came
	touched    uint32 // unix seconds when its use was last noted on disk
	share      uint16
	state      state
	long       bool // the digest is a sha512: see table.rests
	manifest   bool // its meta has a media type
	spare      bool // another node's to keep: it goes before what is this node's
}

// A check says that all chunks of a blob were right in the file of that identity.
type check struct {
	id identity
	at int64 // unix nanoseconds
}

// seconds returns unix seconds as an entry has them. A time before 1970 is no use at all.
func seconds(t time.Time) uint32 { return uint32(min(max(t.Unix(), 0), math.MaxUint32)) }

// A pin represents the readers of one blob.
type pin struct {
	refs   int                  // guarded by the index
	checks sharedChecks         // shared by the readers
	told   atomic.Pointer[meta] // of a blob whose files were removed while it is read
}
