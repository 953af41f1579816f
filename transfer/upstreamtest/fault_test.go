package upstreamtest_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"syscall"
	"testing"
	"time"

	"oci-proxy/transfer/upstreamtest"
)

const content = "0123456789abcdefghij"

// TestFaults asks for a blob of 20 bytes once for each fault.
func TestFaults(t *testing.T) {
	t.Parallel()
	healthy := func(t *testing.T, a answer) { a.want(t, 200, content) }
	short := func(body string) func(*testing.T, answer) {
		return func(t *testing.T, a answer) {
			if !errors.Is(a.bodyErr, io.ErrUnexpectedEOF) || string(a.body) != body {
				t.Errorf("got %q, %v", a.body, a.bodyErr)
			}
		}
	}
	tests := map[string]struct {
		fault  upstreamtest.Fault
		method string
		ranged string
		check  func(t *testing.T, a answer)
	}{
		"of another method does nothing": {fault: upstreamtest.Fault{Match: upstreamtest.Match{Method: "HEAD"}, Status: 405}, check: healthy},
		"of another server does nothing": {fault: upstreamtest.Fault{Match: upstreamtest.Match{Server: "cdn"}, Status: 405}, check: healthy},
		"to be skipped does nothing":     {fault: upstreamtest.Fault{Skip: 1, Status: 500}, check: healthy},
		"a status with header and body": {
			fault: upstreamtest.Fault{Status: 429, Header: http.Header{"Retry-After": {"7"}}, Body: "slowly"},
			check: func(t *testing.T, a answer) { a.want(t, 429, "slowly"); a.wantHeader(t, "Retry-After", "7") },
		},
		"no HEAD": {
			fault: upstreamtest.Fault{Match: upstreamtest.Match{Method: "HEAD"}, Status: 405, Body: "no"}, method: "HEAD",
			check: func(t *testing.T, a answer) { a.want(t, 405, "") },
		},
		"headers replaced and deleted": {
			fault: upstreamtest.Fault{Header: http.Header{"content-type": {"text/html"}, "ETag": nil, "Date": nil}},
			check: func(t *testing.T, a answer) {
				a.want(t, 200, content)
				a.wantHeader(t, "Content-Type", "text/html")
				a.wantHeader(t, "ETag", "")
				a.wantHeader(t, "Date", "")
			},
		},
		"reset before the answer": {
			fault: upstreamtest.Fault{CutAtStart: true},
			check: func(t *testing.T, a answer) {
				if !errors.Is(a.err, syscall.ECONNRESET) && !errors.Is(a.err, io.EOF) {
					t.Errorf("got %v", a.err)
				}
			},
		},
		"cut":                      {fault: upstreamtest.Fault{CutAfter: 7}, check: short("0123456")},
		"cut without a length":     {fault: upstreamtest.Fault{CutAfter: 7, NoLength: true}, check: short("0123456")},
		"cut at its very end":      {fault: upstreamtest.Fault{CutAfter: 20, NoLength: true}, check: short(content)},
		"cut of a range":           {fault: upstreamtest.Fault{CutAfter: 3}, ranged: "bytes=10-", check: short("abc")},
		"told longer than it is":   {fault: upstreamtest.Fault{LieLength: 5}, check: short(content)},
		"told longer in a range":   {fault: upstreamtest.Fault{LieLength: 5}, ranged: "bytes=18-", check: short("ij")},
		"told shorter than it is":  {fault: upstreamtest.Fault{LieLength: -5}, check: func(t *testing.T, a answer) { a.want(t, 200, content[:15]) }},
		"told shorter than at all": {fault: upstreamtest.Fault{LieLength: -50}, check: func(t *testing.T, a answer) { a.want(t, 200, "") }},
		"told shorter in a HEAD": {
			fault: upstreamtest.Fault{LieLength: -5}, method: "HEAD",
			check: func(t *testing.T, a answer) { a.wantHeader(t, "Content-Length", "15") },
		},
		"cut by a reset": {
			fault: upstreamtest.Fault{CutAfter: 7, CutReset: true},
			check: func(t *testing.T, a answer) {
				if !errors.Is(a.bodyErr, syscall.ECONNRESET) && !errors.Is(a.err, syscall.ECONNRESET) {
					t.Errorf("got %v, %v", a.err, a.bodyErr)
				}
			},
		},
		"a flipped bit": {
			fault: upstreamtest.Fault{Corrupt: true, CorruptAt: 10},
			check: func(t *testing.T, a answer) { a.want(t, 200, "0123456789`bcdefghij") },
		},
		"a flipped bit in a range": {
			fault: upstreamtest.Fault{Corrupt: true, CorruptAt: 10}, ranged: "bytes=9-11",
			check: func(t *testing.T, a answer) { a.want(t, 206, "9`b") },
		},
		"a flipped bit beside the range": {
			fault: upstreamtest.Fault{Corrupt: true, CorruptAt: 10}, ranged: "bytes=11-12",
			check: func(t *testing.T, a answer) { a.want(t, 206, "bc") },
		},
		"Range ignored": {fault: upstreamtest.Fault{IgnoreRange: true}, ranged: "bytes=5-6", check: healthy},
		"another range": {
			fault: upstreamtest.Fault{WrongRange: true}, ranged: "bytes=10-",
			check: func(t *testing.T, a answer) {
				a.want(t, 206, content[5:])
				a.wantHeader(t, "Content-Range", "bytes 5-19/20")
			},
		},
		"a range nobody asked for": {
			fault: upstreamtest.Fault{WrongRange: true},
			check: func(t *testing.T, a answer) { a.want(t, 206, content[1:]) },
		},
		"no length": {
			fault: upstreamtest.Fault{NoLength: true},
			check: func(t *testing.T, a answer) {
				healthy(t, a)
				if a.ContentLength != -1 || len(a.TransferEncoding) == 0 {
					t.Errorf("length %d, encoding %v", a.ContentLength, a.TransferEncoding)
				}
			},
		},
		"no length of a HEAD": {
			fault: upstreamtest.Fault{NoLength: true}, method: "HEAD",
			check: func(t *testing.T, a answer) { a.want(t, 200, ""); a.wantHeader(t, "Content-Length", "") },
		},
		"no digest": {
			fault: upstreamtest.Fault{NoDigest: true},
			check: func(t *testing.T, a answer) { healthy(t, a); a.wantHeader(t, "Docker-Content-Digest", "") },
		},
		"compressed": {
			fault: upstreamtest.Fault{Gzip: true},
			check: func(t *testing.T, a answer) {
				a.wantHeader(t, "Content-Encoding", "gzip")
				plain, err := gzip.NewReader(bytes.NewReader(a.body))
				if err != nil {
					t.Fatal(err)
				}
				if body, err := io.ReadAll(plain); err != nil || string(body) != content {
					t.Errorf("got %q, %v", body, err)
				}
			},
		},
		"answered by Wrap": {
			fault: upstreamtest.Fault{Wrap: func(w http.ResponseWriter, _ *http.Request) bool {
				w.WriteHeader(418)
				return true
			}},
			check: func(t *testing.T, a answer) { a.want(t, 418, "") },
		},
		"passed on by Wrap": {
			fault: upstreamtest.Fault{Wrap: func(w http.ResponseWriter, _ *http.Request) bool {
				w.Header().Set("X-Seen", "yes")
				return false
			}},
			check: func(t *testing.T, a answer) { healthy(t, a); a.wantHeader(t, "X-Seen", "yes") },
		},
		"hijacked by Wrap": {
			fault: upstreamtest.Fault{Wrap: func(w http.ResponseWriter, _ *http.Request) bool {
				conn, _, err := w.(http.Hijacker).Hijack()
				if err == nil {
					_, _ = io.WriteString(conn, "nonsense\r\n\r\n")
					_ = conn.Close()
				}
				return true
			}},
			check: func(t *testing.T, a answer) {
				if a.err == nil {
					t.Error("nonsense was taken for HTTP")
				}
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := upstreamtest.New(t)
			d := r.PutBlob("a", []byte(content))
			r.Fault(test.fault)
			method := test.method
			if method == "" {
				method = "GET"
			}
			var headers []string
			if test.ranged != "" {
				headers = []string{"Range: " + test.ranged}
			}
			test.check(t, do(t, client(t, r), method, r.URL()+"/v2/a/blobs/"+d.String(), headers...))
		})
	}
}

