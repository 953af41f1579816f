package upstream

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"

	"oci-proxy/transfer/oci"

	"github.com/opencontainers/go-digest"
)

// asking returns the registry of ref, and ref's errors: the caller has checked
// ref, but a path must not leave its repository whatever happened before.
func (c *Client) asking(ref oci.Ref) (*registry, error) {
	r, err := c.registry(ref.Registry)
	if err != nil {
		return nil, err
	}
	repo := "/" + ref.Repository
	if repo == "/" || path.Clean(repo) != repo || strings.ContainsAny(ref.Tag, "/\\") || ref.Tag == ".." {
		return nil, r.fail(oci.Invalid, never, r.host, "no repository of that name can be").cause
	}
	if ref.Digest != "" && ref.Digest.Validate() != nil {
		return nil, r.fail(oci.Invalid, never, r.host, "no digest").cause
	}
	return r, nil
}

// Open implements transfer.Source. A source of bytes is asked anew each time:
// where the registry redirects to holds for minutes only.
func (c *Client) Open(ctx context.Context, ref oci.Ref, offset int64) (*oci.Stream, error) {
	r, err := c.asking(ref)
	if err != nil {
		return nil, err
	}
	a := ask{
		method: http.MethodGet, repo: ref.Repository, path: "blobs/" + ref.Digest.String(),
		offset: offset, handOver: !r.FollowRedirects,
	}
	ctx, keep, stop := inTime(ctx)
	s, err := persist(ctx, r, func(ctx context.Context) (*oci.Stream, error) { return r.stream(ctx, a) })
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

// A body ends its request's context once it is closed, not before: that would
// reset the connection.
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
	s := &oci.Stream{Host: ans.host, By: ans.by(), Size: -1, Redirect: ans.redirect}
	if ans.redirect != "" {
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
			_ = ans.resp.Body.Close() // it is the wrong part: nothing else can be wrong with it
			return nil, r.wrong(ans, oci.Unavailable, never, fmt.Sprintf("wrong range: not from byte %d on", a.offset))
		}
		s.Offset, s.Size = from, size
		return s, nil
	}
	return nil, r.declined(ans)
}

// rangePattern is Content-Range with bytes (RFC 9110, 14.4).
var rangePattern = regexp.MustCompile(`^(?i:bytes) +(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)$`)

// contentRange returns where a part begins and the size of the whole, -1 if untold.
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

// Stat implements transfer.Upstream.
func (c *Client) Stat(ctx context.Context, ref oci.Ref, blob bool, accept []string) (oci.Descriptor, error) {
	r, err := c.asking(ref)
	if err != nil {
		return oci.Descriptor{}, err
	}
	a := ask{method: http.MethodHead, repo: ref.Repository, path: manifestPath(ref), accept: strings.Join(accept, ", ")}
	if blob {
		a.path = "blobs/" + ref.Digest.String()
		a.handOver = !r.FollowRedirects
	}
	ctx, _, stop := inTime(ctx)
	defer stop()
	return persist(ctx, r, func(ctx context.Context) (oci.Descriptor, error) { return r.stat(ctx, a, blob) })
}

// stat asks by HEAD once.
func (r *registry) stat(ctx context.Context, a ask, blob bool) (d oci.Descriptor, err error) {
	ans, err := r.do(ctx, a)
	if err != nil {
		return d, err
	}
	if ans.redirect != "" {
		return oci.Descriptor{Size: -1, By: ans.by(), Redirect: ans.redirect}, nil
	}
	if ans.resp.StatusCode != http.StatusOK {
		return d, r.declined(ans)
	}
	_ = ans.resp.Body.Close() // that of HEAD is empty
	d = oci.Descriptor{Digest: told(ans), MediaType: ans.mediaType(), Size: ans.resp.ContentLength, By: ans.by()}
	if !identity(ans.resp.Header) || !blob && d.Size == 0 {
		d.Size = -1 // no manifest is empty: a server that does not count says 0
	}
	return d, nil
}

// told returns the digest that the answer names, "" if there is no valid one.
func told(ans *answer) digest.Digest {
	d, err := digest.Parse(strings.TrimSpace(ans.header("Docker-Content-Digest")))
	if err != nil || !checkable(d) {
		return ""
	}
	return d
}

// checkable reports whether d's algorithm is one that we can check.
func checkable(d digest.Digest) bool {
	return d.Algorithm() == digest.SHA256 || d.Algorithm() == digest.SHA512
}

// identity reports whether a body is sent as it is, not compressed on its way.
func identity(h http.Header) bool {
	coding := strings.TrimSpace(h.Get("Content-Encoding"))
	return coding == "" || strings.EqualFold(coding, "identity")
}
