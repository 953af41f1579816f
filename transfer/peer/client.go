package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
)

// ClientConfig is what a Client works with. All fields but Dial are needed.
type ClientConfig struct {
	Self      string   // this node's id
	SelfNonce []byte   // this node's boot nonce, as gossip tells it to the others
	Keys      [][]byte // the cluster's secrets; the first signs
	// Member returns what gossip tells of a node by now. It is asked for each
	// request and answers at once.
	Member func(id string) (Member, bool)
	Log    *slog.Logger
	// Dial connects to a member's address, nil: over TCP.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// times are how long things take. Tests shorten them.
type times struct {
	call, peek, progress time.Duration // of an answer
	busy                 time.Duration // how long a busy peer is asked again
}

// A Client asks other members. It is safe for concurrent use.
type Client struct {
	cfg    ClientConfig
	times  times
	keys   keys
	number atomic.Uint64 // of the last request; never begins anew
	life   context.Context
	end    context.CancelFunc
	pings  sync.WaitGroup

	mu     sync.Mutex
	closed bool
	links  map[string]*link // by member's id
}

// NewClient returns a Client. Close it.
func NewClient(cfg ClientConfig) *Client {
	if cfg.Dial == nil {
		cfg.Dial = dialTCP
	}
	c := &Client{cfg: cfg, links: map[string]*link{}, times: times{
		call: callTime, peek: 250 * time.Millisecond, progress: 2 * time.Second, busy: 10 * time.Second,
	}}
	c.life, c.end = context.WithCancel(context.Background())
	c.SetKeys(cfg.Keys)
	return c
}

// SetKeys exchanges the cluster's secrets: the first signs from now on.
func (c *Client) SetKeys(keys [][]byte) { c.keys.set(keys) }

// Close ends the pings and closes idle connections. Streams that are open go
// on. Nothing new can be asked.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	gone := c.links
	c.links = map[string]*link{}
	c.mu.Unlock()
	c.end()
	c.pings.Wait()
	for _, l := range gone {
		l.close()
	}
}

// Healthy reports whether the member of that id is known and not passed over at
// the moment. One that is passed over may still be asked.
func (c *Client) Healthy(id string) bool {
	m, known := c.cfg.Member(id)
	c.mu.Lock()
	l := c.links[id]
	c.mu.Unlock()
	return known && (l == nil || !l.fits(m) || l.pulse.well())
}

// Peer returns the member of that id as a transfer.Peer. It does no I/O, and
// does not ask whether there is such a member: if not, the calls fail.
func (c *Client) Peer(id string) mesh.Peer { return &remote{c, id} }

// Stats returns what the member counts, at most 1 MiB of JSON. ctx bounds it,
// and 39 s. Errors are *transfer.PeerError.
func (c *Client) Stats(ctx context.Context, id string) (json.RawMessage, error) {
	return c.stats(ctx, id)
}

// name is what people call the member.
func (c *Client) name(id string) string {
	if m, ok := c.cfg.Member(id); ok && m.Name != "" {
		return m.Name
	}
	return id
}

var (
	errUnknown = errors.New("no such member")
	errClosed  = errors.New("this node is shutting down")
	errNoKey   = errors.New("there is no key to sign with")
	errLate    = errors.New("no answer in time")
)

// fails makes an error of the peer itself.
func (c *Client) fails(id string, err error) error {
	return &mesh.PeerError{Peer: c.name(id), Err: err}
}

// link returns the link to a member as it is now, and forgets those to members
// that are gone. The error is a *transfer.PeerError.
func (c *Client) link(id string) (*link, error) {
	m, known := c.cfg.Member(id)
	if !known || len(m.Nonce) == 0 {
		c.forget(id)
		return nil, c.fails(id, errUnknown)
	}
	c.mu.Lock()
	old := c.links[id]
	if c.closed {
		c.mu.Unlock()
		return nil, c.fails(id, errClosed)
	}
	if old != nil && old.fits(m) {
		c.mu.Unlock()
		return old, nil
	}
	m.ID = id
	l := newLink(c.life, m, c.cfg.Dial)
	c.links[id] = l
	c.mu.Unlock()
	if old != nil {
		old.close()
	}
	c.sweep()
	return l, nil
}

// sweep forgets members that are gone. It runs when one is new, so that what is
// kept is bounded by what gossip knows.
func (c *Client) sweep() {
	c.mu.Lock()
	ids := make([]string, 0, len(c.links))
	for id := range c.links {
		ids = append(ids, id)
	}
	c.mu.Unlock()
	for _, id := range ids {
		if _, known := c.cfg.Member(id); !known {
			c.forget(id)
		}
	}
}

// forget gives up the link to a member.
func (c *Client) forget(id string) {
	c.mu.Lock()
	l := c.links[id]
	delete(c.links, id)
	c.mu.Unlock()
	if l != nil {
		l.close()
	}
}

// An ask is one request.
type ask struct {
	method string
	path   string
	query  query
	span   string // Range
	body   []byte
	bulk   bool
}

