package peer

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"oci-proxy/transfer/wait"
)

// What a link keeps.
const (
	bulkIdle    = 8 // connections for blobs
	controlIdle = 8 // connections for all else: a peek should not have to wait for a handshake
)

// A link is what a client keeps of one boot of a member: connections and
// health. A member that restarted, or has another address or certificate, gets a
// new link, so that nothing of the old one is used for it.
type link struct {
	member  Member
	life    context.Context // ends when the link is given up
	end     context.CancelFunc
	health  health
	since   time.Time // when it was made
	through dialer

	mu            sync.Mutex      // guards the fields below; never held during I/O
	bulk, control *http.Transport // nil until one is needed: most members of a large cluster are told a word now and then
}

// newLink returns a link to m. own bounds it, handshake each TLS handshake. dead hears
// that the address of this boot of m refuses connections.
func newLink(own *wait.Life, m Member, dial dialer, handshake time.Duration, dead func(id string, boot uint64)) *link {
	m.Nonce = bytes.Clone(m.Nonce)
	l := &link{member: m, since: time.Now()}
	l.life, l.end = context.WithCancel(own.Context())
	out := &lookout{dial: dial, addr: m.Addr, life: l.life, own: own, tell: func() { dead(m.ID, m.Boot) }}
	l.through = dialer(out.connect)
	if l.pinned() {
		l.through = l.through.secured(pinned(m.Fingerprint), handshake)
	}
	return l
}

// over returns what makes the connections for blobs, or those for all else.
func (l *link) over(bulk bool) *http.Transport {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, idle := &l.control, controlIdle
	if bulk {
		t, idle = &l.bulk, bulkIdle
	}
	if *t == nil {
		*t = transport(l.through.to(l.member.Addr), idle)
	}
	return *t
}

// pinned reports whether TLS proves who answers over the link.
func (l *link) pinned() bool { return l.member.Fingerprint != [32]byte{} }

// fits reports whether the link leads to m as it is now.
func (l *link) fits(m Member) bool {
	return l.member.Boot == m.Boot && l.member.Addr == m.Addr && l.member.Fingerprint == m.Fingerprint && bytes.Equal(l.member.Nonce, m.Nonce)
}

// strange reports whether err says that the peer does not know this node yet, as may be while
// one of the two has just joined: gossip may have told one of them only.
func (l *link) strange(err error) bool {
	return errors.Is(err, errStranger) && time.Since(l.since) < strangeTime
}

// close gives the link up. Streams that are open go on.
func (l *link) close() {
	l.end()
	l.hangUp()
}

// rest is hangUp for a link that is hardly used: it keeps nothing, and begins anew when it is.
func (l *link) rest() {
	l.mu.Lock()
	gone := []*http.Transport{l.bulk, l.control}
	l.bulk, l.control = nil, nil
	l.mu.Unlock()
	endIdle(gone)
}

// hangUp closes the connections that carry no request now, and the others when they carry none.
func (l *link) hangUp() {
	l.mu.Lock()
	all := []*http.Transport{l.bulk, l.control}
	l.mu.Unlock()
	endIdle(all)
}

// endIdle ends the idle connections of those of the transports that are there.
func endIdle(all []*http.Transport) {
	for _, t := range all {
		if t != nil {
			t.CloseIdleConnections()
		}
	}
}

// transport makes the connections for one purpose. It takes no proxy from the
// environment. It speaks HTTP/1.1 only: each blob has a connection to itself, and
// the kernel copies at the other end.
func transport(dial dialer, idle int) *http.Transport {
	t := &http.Transport{
		DialContext:            dial,
		DisableCompression:     true,
		MaxIdleConns:           idle,
		MaxIdleConnsPerHost:    idle,
		IdleConnTimeout:        clientIdle,
		MaxResponseHeaderBytes: maxHeader,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	return t
}
