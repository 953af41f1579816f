package upstream

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"oci-proxy/transfer/oci"
)

// Open implements oci.Upstream. Each call asks the registry anew, since what it
// redirects to is valid for minutes only.
func (c *Client) Open(ctx context.Context, ref oci.Ref, offset int64) (*oci.Stream, error) {
	o, err := c.open(ctx, ref, ask{offset: offset})
	return o.Stream, err
}

// Range implements oci.Upstream. Each call asks the registry anew, as Open does.
func (c *Client) Range(ctx context.Context, ref oci.Ref, span oci.Span) (*oci.Stream, error) {
	o, err := c.open(ctx, ref, ask{offset: span.Offset, length: span.Length})
	return o.Stream, err
}

// UpTo returns the bytes of span, or as many of them as there are from its offset on: the
// blob may end earlier, and the registry may send fewer. length is how many come; -1: the
// registry does not serve ranges, and the stream is the whole blob. In all else it is Open.
func (c *Client) UpTo(ctx context.Context, ref oci.Ref, span oci.Span) (s *oci.Stream, length int64, err error) {
	o, err := c.open(ctx, ref, ask{offset: span.Offset, length: span.Length, upTo: true})
	return o.Stream, o.length, err
}

// A part is a stream and how many bytes it has, -1 for those up to the blob's end.
type part struct {
	*oci.Stream
	length int64
}

// open opens the bytes of a blob that a names; a length of 0 stands for the rest.
func (c *Client) open(ctx context.Context, ref oci.Ref, a ask) (part, error) {
	r, err := c.asking(ref)
	if err != nil {
		return part{}, err
	}
	a.method, a.repo, a.path = http.MethodGet, ref.Repository, "blobs/"+ref.Digest.String()
	a.handOver, a.budget = !r.followRedirects, newBudget()
	ctx, keep, stop := inTime(ctx)
	o, err := persist(ctx, r.home, a.budget, func(ctx context.Context) (part, error) { return r.stream(ctx, a) })
	if err != nil {
		stop()
		return part{}, err
	}
	if o.Body == nil {
		stop()
		return o, nil
	}
	keep()
	o.Body = &body{o.Body, stop}
	return o, nil
}

// Turn returns ctx for requests to one registry that follow one another: they have one
// turn together (upstream_requests). The first one waits for it, as any request does.
// The caller calls end once the last answer is closed. Requests and end belong to one
// goroutine at a time.
func (c *Client) Turn(ctx context.Context) (_ context.Context, end func()) {
	held := &heldTurn{}
	return context.WithValue(ctx, heldKey{}, held), held.release
}

// FreeTurn is Turn for downloads of ref's registry that give way to other requests: it
// takes a turn at once if one is free and nobody waits, and reports false otherwise.
func (c *Client) FreeTurn(ctx context.Context, ref oci.Ref) (_ context.Context, end func(), ok bool) {
	r, err := c.registry(ref.Registry)
	if err != nil {
		return nil, nil, false
	}
	end, ok = r.turns.try(ctx, r.turns.chain(true))
	if !ok {
		return nil, nil, false
	}
	held := &heldTurn{end}
	return context.WithValue(ctx, heldKey{}, held), held.release, true
}

// A body ends its request's context when it is closed. Ending it before would reset
// the connection.
type body struct {
	io.ReadCloser
	stop context.CancelFunc
}

// Close implements io.Closer.
func (b *body) Close() error {
	defer b.stop()
	return b.ReadCloser.Close()
}

// stream asks for a blob once.
func (r *registry) stream(ctx context.Context, a ask) (part, error) {
	ans, err := r.do(ctx, a)
	if err != nil {
		return part{}, err
	}
	o := part{&oci.Stream{Host: ans.host(), By: ans.by(), Size: -1, Redirect: ans.location()}, -1}
	if ans.redirect != nil {
		return o, nil
	}
	if o.Body = ans.resp.Body; r.limiter != nil {
		o.Body = &ratedBody{o.Body, ctx, r.limiter}
	}
	if !ans.identity() {
		o.Coding = ans.coding()
	}
	switch ans.resp.StatusCode {
	case http.StatusOK, http.StatusNonAuthoritativeInfo:
		if a.length > 0 && !a.upTo {
			_ = ans.resp.Body.Close() // all of it would come
			return part{}, ans.wrong(oci.Invalid, never, "the registry does not serve ranges: the answer is the whole blob")
		}
		o.Size = ans.resp.ContentLength
		return o, nil
	case http.StatusPartialContent:
		from, to, size, ok := contentRange(ans.resp.Header.Get("Content-Range"))
		o.length = to - from + 1
		if !ok || !a.fits(from, o.length) {
			_ = ans.resp.Body.Close() // the part is wrong, whatever Close says
			return part{}, ans.wrong(oci.Unavailable, never, fmt.Sprintf("wrong range: the answer does not begin at byte %d, or has another length than was asked for", a.offset))
		}
		o.Offset, o.Size = from, size
		return o, nil
	}
	return part{}, ans.refused()
}

// fits reports whether length bytes from that byte on are what a asks for.
func (a ask) fits(from, length int64) bool {
	if from != a.offset {
		return false
	}
	return a.length == 0 || length == a.length || a.upTo && length < a.length
}

// rangePattern is Content-Range with bytes (RFC 9110, 14.4).
var rangePattern = regexp.MustCompile(`^(?i:bytes) +(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)$`)

// contentRange returns the first and the last byte of a part and the size of the
// whole, -1 if the value does not tell it.
func contentRange(v string) (from, to, size int64, ok bool) {
	m := rangePattern.FindStringSubmatch(strings.TrimSpace(v))
	if m == nil {
		return 0, 0, 0, false
	}
	from, _ = strconv.ParseInt(m[1], 10, 64) // 18 digits fit
	to, _ = strconv.ParseInt(m[2], 10, 64)
	size = -1
	if m[3] != "*" {
		size, _ = strconv.ParseInt(m[3], 10, 64)
	}
	return from, to, size, from <= to && (size < 0 || to < size)
}
