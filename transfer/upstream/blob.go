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
	return c.open(ctx, ref, oci.Span{Offset: offset})
}

// Range implements oci.Upstream. Each call asks the registry anew, as Open does.
func (c *Client) Range(ctx context.Context, ref oci.Ref, span oci.Span) (*oci.Stream, error) {
	return c.open(ctx, ref, span)
}

// open opens a span of a blob; a Length of 0 stands for the rest.
func (c *Client) open(ctx context.Context, ref oci.Ref, span oci.Span) (*oci.Stream, error) {
	r, err := c.asking(ref)
	if err != nil {
		return nil, err
	}
	a := ask{
		method: http.MethodGet, repo: ref.Repository, path: "blobs/" + ref.Digest.String(),
		offset: span.Offset, length: span.Length, handOver: !r.followRedirects, budget: newBudget(),
	}
	ctx, keep, stop := inTime(ctx)
	s, err := persist(ctx, r.home, a.budget, func(ctx context.Context) (*oci.Stream, error) { return r.stream(ctx, a) })
	if err != nil {
		stop()
		return nil, err
	}
	if s.Body == nil {
		stop()
		return s, nil
	}
	keep()
	s.Body = &body{s.Body, stop}
	return s, nil
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
func (r *registry) stream(ctx context.Context, a ask) (*oci.Stream, error) {
	ans, err := r.do(ctx, a)
	if err != nil {
		return nil, err
	}
	s := &oci.Stream{Host: ans.host(), By: ans.by(), Size: -1, Redirect: ans.location()}
	if ans.redirect != nil {
		return s, nil
	}
	s.Body = ans.resp.Body
	if !ans.identity() {
		s.Coding = ans.coding()
	}
	switch ans.resp.StatusCode {
	case http.StatusOK, http.StatusNonAuthoritativeInfo:
		if a.length > 0 {
			_ = ans.resp.Body.Close() // all of it would come
			return nil, ans.wrong(oci.Invalid, never, "the registry does not serve ranges: the answer is the whole blob")
		}
		s.Size = ans.resp.ContentLength
		return s, nil
	case http.StatusPartialContent:
		from, to, size, ok := contentRange(ans.resp.Header.Get("Content-Range"))
		if !ok || from != a.offset || a.length > 0 && to-from+1 != a.length {
			_ = ans.resp.Body.Close() // the part is wrong, whatever Close says
			return nil, ans.wrong(oci.Unavailable, never, fmt.Sprintf("wrong range: the answer does not begin at byte %d, or has another length than was asked for", a.offset))
		}
		s.Offset, s.Size = from, size
		return s, nil
	}
	return nil, ans.refused()
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
