package live

import (
	"maps"
	"slices"
	"sync"
)

// A listener is a client that hears events.
type listener struct {
	viewer  Viewer
	queue   chan []byte   // of events
	dropped chan struct{} // closed when it hears no more
	once    sync.Once

	// Of the sampler alone.
	greeted bool   // it has heard of all topics
	pulls   string // that it heard of last
}

// drop ends it.
func (li *listener) drop() { li.once.Do(func() { close(li.dropped) }) }

// hear puts an event into its queue. One whose queue is full does not read: it is dropped.
func (li *listener) hear(e []byte) {
	select {
	case li.queue <- e:
	default:
		li.drop()
	}
}

// listeners are all who listen.
type listeners struct {
	came chan struct{} // has an element when somebody came

	mu     sync.Mutex // guards the fields below; never held during I/O
	all    map[*listener]struct{}
	from   map[string]int // how many are counted together
	ending bool
}

func newListeners() *listeners {
	return &listeners{came: make(chan struct{}, 1), all: map[*listener]struct{}{}, from: map[string]int{}}
}

// add adds a listener, if there is room. Call remove in the end.
func (l *listeners) add(v Viewer) (*listener, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.ending:
		return nil, ErrEnding
	case len(l.all) >= maxListeners || l.from[v.From] >= maxFrom:
		return nil, ErrFull
	}
	li := &listener{viewer: v, queue: make(chan []byte, maxQueue), dropped: make(chan struct{})}
	l.all[li] = struct{}{}
	l.from[v.From]++
	select {
	case l.came <- struct{}{}:
	default: // the sampler has not yet seen the one before
	}
	return li, nil
}

// remove forgets a listener.
func (l *listeners) remove(li *listener) {
	li.drop()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.all, li)
	if l.from[li.viewer.From]--; l.from[li.viewer.From] == 0 {
		delete(l.from, li.viewer.From)
	}
}

// now are those who listen now.
func (l *listeners) now() []*listener {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.all))
}

// many is how many there are.
func (l *listeners) many() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all)
}

// end drops all. With forGood no more are added.
func (l *listeners) end(forGood bool) {
	l.mu.Lock()
	l.ending = l.ending || forGood
	l.mu.Unlock()
	for _, li := range l.now() {
		li.drop()
	}
}
