package node

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"oci-proxy/node/config"
	"oci-proxy/node/figures"
	"oci-proxy/node/live"
	"oci-proxy/transfer/oci"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// A heardEvent is one that came.
type heardEvent struct {
	name, data string
}

// A watcher listens. Its channel is closed when the answer ends.
type watcher struct {
	heard <-chan heardEvent
	last  map[string]string // data, by name, of what until has passed
}

// watch listens to a node until the test ends.
func watch(t *testing.T, p *proxy, header ...string) *watcher {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/_/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	answer{Response: resp}.want(t, http.StatusOK, "Content-Type", "text/event-stream", "Cache-Control", "no-store")
	heard, over := make(chan heardEvent, 1000), make(chan struct{})
	go func() {
		defer close(over)
		defer close(heard)
		defer func() { _ = resp.Body.Close() }() // only read
		name := ""
		for s := bufio.NewScanner(resp.Body); s.Scan(); {
			if n, ok := strings.CutPrefix(s.Text(), "event: "); ok {
				name = n
			}
			if data, ok := strings.CutPrefix(s.Text(), "data: "); ok {
				heard <- heardEvent{name, data}
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-over
	})
	return &watcher{heard, map[string]string{}}
}

// until waits until ok takes the last event of that name, which may have come already: what
// does not change is not told again. It returns the data.
func (w *watcher) until(t *testing.T, name string, ok func(data string) bool) string {
	t.Helper()
	late := time.After(patience)
	for {
		if data, came := w.last[name]; came && ok(data) {
			return data
		}
		select {
		case e, more := <-w.heard:
			if !more {
				t.Fatalf("the events ended without %s; the last was %s", name, w.last[name])
			}
			w.last[e.name] = e.data
		case <-late:
			t.Fatalf("no %s in time; the last was %s", name, w.last[name])
		}
	}
}

// sampled serves a node whose sampler runs.
func sampled(t *testing.T, up *upstreamtest.Registry, s settings) *proxy {
	t.Helper()
	p := newProxy(t, up, s)
	sample(t, p.node)
	return p
}

// sample runs a node's sampler until the test ends.
func sample(t *testing.T, n *Node) {
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.events.live.Run(ctx)
	}()
	t.Cleanup(func() {
		n.events.live.Close()
		stop()
		<-done
	})
}

// pullsOf reads an event about pulls.
func pullsOf(t *testing.T, data string) []live.Pull {
	t.Helper()
	var told struct{ Pulls []live.Pull }
	if err := json.Unmarshal([]byte(data), &told); err != nil {
		t.Fatal(err)
	}
	return told.Pulls
}

func TestEventsTellOfPullsUnderWay(t *testing.T) {
	testkit.SkipShort(t) // events come once a second
	t.Parallel()
	up := upstreamtest.New(t)
	const size = 3 << 20
	img := up.PutImage(repo, "v1", random(1, size))
	layer := img.Layers[0]
	p := sampled(t, up, settings{})
	release := halve(up, layer.String(), size)
	defer release()
	heard := watch(t, p)
	hello := heard.until(t, "hello", func(string) bool { return true })
	if !strings.Contains(hello, `"node":"oci-proxy"`) || !strings.Contains(hello, `"admin":true`) {
		t.Errorf("hello is %s", hello)
	}
	results := make(chan error, 2)
	for range 2 {
		go func() {
			resp, err := p.try(http.MethodGet, blobPath(layer))
			if err == nil {
				err = read(resp).err
			}
			results <- err
		}()
	}
	var row live.Pull
	heard.until(t, "pulls", func(data string) bool {
		all := pullsOf(t, data)
		if len(all) != 1 || all[0].Done < size/2 || all[0].Waiters != 2 {
			return false
		}
		row = all[0]
		return true
	})
	row.Since, row.Host = time.Time{}, ""
	if want := (live.Pull{Registry: up.Host(), Repository: repo, Digest: layer.String(), Kind: "blob", Source: "miss", Done: size / 2, Total: size, Waiters: 2}); row != want {
		t.Errorf("got %+v, want %+v", row, want)
	}
	release()
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	heard.until(t, "pulls", func(data string) bool { return len(pullsOf(t, data)) == 0 })
	heard.until(t, "figures", func(data string) bool {
		return strings.Contains(data, fmt.Sprintf(`"miss_bytes":%d`, 2*size)) && strings.Contains(data, fmt.Sprintf(`"from_upstream_bytes":%d`, size))
	})
	heard.until(t, "hour", func(data string) bool {
		var h hourTable
		if err := json.Unmarshal([]byte(data), &h); err != nil {
			t.Fatal(err)
		}
		return h.Whole.Requests == 2 && h.Nodes == 1 && slices.Contains(h.Requests, 2) && slices.Contains(h.Miss, 2*size) && h.Whole.P95 > 0
	})
}

