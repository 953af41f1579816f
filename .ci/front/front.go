package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// signature is the query that a redirect carries. Its escapes must arrive as
// they were sent, as those of real signed URLs must.
const signature = "X-Signature=a%2Fb%2Bc%3D&Expires=600"

// A Front forwards requests to a registry. The zero value of each field but
// Upstream turns its part off.
type Front struct {
	Upstream *url.URL   // where requests go
	Others   []*url.URL // take turns with Upstream
	Writes   *url.URL   // where pushes go instead of Upstream
	Prefix   string     // what names begin with at Upstream; taken off for Writes
	Redirect *url.URL   // where GETs of blobs are redirected to
	Signed   bool       // demand the signature, refuse credentials
	Slow     int64      // bytes a second for each blob's body
	TLS      bool       // the front serves over TLS

	asked atomic.Uint64 // requests so far
}

// Serve returns the handler for clients.
func (f *Front) Serve() http.Handler {
	reads := &httputil.ReverseProxy{Rewrite: f.toUpstream, ModifyResponse: f.change}
	writes := &httputil.ReverseProxy{Rewrite: f.toWrites, ModifyResponse: f.prefixLocation}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case f.Signed && (r.URL.RawQuery != signature || r.Header.Get("Authorization") != ""):
			http.Error(w, "signature missing or credentials given", http.StatusForbidden)
		case f.Redirect != nil && r.Method == http.MethodGet && isBlob(r.URL.Path):
			w.Header().Set("Location", f.Redirect.JoinPath(r.URL.Path).String()+"?"+signature)
			w.WriteHeader(http.StatusTemporaryRedirect)
		case f.Writes != nil && isWrite(r):
			writes.ServeHTTP(w, r)
		default:
			reads.ServeHTTP(w, r)
		}
	})
}

// toUpstream keeps the Host: a registry builds its token server's address and
// its Locations from it, and both must lead back through this front.
func (f *Front) toUpstream(p *httputil.ProxyRequest) {
	to := f.Upstream
	if n := f.asked.Add(1) % uint64(len(f.Others)+1); n > 0 {
		to = f.Others[n-1]
	}
	p.SetURL(to)
	p.Out.Host = p.In.Host
	if f.Signed {
		p.Out.URL.RawQuery = ""
	}
}

// toWrites takes the prefix off the names that a push mentions, which are those
// in the path and, for a mount, the one in the query.
func (f *Front) toWrites(p *httputil.ProxyRequest) {
	p.SetURL(f.Writes)
	p.Out.URL.Path = strings.Replace(p.Out.URL.Path, "/v2/"+f.Prefix+"/", "/v2/", 1)
	p.Out.URL.RawPath = ""
	query := p.Out.URL.Query()
	if from := query.Get("from"); from != "" {
		query.Set("from", strings.TrimPrefix(from, f.Prefix+"/"))
		p.Out.URL.RawQuery = query.Encode()
	}
}

// prefixLocation puts the prefix back into the answer to a push, on this front:
// where the client goes next must pass through here again.
func (f *Front) prefixLocation(resp *http.Response) error {
	location, err := resp.Location()
	if err != nil {
		return nil //nolint:nilerr // An answer without a Location has none to change.
	}
	location.Scheme, location.Host = "", ""
	location.Path = strings.Replace(location.Path, "/v2/", "/v2/"+f.Prefix+"/", 1)
	location.RawPath = ""
	resp.Header.Set("Location", location.String())
	return nil
}

// change bounds how fast a blob's bytes arrive, and says where the token server
// is: some registries name only its path, which few clients understand.
func (f *Front) change(resp *http.Response) error {
	if scheme := resp.Header.Get("WWW-Authenticate"); scheme != "" {
		root := `realm="http://` + resp.Request.Host + "/"
		if f.TLS {
			root = `realm="https://` + resp.Request.Host + "/"
		}
		resp.Header.Set("WWW-Authenticate", strings.Replace(scheme, `realm="/`, root, 1))
	}
	if f.Slow > 0 && isBlob(resp.Request.URL.Path) {
		resp.Body = &slowBody{ReadCloser: resp.Body, ctx: resp.Request.Context(), rate: f.Slow}
	}
	return nil
}

// isBlob reports whether a path names a blob, and not an upload of one.
func isBlob(path string) bool {
	return strings.Contains(path, "/blobs/sha")
}

// isWrite reports whether a request belongs to a push. So does the GET that asks
// how far an upload has come.
func isWrite(r *http.Request) bool {
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	return !read || strings.Contains(r.URL.Path, "/blobs/uploads/")
}

// A slowBody hands out rate bytes a second.
type slowBody struct {
	io.ReadCloser
	ctx  context.Context
	rate int64
}

// Read waits as long as the bytes it hands out should have taken.
func (b *slowBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	select {
	case <-b.ctx.Done():
		return 0, b.ctx.Err()
	case <-time.After(time.Duration(n) * time.Second / time.Duration(b.rate)):
	}
	return n, err
}