func TestFaultsAreAppliedInTurnAndUsedUp(t *testing.T) {
	t.Parallel()
	r := upstreamtest.New(t)
	r.Fault(upstreamtest.Fault{Skip: 1, Times: 2, Status: 500})
	r.Fault(upstreamtest.Fault{Times: 2, Status: 503})
	c := client(t, r)
	for i, want := range []int{503, 500, 500, 503, 200} {
		if a := do(t, c, "GET", r.URL()+"/v2/"); a.StatusCode != want {
			t.Errorf("request %d got %d, want %d", i, a.StatusCode, want)
		}
	}
	r.Fault(upstreamtest.Fault{Status: 500})
	r.ClearFaults()
	do(t, c, "GET", r.URL()+"/v2/").want(t, 200, "")
}

func TestAWrongDigestIsAValidOneOfOtherContent(t *testing.T) {
	t.Parallel()
	r := upstreamtest.New(t)
	img := r.PutImage("a", "t")
	r.Fault(upstreamtest.Fault{WrongDigest: true})
	a := do(t, client(t, r), "HEAD", r.URL()+"/v2/a/manifests/t")
	a.want(t, 200, "")
	if got := a.Header.Get("Docker-Content-Digest"); len(got) != len(img.Manifest) || got == img.Manifest.String() {
		t.Errorf("got %q", got)
	}
}