// What a client only asks for, what is private and what the rules refuse is for admins.
func TestEventsShowOthersWhatTheyMayPull(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	const closed = "closed.example:5000"
	p := newProxy(t, up, settings{
		top:  "access:\n- {users: [bob], allow: [\"**\"]}\n- {deny: [\"*/team/**\", \"docker.io/secret/**\"]}",
		more: fmt.Sprintf("  %q: {private: true}", closed),
	})
	const hub = config.DockerHub
	for _, test := range []struct {
		pull                live.Pull
		admin, bob, another bool
	}{
		{live.Pull{Registry: hub, Repository: "library/nginx", Source: "miss"}, true, true, true},
		{live.Pull{Registry: hub, Repository: "library/nginx", Source: "hit"}, true, true, true},
		{live.Pull{Registry: hub, Repository: "library/nginx", Source: live.Waiting}, true, false, false},
		{live.Pull{Registry: "made.up.by.a.client", Repository: "x/y", Source: live.Waiting}, true, false, false},
		{live.Pull{Registry: hub, Repository: "secret/app", Source: "miss"}, true, true, false},
		{live.Pull{Registry: up.Host(), Repository: "team/app", Source: "peer"}, true, true, false},
		{live.Pull{Registry: closed, Repository: "x/y", Source: "hit"}, true, false, false},
		{live.Pull{Registry: closed, Repository: "x/y", Source: "miss"}, true, false, false},
	} {
		for who, see := range map[string]struct {
			admin bool
			user  string
			want  bool
		}{"an admin": {true, "admin", test.admin}, "bob": {false, "bob", test.bob}, "another": {false, "", test.another}} {
			test.pull.Host = "inside.example"
			got, visible := p.node.events.sight(see.admin, oci.Named(see.user))(test.pull)
			if visible != see.want {
				t.Errorf("%s sees %+v: %v, want %v", who, test.pull, visible, see.want)
			}
			if shown := got.Registry; visible && shown != shownRegistry(test.pull.Registry) {
				t.Errorf("%s sees the registry as %s", who, shown)
			}
			if host := got.Host != ""; visible && host != (see.admin || test.pull.Source == "peer") {
				t.Errorf("%s is told that %q delivers %s", who, got.Host, test.pull.Source)
			}
		}
	}
}

// The filter holds at the port, too, and changes with the config.
func TestEventsAreThoseOfTheirListener(t *testing.T) {
	testkit.SkipShort(t) // events come once a second
	t.Parallel()
	up := upstreamtest.New(t)
	const size = 3 << 20
	img := up.PutImage(repo, "v1", random(1, size))
	s := settings{top: login + ", admins: [boss]}", registry: "private: true"}
	r := newReloader(t, up, s)
	sample(t, r.node)
	release := halve(up, img.Layers[0].String(), size)
	defer release()
	r.get("/_/events").want(t, http.StatusUnauthorized)
	r.get("/_/events", append(basic("puller", "right:one"), "Sec-Fetch-Site", "cross-site")...).want(t, http.StatusForbidden)
	heard := watch(t, r.proxy, basic("puller", "right:one")...)
	done := make(chan error, 1)
	go func() {
		resp, err := r.try(http.MethodGet, blobPath(img.Layers[0]), basic("puller", "right:one")...)
		if err == nil {
			err = read(resp).err
		}
		done <- err
	}()
	testkit.Await(t, "half of it has come", func() bool {
		rows := r.node.reports.inFlight()
		return len(rows) == 1 && rows[0].Done >= size/2
	})
	for range 2 {
		heard.until(t, "figures", func(data string) bool { return strings.Contains(data, `"downloads":1`) })
		delete(heard.last, "figures")
	}
	if told := heard.last["pulls"]; told != `{"pulls":[],"more":0}` || !strings.Contains(heard.last["hello"], `"admin":false`) {
		t.Errorf("one who is no admin hears %s after %s", told, heard.last["hello"])
	}
	release()
	if err := <-done; err != nil {
		t.Error(err)
	}
	r.node.events.live.Disperse()
	for e := range heard.heard {
		if e.name == "pulls" && e.data != `{"pulls":[],"more":0}` || e.name == "hello" && !strings.Contains(e.data, `"admin":false`) {
			t.Errorf("one who is no admin hears %s: %s", e.name, e.data)
		}
	}
}

