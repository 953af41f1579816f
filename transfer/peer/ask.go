package peer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"oci-proxy/transfer/mesh"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/trace"
	"oci-proxy/transfer/wait"
)

// An ask is one request.
type ask struct {
	method string
	path   string
	query  query
	span   string // Range
	body   []byte
	bulk   bool
	secret bool // question or answer may hold a private key
	word   bool // all members are told it, or asked it, now and then
	padded bool // the request is as large as padding, to find out whether large packets arrive
}

// An answer is a small one, read to its end.
type answer struct {
	*http.Response
	link  *link
	body  []byte
	asked time.Time
}

var (
	errNoKey = errors.New("the cluster has no secret to sign the request with")
	errLate  = errors.New("no answer in time")
)

// request signs and builds a request to one peer.
func (c *Client) request(ctx context.Context, l *link, a ask) (*exchange, error) {
	all := c.keys.all()
	if len(all) == 0 {
		return nil, errNoKey
	}
	u := &url.URL{Scheme: "http", Host: "peer", Path: a.path}
	if a.query.Registry != "" {
		a.query.user = oci.CallerOf(ctx).User
		u.RawQuery = a.query.encode()
	}
	if len(u.RawQuery) > maxQuery { // a client made it; the peer would refuse it without a word
		return nil, &oci.Error{Kind: oci.Invalid, Registry: a.query.Registry, Reason: "the query is too long"}
	}
	req, err := http.NewRequestWithContext(ctx, a.method, u.String(), bytes.NewReader(a.body))
	if err != nil {
		return nil, fmt.Errorf("building a request: %w", err)
	}
	x := &exchange{Request: req, key: all[0], pinned: l.pinned()}
	if m, ok := c.member(l.member.ID); ok && m.Key > 0 && m.Key < len(all) {
		x.key = all[m.Key]
	}
	s := statement{
		receiver: l.member.Nonce, sender: c.self(), nonce: c.nonce, number: c.number.Add(1),
		method: a.method, path: u.EscapedPath(), query: u.RawQuery, span: a.span, body: a.body,
	}
	x.mac = s.sign(x.key)
	req.Header.Set(headerAuth, auth{s.sender, s.number, x.mac}.String())
	req.Header.Set("User-Agent", "")
	if id := oci.CallerOf(ctx).Request; id != "" {
		req.Header.Set(headerRequest, id)
	}
	if a.padded {
		req.Header.Set(headerPadding, strings.Repeat("0", padding))
	}
	if a.span != "" {
		req.Header.Set("Range", a.span)
	}
	trace.Inject(ctx, req.Header)
	// If the peer has just closed the connection that was kept, net/http sends the
	// request over another. The peer takes it once only.
	req.Header["Idempotency-Key"] = nil
	return x, nil
}

// kind says in a word what a asks for: the first part of its path.
func (a ask) kind() string {
	kind, _, _ := strings.Cut(strings.TrimPrefix(a.path, root), "/")
	return kind
}

// outcome says in a word how a request ended.
func outcome(err error) string {
	p, own := errors.AsType[*mesh.PeerError](err)
	switch {
	case err == nil:
		return "ok"
	case !own:
		return "registry"
	case p.Busy:
		return "busy"
	default:
		return "failed"
	}
}

// once asks one time. The answer it returns is the peer's own and tells of no
// failure. Errors are *oci.Error and *mesh.PeerError.
func (c *Client) once(ctx context.Context, l *link, a ask) (resp *http.Response, err error) {
	began := time.Now()
	ctx, span := trace.Start(ctx, "peer")
	span.Set("oci_proxy.kind", a.kind())
	span.Set("oci_proxy.peer", l.member.Name)
	resp, err = c.exchange(ctx, l, a)
	span.End(err)
	c.asked(a.kind(), outcome(err), time.Since(began))
	return resp, err
}

// exchange is once without counting it.
func (c *Client) exchange(ctx context.Context, l *link, a ask) (*http.Response, error) {
	if a.secret && !l.pinned() && !local(l.member.Addr) {
		return nil, c.fails(l.member.ID, errPlain)
	}
	x, err := c.request(ctx, l, a)
	if _, ours := errors.AsType[*oci.Error](err); ours {
		return nil, err
	}
	if err != nil {
		return nil, c.fails(l.member.ID, err)
	}
	stays := c.links.idle.used(l, a.word)
	x.Close = !stays
	resp, err := l.over(a.bulk).RoundTrip(x.Request)
	if !stays && !c.links.idle.keeps(l) { // another request may have made it one that stays
		l.rest()
	}
	if err != nil {
		return nil, c.broken(ctx, l, err)
	}
	if err = x.verify(resp); ctx.Err() == nil && l.strange(err) {
		err = c.fails(l.member.ID, err) // it is not to blame
	} else if err != nil {
		err = c.broken(ctx, l, err) // an answer may still come over TLS that is being closed
	} else {
		c.heard(l, a, resp)
		err = c.failed(l, a, resp)
	}
	if err != nil {
		_ = resp.Body.Close() // nothing of it is wanted
		return nil, err
	}
	return resp, nil
}

// heard passes on how the peer's way to the registry is that it was asked about.
func (c *Client) heard(l *link, a ask, resp *http.Response) {
	if way := parseWay(resp.Header.Get(headerWay)); a.query.Registry != "" && way.State != mesh.WayUnknown {
		c.hear(l.member.ID, a.query.Registry, way)
	}
}