// request signs and builds it for one peer.
func (c *Client) request(ctx context.Context, l *link, a ask) (*http.Request, error) {
	all := c.keys.all()
	if len(all) == 0 {
		return nil, errNoKey
	}
	u := &url.URL{Scheme: "http", Host: "peer", Path: a.path}
	if a.query.Registry != "" {
		u.RawQuery = a.query.encode()
	}
	if len(u.RawQuery) > maxQuery { // a client's; the peer would take it for a stranger's
		return nil, &oci.Error{Kind: oci.Invalid, Registry: a.query.Registry, Reason: "the query is too long"}
	}
	req, err := http.NewRequestWithContext(ctx, a.method, u.String(), bytes.NewReader(a.body))
	if err != nil {
		return nil, fmt.Errorf("building a request: %w", err)
	}
	key := all[0]
	if m, ok := c.cfg.Member(l.member.ID); ok && m.Key > 0 && m.Key < len(all) {
		key = all[m.Key]
	}
	s := statement{
		receiver: l.member.Nonce, sender: c.cfg.Self, nonce: c.cfg.SelfNonce, number: c.number.Add(1),
		method: a.method, path: u.EscapedPath(), query: u.RawQuery, span: a.span, body: a.body,
	}
	req.Header.Set(headerAuth, auth{s.sender, s.number, s.sign(key)}.String())
	req.Header.Set("User-Agent", "")
	if a.span != "" {
		req.Header.Set("Range", a.span)
	}
	// A kept connection that the peer has just closed is no reason to fail: the
	// same request, which the peer takes once only, goes over another.
	req.Header["Idempotency-Key"] = nil
	return req, nil
}

// once asks one time. The answer is marked and tells of no failure; other
// errors are *transfer.Error and *transfer.PeerError.
func (c *Client) once(ctx context.Context, l *link, a ask) (*http.Response, error) {
	req, err := c.request(ctx, l, a)
	if _, ours := errors.AsType[*oci.Error](err); ours {
		return nil, err
	}
	if err != nil {
		return nil, c.fails(l.member.ID, err)
	}
	over := l.control
	if a.bulk {
		over = l.bulk
	}
	resp, err := over.RoundTrip(req)
	if err != nil {
		return nil, c.broken(ctx, l, err)
	}
	if err := c.failed(l, a, resp); err != nil {
		_ = resp.Body.Close() // nothing of it is wanted
		return nil, err
	}
	return resp, nil
}

// broken is the error of an exchange that err ended. It is the peer's fault
// unless the caller lost patience.
func (c *Client) broken(ctx context.Context, l *link, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		if !errors.Is(cause, errLate) {
			return c.fails(l.member.ID, cause)
		}
		err = cause
	}
	c.blame(l, isGrave(err), err)
	return c.fails(l.member.ID, err)
}

// garbled is the error of an answer that can't be right.
func (c *Client) garbled(l *link, err error) error {
	c.blame(l, false, err)
	return c.fails(l.member.ID, err)
}

// failed returns the failure that an answer tells of.
func (c *Client) failed(l *link, a ask, resp *http.Response) error {
	if resp.Header.Get(headerMark) != version {
		// A peer that does not know this node yet, or another key, says no more.
		return c.garbled(l, fmt.Errorf("no peer's answer (status %d)", resp.StatusCode))
	}
	switch f := resp.Header.Get(headerFailure); f {
	case "":
		if resp.StatusCode >= 300 && resp.StatusCode != http.StatusRequestedRangeNotSatisfiable {
			return c.garbled(l, fmt.Errorf("unexpected status %d", resp.StatusCode))
		}
		return nil
	case failedUpstream:
		e, err := decodeError(resp.Header.Get(headerError), a.query.Registry)
		if err != nil {
			return c.garbled(l, err)
		}
		return e
	case failedBusy:
		return &mesh.PeerError{Peer: c.name(l.member.ID), Busy: true, Err: &busy{retryAfter(resp.Header.Get("Retry-After"))}}
	default:
		return c.fails(l.member.ID, errors.New("it could not do it"))
	}
}

// A busy peer asks to come back.
type busy struct{ after time.Duration }

func (b *busy) Error() string { return "busy" }

// maxStep bounds how long a busy peer can make us wait at a time.
const maxStep = 200 * time.Millisecond

// retryAfter reads how long a busy peer asks to wait, in seconds.
func retryAfter(s string) time.Duration {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= 0 && f < maxStep.Seconds()) {
		return maxStep
	}
	return max(time.Duration(f*float64(time.Second)), maxStep/20)
}

// do asks, and asks again while the peer is busy. Errors are *transfer.Error
// and *transfer.PeerError. It returns the link that the answer came by.
func (c *Client) do(ctx context.Context, id string, a ask) (*link, *http.Response, error) {
	for start := time.Now(); ; {
		l, err := c.link(id)
		if err != nil {
			return nil, nil, err
		}
		resp, err := c.once(ctx, l, a)
		b, isBusy := errors.AsType[*busy](err)
		if !isBusy {
			return l, resp, err
		}
		// Half of the step at random: all who were sent away don't come back at once.
		step := b.after/2 + rand.N(b.after/2+1)
		if time.Since(start)+step > c.times.busy {
			return nil, nil, err
		}
		select {
		case <-time.After(step):
		case <-ctx.Done():
			return nil, nil, err
		}
	}
}

// content reads a small answer to its end.
func (c *Client) content(ctx context.Context, l *link, resp *http.Response, limit int64) ([]byte, error) {
	if resp.ContentLength > limit {
		return nil, c.garbled(l, fmt.Errorf("an answer of %d bytes, at most %d are right", resp.ContentLength, limit))
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, c.broken(ctx, l, fmt.Errorf("the answer broke off: %w", err))
	}
	if int64(len(b)) > limit {
		return nil, c.garbled(l, fmt.Errorf("an answer of more than %d bytes", limit))
	}
	return b, nil
}