// Whoever has one IPv6 address has the 64 bits of a network: they count together, as for logins
// and turns.
func TestANetworkCannotTakeAllPlaces(t *testing.T) {
	t.Parallel()
	p := newProxy(t, upstreamtest.New(t), settings{top: "trusted_proxies: [127.0.0.0/8]"})
	for i := range 16 {
		watch(t, p, "X-Forwarded-For", fmt.Sprintf("2001:db8::%x", i+1))
	}
	p.get("/_/events", "X-Forwarded-For", "2001:db8::ffff").wantError(t, http.StatusServiceUnavailable, "UNAVAILABLE")
	if n := p.node.events.live.Listeners(); n != 16 {
		t.Errorf("%d listen", n)
	}
	watch(t, p, "X-Forwarded-For", "2001:db8:0:1::1")
	watch(t, p, "X-Forwarded-For", "192.0.2.1")
}

// A reload ends all answers: who asks again is let in by the config in force.
func TestAReloadEndsEvents(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	s := settings{top: login + "}"}
	r := newReloader(t, up, s)
	sample(t, r.node)
	heard := watch(t, r.proxy, basic("puller", "right:one")...)
	heard.until(t, "members", func(data string) bool { return strings.Contains(data, `"state":"active"`) })
	r.reload(settings{top: users}, basic("puller", "right:one")...).want(t, http.StatusOK)
	for range heard.heard { // it ends
	}
	r.get("/_/events", basic("puller", "right:one")...).want(t, http.StatusUnauthorized)
}

// Somebody who watches does not hold up a drain.
func TestADrainEndsEvents(t *testing.T) {
	t.Parallel()
	p, stop, ended := running(t, upstreamtest.New(t), settings{top: "shutdown_timeout: 10m"})
	heard := watch(t, p)
	heard.until(t, "hour", func(string) bool { return true })
	stop()
	if err := awaitRun(t, ended); err != nil {
		t.Errorf("Run: %v", err)
	}
	for range heard.heard { // it ends
	}
	if err := p.node.events.live.Serve(nil, nil, live.Viewer{}); !errors.Is(err, live.ErrEnding) {
		t.Errorf("after the drain: %v", err)
	}
}

// Each member tells the others its last hour, so one node shows that of all.
func TestMeshHourIsThatOfAllMembers(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	b := c.blob(100_000)
	c.pull(0, b)
	c.pull(0, b)
	c.pull(1, b)
	var told struct {
		Members []struct {
			Stats struct{ Hour *figures.Hour }
		}
	}
	c.await("the nodes have counted what they sent", func() bool { // after the client has it
		told.Members = nil
		c.json(1, "/_/cluster", &told)
		var requests int64
		for _, m := range told.Members {
			sum := m.Stats.Hour.Sum()
			requests += sum[figures.Requests]
		}
		return len(told.Members) == 2 && requests == 3
	})
	h := c.nodes[1].node.events.hour()
	var sent int64
	for i := range h.Requests {
		sent += h.Hit[i] + h.Peer[i] + h.Miss[i]
	}
	if h.Nodes != 2 || h.Known != 2 || h.Whole.Requests != 3 || sent != 3*b.size {
		t.Errorf("the hour of %d of %d nodes has %d requests and %d bytes", h.Nodes, h.Known, h.Whole.Requests, sent)
	}
}
