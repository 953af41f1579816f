package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"oci-proxy/transfer/wait"
)

// A trip is what is known of one round trip. Its context carries it to the dialer,
// which could not tell a proxy's address from a target's otherwise.
type trip struct {
	proxy *url.URL // nil: none
	place string   // that is dialled: scheme, host and port, and by which proxy
	plain bool     // without TLS to the target
	tries bool     // TLS, where the target may not speak it: probeTimeout bounds that
	probe *probe   // the dial of this trip, if it makes one
	gone  <-chan struct{}

	step      atomic.Int32                   // of the dial
	begun     [securing + 1]atomic.Int64     // when each step was, in unix nanoseconds; 0: it was not
	means     atomic.Pointer[[]netip.Addr]   // what the name that was looked up means; nil: none was
	waits     atomic.Bool                    // for a connection, and no longer than its limit
	handshake atomic.Bool                    // TLS with the target has failed
	met       atomic.Pointer[netip.AddrPort] // that took the connection which this trip dialled, if no proxy did
	connected bool                           // a connection was there
	since     time.Time                      // when it was
	reused    bool                           // it had carried other requests before
	remote    netip.Addr                     // its other end
}

// The steps of a dial.
const (
	waiting int32 = iota // nothing has begun
	lookingUp
	connecting
	securing
)

// enter notes that the dial has come to a step.
func (t *trip) enter(step int32) {
	t.begun[step].Store(time.Now().UnixNano())
	t.step.Store(step)
}

type tripKey struct{}

// newTrip returns the trip of a request to u.
func newTrip(proxy, u *url.URL) *trip {
	t := &trip{
		proxy: proxy, place: u.Scheme + "://" + hostPort(u), plain: u.Scheme == "http",
		probe: &probe{began: time.Now(), ended: make(chan struct{})},
	}
	if proxy != nil {
		t.place += " by " + proxy.Scheme + "://" + hostPort(proxy)
	}
	return t
}

// tripOf returns the trip that ctx belongs to.
func tripOf(ctx context.Context) *trip {
	if t, ok := ctx.Value(tripKey{}).(*trip); ok {
		return t
	}
	return newTrip(nil, &url.URL{})
}

// errUnreached ends a request that has waited for a connection for too long.
var errUnreached = errors.New("no connection in time")

// A lateError says which step of a dial took too long.
type lateError struct{ step int32 }

func (e *lateError) Error() string {
	return [...]string{"no connection in time", "the name was not looked up in time", "no connection in time", "no TLS handshake in time"}[e.step]
}

// Timeout implements net.Error.
func (e *lateError) Timeout() bool { return true }

// Temporary implements net.Error.
func (e *lateError) Temporary() bool { return true }

// send makes one round trip. It waits for a connection as long as n.patience says, from
// when the place was last reached by anybody: many dials at once may take their time. It
// hardly waits at all if the place is known to be out of reach. The dial goes on after that:
// where it succeeds, the next request has the connection.
func (n *network) send(req *http.Request, t *trip) (*http.Response, error) {
	probe, err := n.silences.enter(t.place)
	if err != nil {
		t.connected = true // that is not what is wrong there
		return nil, err
	}
	resp, err := n.exchange(req, t)
	n.silences.leave(t.place, probe, err == nil, t.waited(req.Context(), err), t.since)
	return resp, err
}

// exchange is send for a place that is not known to be silent.
func (n *network) exchange(req *http.Request, t *trip) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	var limit *wait.Limit // in which a node that hardly gets a processor notices its connection
	limit = wait.NewLimit(func() {
		if !t.waits.Load() { // the connection came while this began
			return
		}
		if left := n.outages.grace(t.place, n.patience); left > 0 {
			limit.Reset(left)
			return
		}
		cancel(errUnreached)
	})
	t.gone, t.tries = ctx.Done(), n.home.insecure && n.home.isOwn(req.URL)
	resp, err := n.over(req.URL).RoundTrip(req.WithContext(n.trace(ctx, t, limit)))
	if at := t.met.Load(); at != nil && !t.reused && (err == nil || req.Context().Err() == nil || isLate(context.Cause(req.Context()))) {
		n.dialer.doubts.note(*at, err == nil)
	}
	if err == nil {
		return resp, nil // its body needs ctx, which ends with the caller's
	}
	limit.Stop()
	if t.reused && wasSilent(req.Context(), err) {
		n.closeIdle() // what lost this connection has lost the others: the next try makes a new one
	}
	err = n.noteOutage(ctx, t, err)
	cancel(nil)
	return nil, err
}

// wasSilent reports whether err says that no answer came in the time that one has. It
// does not if the caller went.
func wasSilent(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		why := context.Cause(ctx)
		return errors.Is(why, errTry) || errors.Is(why, errLate)
	}
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout()
}

// noteOutage remembers why there was no connection, and returns the error to report.
func (n *network) noteOutage(ctx context.Context, t *trip, err error) error {
	_, old := errors.AsType[*remembered](err)
	switch {
	case errors.Is(context.Cause(ctx), errUnreached):
		if known := n.outages.known(t.place); known != nil {
			return known
		}
		late := &lateError{t.step.Load()}
		n.outages.failed(t.place, t.probe, late, true)
		return late
	case ctx.Err() == nil && !t.connected && !old && undialled(err):
		n.outages.failed(t.place, t.probe, err, false)
	}
	return err
}

// undialled reports whether err says that no connection came about, and another
// request soon after would fare no better. A proxy that refuses does so for reasons of
// its own.
func undialled(err error) bool {
	_, guarded := errors.AsType[*refusal](err)
	_, dns := errors.AsType[*net.DNSError](err)
	refused, byProxy := errors.AsType[*proxyRefusal](err)
	op, isOp := errors.AsType[*net.OpError](err)
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case byProxy:
		return refused.status >= 500
	case isOp && (op.Op == "dial" || op.Op == "proxyconnect" || strings.HasPrefix(op.Op, "socks")):
		return true
	}
	return guarded || dns || isNet && timeout.Timeout()
}

// addressOf returns the IP address of one end of a connection, the zero Addr if it has none.
func addressOf(end net.Addr) netip.Addr {
	if tcp, ok := end.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	at, _ := netip.ParseAddrPort(end.String())
	return at.Addr()
}

// trace returns ctx with t in it. limit ends the request unless there is a connection
// in time.
func (n *network) trace(ctx context.Context, t *trip, limit *wait.Limit) context.Context {
	least, again := glance/10, false // an idle connection is there at once
	end := time.Now().Add(n.outages.patience(t.place, n.patience))
	ctx = context.WithValue(ctx, tripKey{}, t)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// The Transport may call it twice: if a connection that was idle turns out to
		// be dead, it needs another.
		GetConn: func(string) {
			if again {
				n.closeIdle() // the others are dead, too
				least = glance
			}
			again = true
			t.waits.Store(true)
			limit.Reset(max(time.Until(end), least))
		},
		GotConn: func(info httptrace.GotConnInfo) {
			t.waits.Store(false)
			limit.Stop()
			t.connected, t.reused, t.since = true, info.Reused, time.Now()
			if !info.Reused {
				n.outages.reached(t.place, t.probe)
			}
			t.remote = addressOf(info.Conn.RemoteAddr())
		},
		TLSHandshakeStart: func() {
			t.enter(securing)
			if t.tries {
				t.waits.Store(false)
				limit.Stop()
			}
		},
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) {
			t.handshake.Store(err != nil)
			if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() && !t.tries {
				n.outages.failed(t.place, t.probe, err, false)
				return
			}
			n.outages.reached(t.place, t.probe)
		},
	})
}
