package memnet

import (
	"bytes"
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
	data     []part
	closed   bool
	deadline time.Time
	wake     chan struct{} // holds a value after a change; there is one reader
}

// A part is what was written at once, and when it arrives.
type part struct {
	data  []byte
	ready time.Time
}

func newHalf() *half { return &half{wake: make(chan struct{}, 1)} }

// change runs do with the lock held, and wakes the reader.
func (h *half) change(do func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	do()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Read waits for data.
func (s *stream) Read(b []byte) (int, error) {
	h := s.in
	for {
		h.mu.Lock()
		now := time.Now()
		until := h.deadline
		switch {
		case !h.deadline.IsZero() && !now.Before(h.deadline):
			h.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case len(h.data) > 0 && !now.Before(h.data[0].ready):
			n := h.take(b, now)
			h.mu.Unlock()
			return n, nil
		case len(h.data) > 0:
			if ready := h.data[0].ready; until.IsZero() || ready.Before(until) {
				until = ready
			}
		case h.closed:
			h.mu.Unlock()
			return 0, io.EOF
		}
		h.mu.Unlock()
		sleep(until, h.wake)
	}
}

// take moves what has arrived to b. The caller holds mu.
func (h *half) take(b []byte, now time.Time) (n int) {
	for len(h.data) > 0 && n < len(b) && !now.Before(h.data[0].ready) {
		first := &h.data[0]
		k := copy(b[n:], first.data)
		n, first.data = n+k, first.data[k:]
		if len(first.data) == 0 {
			h.data = h.data[1:]
		}
	}
	return n
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

// Write sends. It succeeds even if the link is cut. It waits until the host has sent what
// it may send in a second.
func (s *stream) Write(b []byte) (n int, err error) {
	for n < len(b) {
		k := min(len(b)-n, piece)
		if err := s.send(b[n : n+k]); err != nil {
			return n, err
		}
		n += k
	}
	return n, nil
}

// send sends a piece.
func (s *stream) send(b []byte) (err error) {
	l, left := s.from.net.send(s.from.at, s.to.at, len(b))
	arrives := !s.from.dead() && l.open
	s.out.change(func() {
		switch {
		case s.out.closed:
			err = io.ErrClosedPipe
		case arrives:
			s.out.data = append(s.out.data, part{bytes.Clone(b), left.Add(l.latency)})
		}
	})
	if wait := time.Until(left); wait > 0 && err == nil {
		<-time.After(wait)
	}
	return err
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

// SetDeadline does what SetReadDeadline does: writing waits for a moment only.
func (s *stream) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// SetReadDeadline bounds reads.
func (s *stream) SetReadDeadline(t time.Time) error {
	s.in.change(func() { s.in.deadline = t })
	return nil
}

// SetWriteDeadline does nothing: writing waits for a moment only.
func (s *stream) SetWriteDeadline(time.Time) error { return nil }
