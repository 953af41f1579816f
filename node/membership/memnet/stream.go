package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// A stream is one end of a connection between two hosts.
type stream struct {
	from, to *Transport
	in, out  *half
}

// streamPair makes both ends of a connection.
func streamPair(a, b *Transport) (here, there *stream) {
	ab, ba := newHalf(), newHalf()
	return &stream{a, b, ba, ab}, &stream{b, a, ab, ba}
}

// A half is one direction of a connection.
type half struct {
	mu       sync.Mutex // guards the fields below; never held during I/O
	data     []byte
	ready    time.Time // when data arrives
	closed   bool
	deadline time.Time
	wake     chan struct{} // closed at the next change
}

func newHalf() *half { return &half{wake: make(chan struct{})} }

// change runs do with the lock held, and wakes the reader.
func (h *half) change(do func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	do()
	close(h.wake)
	h.wake = make(chan struct{})
}

// Read waits for data.
func (s *stream) Read(b []byte) (int, error) {
	h := s.in
	for {
		h.mu.Lock()
		now := time.Now()
		until, wake := h.deadline, h.wake
		switch {
		case !h.deadline.IsZero() && !now.Before(h.deadline):
			h.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case len(h.data) > 0 && !now.Before(h.ready):
			n := copy(b, h.data)
			h.data = h.data[n:]
			h.mu.Unlock()
			return n, nil
		case len(h.data) > 0:
			if until.IsZero() || h.ready.Before(until) {
				until = h.ready
			}
		case h.closed:
			h.mu.Unlock()
			return 0, io.EOF
		}
		h.mu.Unlock()
		sleep(until, wake)
	}
}

// sleep waits for wake, or until the time unless it is zero.
func sleep(until time.Time, wake <-chan struct{}) {
	if until.IsZero() {
		<-wake
		return
	}
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-wake:
	case <-t.C:
	}
}

// Write sends. It succeeds even if the link is cut.
func (s *stream) Write(b []byte) (int, error) {
	l := s.from.net.forStream(s.from.at, s.to.at)
	if s.from.dead() || !l.open {
		return len(b), nil
	}
	err := error(nil)
	s.out.change(func() {
		if s.out.closed {
			err = io.ErrClosedPipe
			return
		}
		s.out.data = append(s.out.data, b...)
		s.out.ready = time.Now().Add(l.latency)
	})
	if err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close closes both directions.
func (s *stream) Close() error {
	s.in.change(func() { s.in.closed = true })
	s.out.change(func() { s.out.closed = true })
	return nil
}

// LocalAddr returns the host's address.
func (s *stream) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(s.from.at) }

// RemoteAddr returns the other host's address.
func (s *stream) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(s.to.at) }

// SetDeadline does what SetReadDeadline does: writing never waits.
func (s *stream) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// SetReadDeadline bounds reads.
func (s *stream) SetReadDeadline(t time.Time) error {
	s.in.change(func() { s.in.deadline = t })
	return nil
}

// SetWriteDeadline does nothing: writing never waits.
func (s *stream) SetWriteDeadline(time.Time) error { return nil }
