package journal

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// How much of the same is logged.
const (
	// window is for how long a line stands for all that are equal to it.
	window = time.Minute
	// mostLike is how many different lines with one message are logged in a window.
	mostLike = 60
	// mostKnown bounds the lines that are remembered, and the messages.
	mostKnown = 1000
)

// A quiet keeps a flood of equal lines out of the log, and tells how many there were.
// Strangers can make a node log, so all that it knows is bounded and forgets singly.
type quiet struct {
	mu    sync.Mutex // guards all below; never held during I/O
	equal *simplelru.LRU[any, *flood]
	alike *simplelru.LRU[any, *flood]
	gone  []*flood // that were forgotten with lines to tell of
}

// A flood is what came of one line, or of all lines with one message, since its window began.
type flood struct {
	until time.Time
	said  int         // lines that were logged
	held  int         // lines that were not
	last  line        // of those
	timer *time.Timer // tells of them
}

// A line is one that was not logged.
type line struct {
	to     slog.Handler
	record slog.Record
}

func newQuiet() *quiet {
	q := &quiet{}
	for _, list := range []**simplelru.LRU[any, *flood]{&q.equal, &q.alike} {
		made, err := simplelru.NewLRU(mostKnown, func(_ any, f *flood) { q.forgotten(f) })
		if err != nil {
			panic("journal: " + err.Error()) // only for a size below 1
		}
		*list = made
	}
	return q
}

// admit reports whether a line is to be logged: as the first of its kind in a window, and not
// with too many that say almost the same.
func (q *quiet) admit(key uint64, message string, l line) bool {
	q.mu.Lock()
	ok := q.count(q.equal, key, 1, l) && q.count(q.alike, message, mostLike, l)
	gone := q.gone
	q.gone = nil
	q.mu.Unlock()
	for _, f := range gone {
		f.tell()
	}
	return ok
}

// count counts a line, and reports whether fewer than most were logged in its window. The
// caller holds mu.
func (q *quiet) count(list *simplelru.LRU[any, *flood], key any, most int, l line) bool {
	now := time.Now()
	f, known := list.Get(key)
	if !known || !now.Before(f.until) {
		list.Remove(key) // which tells of what was held back
		f = &flood{until: now.Add(window)}
		list.Add(key, f)
	}
	if f.said < most {
		f.said++
		return true
	}
	f.held++
	f.last = line{l.to, l.record.Clone()}
	if f.timer == nil {
		f.timer = time.AfterFunc(f.until.Sub(now), func() { q.end(list, key, f) })
	}
	return false
}

// forgotten notes what the log has to hear of a flood that is no longer known. The caller
// holds mu.
func (q *quiet) forgotten(f *flood) {
	if f.held > 0 && (f.timer == nil || f.timer.Stop()) {
		q.gone = append(q.gone, f)
	}
}

// end ends a flood's window and tells of what was held back.
func (q *quiet) end(list *simplelru.LRU[any, *flood], key any, f *flood) {
	q.mu.Lock()
	if now, known := list.Peek(key); known && now == f {
		list.Remove(key) // its timer has fired, so forgotten leaves it to this call
	}
	q.mu.Unlock()
	f.tell()
}

// tell logs the last line that was held back, and how many there were.
func (f *flood) tell() {
	r := f.last.record.Clone()
	r.Time = time.Now()
	r.AddAttrs(slog.Int("not_logged", f.held))
	_ = f.last.to.Handle(context.Background(), r) // as log/slog does
}
