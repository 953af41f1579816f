package feed

import (
	"crypto/rand"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// maxTrees bounds the blobs that spread at a time.
	maxTrees = 256
	// idle is how long a tree is kept that nobody asks for. Till then whom a node fed counts,
	// whether or not it has it all by now.
	idle = time.Minute
)

// Trees are those of which this node is the root. The methods may be called from any
// goroutine.
type Trees struct {
	zone   string
	sentOn atomic.Int64

	mu  sync.Mutex // guards the field below; never held during I/O
	all *simplelru.LRU[string, *tree]
}

// A tree is one of Trees.
type tree struct {
	*Tree
	name string // no other tree ever has it
	last time.Time
}

// NewTrees returns the trees of a node in that zone.
func NewTrees(zone string) *Trees {
	all, _ := simplelru.NewLRU[string, *tree](maxTrees, nil) // the size is right
	return &Trees{zone: zone, all: all}
}

// Place is Tree.Place for the blob of that key. a.Seat counts for nothing: seat is the one
// that the asker was told, "" for none. own is the one that it has from now on, and by is
// the feeder's as that was told it, "" if this node is to feed. own is "" if that is all.
func (t *Trees) Place(key string, a Asker, seat string) (own string, feeder Feeder, by string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.forget(now)
	one, ok := t.all.Get(key)
	if !ok || one.Full() {
		one = &tree{Tree: NewTree(t.zone), name: rand.Text()}
		t.all.Add(key, one)
	}
	one.last = now
	a.Seat = one.number(seat)
	number, feeder := one.Tree.Place(a, now)
	if number == 0 {
		return "", Feeder{}, ""
	}
	if feeder.Seat != 0 {
		t.sentOn.Add(1)
		by = one.seat(feeder.Seat)
	}
	return one.seat(number), feeder, by
}

// forget drops the trees that nobody asked for of late.
func (t *Trees) forget(now time.Time) {
	for {
		_, one, ok := t.all.GetOldest()
		if !ok || now.Sub(one.last) <= idle {
			return
		}
		t.all.RemoveOldest()
	}
}

// Told is Tree.Told for the blob of that key.
func (t *Trees) Told(key, id, seat string, came, root int64) (leave bool, next time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	t.forget(now)
	one, ok := t.all.Peek(key)
	if !ok || one.at(id, one.number(seat)) == nil {
		return false, Every
	}
	t.all.Get(key) // it is used
	one.last = now
	return one.Tree.Told(id, one.number(seat), came, root, now)
}

// SentOn returns how many askers were sent on to another node since start.
func (t *Trees) SentOn() int64 { return t.sentOn.Load() }

// seat is a seat of the tree as it is told.
func (t *tree) seat(number int) string { return t.name + "." + strconv.Itoa(number) }

// number reads what seat wrote, 0 if it is none of this tree.
func (t *tree) number(seat string) int {
	name, s, _ := strings.Cut(seat, ".")
	n, err := strconv.Atoi(s)
	if err != nil || name != t.name || n < 0 {
		return 0
	}
	return n
}
