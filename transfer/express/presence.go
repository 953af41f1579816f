package express

import (
	"context"
	"sync"
	"syscall"
	"time"
)

// A presence is the context of requests over a connection, one after the other. As that of a
// request of net/http it ends when the client leaves, or the request is answered. Only if
// somebody waits for that it looks at the connection. Between requests it has ended.
type presence struct {
	context.Context // of the connection
	conn            *conn

	mu      sync.Mutex // guards the fields below
	here    bool       // a request is being answered, and the client has not left
	done    chan struct{}
	watcher chan struct{} // closed when nobody looks any more; nil: nobody does
}

// Err implements context.Context.
func (p *presence) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.here {
		return nil
	}
	return context.Canceled
}

// Done implements context.Context.
func (p *presence) Done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil {
		p.done = make(chan struct{})
		if p.here {
			p.watcher = make(chan struct{})
			_ = p.conn.SetReadDeadline(time.Time{}) // it fails on a connection that has ended
			go p.watch(p.watcher)
		} else {
			close(p.done)
		}
	}
	return p.done
}

// begin begins a request.
func (p *presence) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.here, p.done = true, nil
}

// end ends the request.
func (p *presence) end() {
	p.mu.Lock()
	watcher := p.watcher
	if watcher != nil {
		p.leave()
		_ = p.conn.SetReadDeadline(time.Unix(1, 0)) // ends its look
		p.conn.renewed = time.Time{}
		p.watcher = nil
	}
	p.here = false
	p.mu.Unlock()
	if watcher != nil {
		<-watcher
		p.conn.readWithin(time.Now(), 0)
	}
}

// leave ends the wait of those who wait. The caller holds mu.
func (p *presence) leave() {
	if p.here {
		p.here = false
		close(p.done)
	}
}

// watch looks whether the client leaves until it does, sends something or the request ends. It
// takes nothing of what came.
func (p *presence) watch(ended chan struct{}) {
	defer close(ended)
	left := true
	if raw, err := p.conn.SyscallConn(); err == nil {
		err = raw.Read(func(fd uintptr) bool {
			n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			for err == syscall.EINTR {
				n, _, err = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			}
			left = n <= 0
			return err != syscall.EAGAIN
		})
		left = left || err != nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if left && p.watcher == ended {
		p.leave()
	}
}
