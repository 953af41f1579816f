package node

import (
	"bytes"
	"net/http"
	"strings"
	"sync"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

// A blob over several connections is right whatever becomes of one of them, and costs
// what it is.
func TestBlobOverSeveralConnections(t *testing.T) {
	t.Parallel()
	const size = 6<<20 + 7
	blobs := upstreamtest.Match{Method: http.MethodGet, PathPart: "/blobs/"}
	for name, c := range map[string]struct {
		opts  []upstreamtest.Option
		fault upstreamtest.Fault
		one   bool  // the registry is asked over one connection
		over  int64 // bytes that may come twice
	}{
		"plain":                  {},
		"storage elsewhere":      {opts: []upstreamtest.Option{upstreamtest.Redirect()}},
		"with a login":           {opts: []upstreamtest.Option{upstreamtest.Bearer(upstreamtest.BearerAuth{})}},
		"no ranges":              {fault: upstreamtest.Fault{IgnoreRange: true}, one: true},
		"no ranges, and no size": {fault: upstreamtest.Fault{IgnoreRange: true, NoLength: true}, one: true},
		"no ranges later on":     {fault: upstreamtest.Fault{Skip: 2, IgnoreRange: true}, one: true, over: 4 * size},
		"ranges are refused":     {fault: upstreamtest.Fault{Status: 501, Times: 1, Header: http.Header{"Docker-Distribution-Api-Version": {"registry/2.0"}}}, one: true},
		"ranges lead elsewhere":  {fault: upstreamtest.Fault{Times: 1, WrongRange: true}, one: true, over: size},
		"the first is cut":       {fault: upstreamtest.Fault{Times: 1, CutAfter: 100 << 10}},
		"one is reset":           {fault: upstreamtest.Fault{Skip: 1, Times: 1, CutAfter: 100 << 10, CutReset: true}, over: size},
		"all are cut":            {fault: upstreamtest.Fault{CutAfter: 200 << 10}},
		"the others fail":        {fault: upstreamtest.Fault{Skip: 1, Times: 3, Status: 503}},
		"the others are limited": {fault: upstreamtest.Fault{Skip: 1, Times: 3, Status: 429, Header: http.Header{"Retry-After": {"1"}}}},
		"a wrong byte":           {fault: upstreamtest.Fault{Skip: 2, Times: 1, Corrupt: true, CorruptAt: 3 << 20}, over: size},
		"a wrong size":           {fault: upstreamtest.Fault{Skip: 2, Times: 1, Header: http.Header{"Content-Range": {"bytes 0-9/10"}}}, over: size},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t, c.opts...)
			d := up.PutRandomBlob(repo, 1, size)
			if name != "plain" && len(c.opts) == 0 {
				c.fault.Match = blobs
				up.Fault(c.fault)
			}
			p := newProxy(t, up, settings{registry: "upstream_connections: 4"})
			var all sync.WaitGroup
			for range 3 {
				all.Go(func() {
					a := p.get(blobPath(d))
					if c.fault.Corrupt && a.err != nil {
						return // who has a wrong byte is cut off
					}
					if a.StatusCode != http.StatusOK || a.err != nil || !bytes.Equal(a.body, random(1, size)) {
						t.Errorf("%d, %d bytes, %v", a.StatusCode, len(a.body), a.err)
					}
				})
			}
			all.Wait()
			if sent := up.BytesSent(); sent < size || sent > size+c.over && c.fault.Status == 0 {
				t.Errorf("%d bytes were sent for %d", sent, size)
			}
			if n := up.Count(http.MethodGet, d.Encoded()); !c.one && n < 4 {
				t.Errorf("%d requests", n)
			}
			if said := p.log.Has("registry asked over one connection for a while"); said != c.one {
				t.Errorf("one connection: %t\n%s", said, p.log.String())
			}
			a := p.get(blobPath(d))
			if status := a.Header.Get("Cache-Status"); !bytes.Equal(a.body, random(1, size)) || !c.fault.Corrupt && !strings.Contains(status, "hit") {
				t.Errorf("then %d bytes, %q", len(a.body), status)
			}
		})
	}
}
