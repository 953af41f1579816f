package pages

import (
	"io"
	"sync"
)

// unkept are pages that could not be kept, for as long as somebody reads them. All who
// got the same page read the same bytes.
type unkept struct {
	mu     sync.Mutex // guards byName and the users of each; never held during I/O
	byName map[string]*loan
}

// A loan is a page with those who read it.
type loan struct {
	body  io.ReaderAt
	let   func() // lets the bytes go
	users int
}

// join returns the bytes of the page of that name if somebody reads it. leave ends their
// use.
func (u *unkept) join(name string) (body io.ReaderAt, leave func(), ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	l := u.byName[name]
	if l == nil {
		return nil, nil, false
	}
	l.users++
	return l.body, func() { u.leave(name, l) }, true
}

// add adds a page. leave ends its use by whoever brought it.
func (u *unkept) add(name string, body io.ReaderAt, let func()) (leave func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	l := &loan{body, let, 1}
	if u.byName[name] == nil { // else another came at the same time
		u.byName[name] = l
	}
	return func() { u.leave(name, l) }
}

// leave ends one use.
func (u *unkept) leave(name string, l *loan) {
	u.mu.Lock()
	l.users--
	last := l.users == 0
	if last && u.byName[name] == l {
		delete(u.byName, name)
	}
	u.mu.Unlock()
	if last {
		l.let()
	}
}
