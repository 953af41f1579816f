package node

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// laneless is a proxy whose clients' port lacks the lane of transfer/express, which others have.
func laneless(t *testing.T, up *upstreamtest.Registry, s settings) *proxy {
	t.Helper()
	p := newProxy(t, up, s)
	srv := httptest.NewServer(p.node.Handler())
	t.Cleanup(func() {
		p.client.CloseIdleConnections()
		srv.Close()
	})
	p.url = srv.URL
	return p
}

// hasty is a proxy with the lane, and counts its answers.
func hasty(t *testing.T, up *upstreamtest.Registry, s settings) (p *proxy, ahead *atomic.Int64) {
	t.Helper()
	p, ahead = newProxy(t, up, s), new(atomic.Int64)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv, over := p.node.server(), make(chan struct{})
	h := srv.Handler
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fmt.Sprintf("%T", w) == "*express.answer" {
			ahead.Add(1)
		}
		h.ServeHTTP(w, r)
	})
	go func() {
		defer close(over)
		_ = serve(srv, l)
	}()
	t.Cleanup(func() {
		p.client.CloseIdleConnections()
		_ = srv.Close()
		<-over
	})
	p.url = "http://" + l.Addr().String()
	return p, ahead
}

// accounts are what is told of requests, without what differs each time.
func accounts(p *proxy) (log []string, stats, metrics string) {
	p.t.Helper()
	p.settle()
	for line := range strings.Lines(p.log.String()) {
		var l map[string]any
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			p.t.Fatal(err)
		}
		if l["msg"] != "request" {
			continue
		}
		for _, each := range []string{"time", "took_ms", "first_byte_ms", "queue_ms", "request_id"} {
			delete(l, each)
		}
		log = append(log, fmt.Sprint(l))
	}
	stats = string(p.get("/_/stats", basic("u", "p")...).body)
	for line := range strings.Lines(string(p.get("/_/metrics", basic("u", "p")...).body)) {
		if regexp.MustCompile(`^oci_proxy_(http_requests_total|hits|misses|answer_.*_count|pull_wait_seconds_count|sent_bytes)`).MatchString(line) {
			metrics += line
		}
	}
	return log, stats, metrics
}

// TestTheLaneTellsWhatNetHTTPTells: answers, log, figures and metrics are the same, whoever answers.
func TestTheLaneTellsWhatNetHTTPTells(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	img := up.PutImage(repo, "v1", random(1, 4<<10), random(2, 100<<10), random(3, 1<<20))
	manifest := "/v2/" + repo + "/manifests/" + img.Manifest.String()
	for name, s := range map[string]settings{
		"open":         {},
		"private":      {registry: "private: true"},
		"login":        {top: "auth: {username: u, password: p}"},
		"no login":     {top: "auth: {username: u, password: p, anonymous_from: [127.0.0.0/8]}"},
		"access rules": {top: "access: [{deny: [\"" + up.Host() + "/none/**\"]}]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lane, ahead := hasty(t, up, s)
			other := laneless(t, up, s)
			for _, p := range []*proxy{lane, other} {
				p.get("/v2/"+repo+"/manifests/v1", basic("u", "p")...)
				for _, d := range img.Layers {
					p.get(blobPath(d), basic("u", "p")...)
				}
			}
			paths := []string{manifest, blobPath(img.Config)}
			for _, d := range img.Layers {
				paths = append(paths, blobPath(d))
			}
			for _, path := range slices.Concat(paths, []string{"/v2/", "/v2/" + repo + "/manifests/v1", "/v2/none/x/blobs/" + img.Layers[0].String(), "/v2/a//b/blobs/" + img.Layers[0].String()}) {
				for _, header := range [][]string{nil, {"User-Agent", "docker/27"}, {"Accept", "application/vnd.oci.image.index.v1+json"}, {"If-None-Match", `"` + img.Manifest.String() + `"`}, {"Range", "bytes=1-5"}} {
					for _, method := range []string{"GET", "HEAD"} {
						got, want := lane.do(method, path, header...), other.do(method, path, header...)
						for _, h := range []http.Header{got.Header, want.Header} {
							h.Del("Date")
							if h.Get("X-Request-Id") == "" {
								t.Error("no request id")
							}
							h.Del("X-Request-Id")
						}
						ids := regexp.MustCompile(`"request_id":"[A-Z0-9]+"`)
						if got.StatusCode != want.StatusCode || !maps.EqualFunc(got.Header, want.Header, slices.Equal) || got.ContentLength != want.ContentLength || ids.ReplaceAllString(string(got.body), "") != ids.ReplaceAllString(string(want.body), "") {
							t.Errorf("%s %s %v: the lane %d %v, net/http %d %v", method, path, header, got.StatusCode, got.Header, want.StatusCode, want.Header)
						}
					}
				}
			}
			if n := ahead.Load(); n < 10 {
				t.Errorf("the lane answered %d requests", n)
			}
			gotLog, gotStats, gotMetrics := accounts(lane)
			wantLog, wantStats, wantMetrics := accounts(other)
			if !slices.Equal(gotLog, wantLog) {
				t.Errorf("the log\n%s\nand\n%s", strings.Join(gotLog, "\n"), strings.Join(wantLog, "\n"))
			}
			if gotStats != wantStats || gotMetrics != wantMetrics || gotMetrics == "" {
				t.Errorf("figures\n%s\n%s\nand\n%s\n%s", gotStats, gotMetrics, wantStats, wantMetrics)
			}
		})
	}
}

// Who waits is not the lane's: the turn of a client that leaves meanwhile is free at once.
func TestThoseWhoWaitAreHeardToLeave(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	d := up.PutBlob(repo, random(1, 1000))
	p, ahead := hasty(t, up, settings{registry: "private: true"})
	p.get(blobPath(d)).want(t, 200)
	p.get(blobPath(d)).want(t, 200)
	if n := ahead.Load(); n != 1 {
		t.Errorf("the lane answered %d requests, want the hit", n)
	}
	release := up.Hold(upstreamtest.Match{PathPart: "/other/"})
	defer release()
	c := p.dial()
	fmt.Fprintf(c, "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", strings.Replace(blobPath(d), repo, "other/img", 1)) // held, but the registry has to vouch
	testkit.Await(t, "it has its turn", func() bool { return p.node.gate.Figures().Pulls == 1 })
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	testkit.Await(t, "its turn is free", func() bool { return p.node.gate.Figures().Pulls == 0 })
}
