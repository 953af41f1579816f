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
	r, err := c.asking(ref)
	if err != nil {
		return nil, err
	}
	a := ask{
		method: http.MethodGet, repo: ref.Repository, path: "blobs/" + ref.Digest.String(),
		offset: offset, handOver: !r.followRedirects, budget: newBudget(),
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
	switch ans.resp.StatusCode {
	case http.StatusOK:
		s.Size = ans.resp.ContentLength
		return s, nil
	case http.StatusPartialContent:
		from, size, ok := contentRange(ans.resp.Header.Get("Content-Range"))
		if !ok || from != a.offset {
			_ = ans.resp.Body.Close() // the part is wrong, whatever Close says
			return nil, ans.wrong(oci.Unavailable, never, fmt.Sprintf("wrong range: the answer does not begin at byte %d", a.offset))
		}
		s.Offset, s.Size = from, size
		return s, nil
	}
	return nil, ans.refused()
}

// rangePattern is Content-Range with bytes (RFC 9110, 14.4).
var rangePattern = regexp.MustCompile(`^(?i:bytes) +(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)$`)

// contentRange returns where a part begins and the size of the whole, -1 if the
// value does not tell it.
func contentRange(v string) (from, size int64, ok bool) {
	m := rangePattern.FindStringSubmatch(strings.TrimSpace(v))
	if m == nil {
		return 0, 0, false
	}
	from, _ = strconv.ParseInt(m[1], 10, 64) // 18 digits fit
	to, _ := strconv.ParseInt(m[2], 10, 64)
	size = -1
	if m[3] != "*" {
		size, _ = strconv.ParseInt(m[3], 10, 64)
	}
	return from, size, from <= to && (size < 0 || to < size)
}