func TestAStalledBodyEndsWithTheClient(t *testing.T) {
	t.Parallel()
	for _, after := range []int64{0, 7} {
		t.Run(strconv.FormatInt(after, 10), func(t *testing.T) {
			t.Parallel()
			r := upstreamtest.New(t)
			d := r.PutBlob("a", []byte(content))
			r.Fault(upstreamtest.Fault{Stall: true, StallAfter: after})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, "GET", r.URL()+"/v2/a/blobs/"+d.String(), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client(t, r).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			if body, err := io.ReadAll(io.LimitReader(resp.Body, after)); err != nil || int64(len(body)) != after {
				t.Fatalf("got %q, %v", body, err)
			}
			timer := time.AfterFunc(100*time.Millisecond, cancel)
			defer timer.Stop()
			if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || !errors.Is(err, context.Canceled) {
				t.Errorf("read %d more bytes, %v", n, err)
			}
			if n := r.BytesSent(); n != after {
				t.Errorf("%d bytes sent", n)
			}
		})
	}
}

func TestAStalledBodyGoesOnWhenItIsTold(t *testing.T) {
	t.Parallel()
	for _, after := range []int64{0, 7} {
		r := upstreamtest.New(t)
		d := r.PutBlob("a", []byte(content))
		rest := make(chan struct{})
		r.Fault(upstreamtest.Fault{Stall: true, StallAfter: after, StallUntil: rest})
		resp, err := client(t, r).Get(r.URL() + "/v2/a/blobs/" + d.String())
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, after)
		if _, err := io.ReadFull(resp.Body, first); err != nil || r.BytesSent() != after {
			t.Errorf("%d bytes sent, %v", r.BytesSent(), err)
		}
		close(rest)
		if body, err := io.ReadAll(resp.Body); err != nil || string(first)+string(body) != content {
			t.Errorf("got %q and %q, %v", first, body, err)
		}
		_ = resp.Body.Close()
	}
}

// The client never leaves here. Only the end of the test frees the server.
func TestAStalledBodyEndsWithTheTest(t *testing.T) { //nolint:tparallel // the rest needs the subtest to have ended
	t.Parallel()
	var c *http.Client
	var body io.ReadCloser
	t.Run("stalled", func(t *testing.T) {
		r := upstreamtest.New(t)
		r.Fault(upstreamtest.Fault{Stall: true})
		c = &http.Client{Transport: &http.Transport{}}
		resp, err := c.Get(r.URL() + "/v2/")
		if err != nil {
			t.Fatal(err)
		}
		body = resp.Body
	})
	defer c.CloseIdleConnections()
	if _, err := io.ReadAll(body); err == nil {
		t.Error("the body ended well")
	}
	_ = body.Close()
}

func TestASlowBodyTakesItsTimeAndArrivesWhole(t *testing.T) {
	t.Parallel()
	r := upstreamtest.New(t)
	d := r.PutBlob("a", []byte(content))
	r.Fault(upstreamtest.Fault{SlowBytesPerSecond: 100})
	start := time.Now()
	do(t, client(t, r), "GET", r.URL()+"/v2/a/blobs/"+d.String()).want(t, 200, content)
	if took := time.Since(start); took < 190*time.Millisecond {
		t.Errorf("20 bytes at 100 per second took %v", took)
	}
}