// broken is the error of an exchange that err ended. The peer is to blame, unless
// the caller lost patience.
func (c *Client) broken(ctx context.Context, l *link, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		if !errors.Is(cause, errLate) {
			return c.fails(l.member.ID, cause)
		}
		err = cause
	}
	c.strike(l, isGrave(err), err)
	return c.fails(l.member.ID, err)
}

// garbled is the error of an answer that can't be right.
func (c *Client) garbled(l *link, err error) error {
	c.strike(l, false, err)
	return c.fails(l.member.ID, err)
}

// failed returns the failure that an answer tells of.
func (c *Client) failed(l *link, a ask, resp *http.Response) error {
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
		return &mesh.PeerError{Peer: c.member.name(l.member.ID), Busy: true, Err: &busy{retryAfter(resp.Header.Get("Retry-After"))}}
	case failedRules:
		return c.fails(l.member.ID, errors.New("its access rules refuse this to the user; its log names the rule"))
	default:
		return c.fails(l.member.ID, errors.New("it failed to answer; its log says why"))
	}
}

// A busy peer asks to come back.
type busy struct{ after time.Duration }

func (b *busy) Error() string { return "busy" }

// retryAfter reads how long a busy peer asks to wait, in seconds.
func retryAfter(s string) time.Duration {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= 0 && f < busyStep.Seconds()) {
		return busyStep
	}
	return max(time.Duration(f*float64(time.Second)), busyStep/20)
}

// do asks, and asks again while the peer is busy or does not know this node yet. Errors are *oci.Error and
// *mesh.PeerError. It returns the link that the answer came by.
func (c *Client) do(ctx context.Context, id string, a ask) (*link, *http.Response, error) {
	for start := time.Now(); ; {
		l, err := c.links.to(id)
		if err != nil {
			return nil, nil, c.fails(id, err)
		}
		resp, err := c.once(ctx, l, a)
		step := strangeStep
		if b, isBusy := errors.AsType[*busy](err); isBusy {
			step = b.after
		} else if !l.strange(err) {
			return l, resp, err
		}
		// Half of the step is random, so that callers who were sent away together
		// don't come back together.
		step = step/2 + rand.N(step/2+1)
		if time.Since(start)+step > c.times.busy || wait.For(ctx, step) != nil {
			return nil, nil, err
		}
	}
}

// small asks for what fits into limit bytes and comes within most; 0 means that
// ctx alone bounds it.
func (c *Client) small(ctx context.Context, id string, a ask, limit int64, most time.Duration) (*answer, error) {
	return c.whole(ctx, id, a, most, func(ctx context.Context, ans *answer) (err error) {
		ans.body, err = c.content(ctx, ans.link, ans.Response, limit)
		return err
	})
}

// content reads a small answer to its end.
func (c *Client) content(ctx context.Context, l *link, resp *http.Response, limit int64) (body []byte, err error) {
	err = c.drain(ctx, l, resp, limit, func() (int64, error) {
		body, err = wait.ReadAll(ctx, resp.Body, resp.ContentLength, limit)
		return int64(len(body)), err
	}, func() string { return bodySum(body) })
	return body, err
}

// into is small for an answer whose bytes go to to. If that fails, its error is returned
// as it is.
func (c *Client) into(ctx context.Context, id string, a ask, limit int64, most time.Duration, to oci.Sink) (*answer, error) {
	return c.whole(ctx, id, a, most, func(ctx context.Context, ans *answer) error {
		in := &intake{Sink: to, sum: sha256.New()}
		return c.drain(ctx, ans.link, ans.Response, limit, func() (int64, error) {
			in.Reset()
			return io.Copy(in, io.LimitReader(ans.Body, limit+1))
		}, in.hex)
	})
}

// whole asks for an answer that read reads to its end.
func (c *Client) whole(ctx context.Context, id string, a ask, most time.Duration, read func(context.Context, *answer) error) (*answer, error) {
	if most > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, most, errLate)
		defer cancel()
	}
	asked := time.Now()
	l, resp, err := c.do(ctx, id, a)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	ans := &answer{Response: resp, link: l, asked: asked}
	if err := read(ctx, ans); err != nil {
		return nil, err
	}
	return ans, nil
}

// drain reads an answer of at most limit bytes to its end by read. sum is the sum of what
// was read.
func (c *Client) drain(ctx context.Context, l *link, resp *http.Response, limit int64, read func() (int64, error), sum func() string) error {
	if resp.ContentLength > limit {
		return c.garbled(l, fmt.Errorf("an answer of %d bytes is over the limit of %d", resp.ContentLength, limit))
	}
	n, err := read()
	switch own := (*intakeError)(nil); {
	case errors.Is(err, wait.ErrFull), errors.Is(err, wait.ErrTooLarge): // the peer has done nothing wrong
		return err
	case errors.As(err, &own):
		return own.error
	case err != nil:
		return c.broken(ctx, l, fmt.Errorf("the answer broke off: %w", err))
	case n > limit:
		return c.garbled(l, fmt.Errorf("an answer is over the limit of %d bytes", limit))
	}
	if err := verifyBody(resp, n, sum()); err != nil {
		return c.garbled(l, err)
	}
	return nil
}

// An intake passes bytes on and sums them.
type intake struct {
	oci.Sink
	sum hash.Hash
}

// hex returns the sum.
func (t *intake) hex() string { return hex.EncodeToString(t.sum.Sum(nil)) }

// An intakeError says that passing bytes on failed: then it was not the peer.
type intakeError struct{ error }

// Write implements io.Writer.
func (t *intake) Write(p []byte) (int, error) {
	_, _ = t.sum.Write(p) // a hash never fails
	n, err := t.Sink.Write(p)
	if err != nil {
		return n, &intakeError{err}
	}
	return n, nil
}
