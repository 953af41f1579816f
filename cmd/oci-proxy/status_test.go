package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"oci-proxy/transfer/testkit"
)

// noon is when the reports of these tests are made.
var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// answers reads what a node would say.
func answers(t *testing.T, members, ups string) (c clusterAnswer, u []upstreamStatus) {
	t.Helper()
	if err := errors.Join(json.Unmarshal([]byte(members), &c), json.Unmarshal([]byte(ups), &u)); err != nil {
		t.Fatal(err)
	}
	return c, u
}

// threeMembers are one that is well, one that drains, and one that is down.
const threeMembers = `{"ring": "8a6f000000000001", "missing": [{"name": "node-3", "reason": "it is down"}], "members": [
{"id": "a1", "name": "node-1", "state": "active", "since": "2026-11-29T09:00:00Z", "share": 0.5, "self": true, "healthy": true, "version": "1.0", "peer": "10.0.0.1:7947",
 "stats": {"registries": {"a.io": {"Hits": 6, "PeerHits": 2, "Misses": 2, "Items": 4, "CurrentSize": 4096}}, "max_size": 10240, "ring": "8a6f000000000001", "uptime_seconds": 10800, "reasons": ["cache_dir /x: the disk is full"],
  "upstreams": [{"registry": "hub", "host": "hub", "state": "limited", "since": "2026-11-29T11:59:00Z", "last_error": "too many requests"}]}},
{"id": "b2", "name": "node-2", "state": "restarting", "share": 0.3, "healthy": true, "version": "1.0", "since": "2026-11-29T09:00:00Z",
 "stats": {"registries": {}, "max_size": 10240, "uptime_seconds": 61, "pulls": 2, "Newer": 1}},
{"id": "c3", "name": "node-3", "state": "down", "share": 0.2, "version": "0.9", "since": "2026-11-29T11:58:30Z"}]}`

const limitedHub = `[{"registry": "a.io", "host": "a.io", "state": "up"}, {"registry": "hub", "host": "hub", "state": "limited", "since": "2026-11-29T11:59:00Z", "last_error": "too many requests", "rate_limit": 100, "rate_remaining": 0}]`

// What is degraded stands below the table with its reason; a restart's drain is a state.
func TestStatusSaysWhatIsDegraded(t *testing.T) {
	t.Parallel()
	c, ups := answers(t, threeMembers, limitedHub)
	var out strings.Builder
	if err := writeStatus(&out, statusOf(c, ups, "127.0.0.1:5000", noon)); err != nil {
		t.Fatal(err)
	}
	want := `127.0.0.1:5000: 1 of 3 members up, ring 8a6f000000000001
NODE      STATE       UP    SHARE   BLOBS  HELD     BOUND     GETS  HITS
node-1 *  degraded    3h0m  50.0%   4      4.0 KiB  10.0 KiB  10    80.0%
node-2    restarting  1m1s  30.0%   0      0 B      10.0 KiB  0     -
node-3    down        -     20.0%   -      -        -         -     -
total     1 up              100.0%  4      4.0 KiB  20.0 KiB  10    80.0%
degraded:
  node-1: cache_dir /x: the disk is full
  node-2: restarting: it takes nothing new; requests under way: 2
  node-3: down for 1m30s: start it again; after two minutes it loses its place
  cluster: the members run different versions: 0.9 (node-3); 1.0 (node-1, node-2)
  hub: limited for 1m0s at node-1: too many requests
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// Whatever the names and however many members: 100 columns, and a line for each.
func TestStatusFits(t *testing.T) {
	t.Parallel()
	var c clusterAnswer
	for i := range 200 {
		m := memberAnswer{
			ID: fmt.Sprint(i), Name: fmt.Sprintf("registry-cache-for-the-ünited-regions.eu-central-1.example.internal-%03d", i),
			State: []string{"active", "restarting", "draining", "down", "gone"}[i%5], Healthy: i%2 == 0, Share: 1, Self: i == 0,
			Version: strings.Repeat("v", 60), Since: noon.Add(-900 * time.Hour),
		}
		text := `{"registries": {"a": {"Hits": 9007199254740992, "Items": 9007199254740992, "CurrentSize": 1099511627775}}, "max_size": 1099511627775, "uptime_seconds": 99999999, "reasons": ["` + strings.Repeat("long-", 60) + ` and more ` + strings.Repeat("words ", 40) + `"]}`
		if err := json.Unmarshal([]byte(text), &m.Stats); err != nil {
			t.Fatal(err)
		}
		c.Members = append(c.Members, m)
	}
	var out strings.Builder
	report := statusOf(c, nil, "node."+strings.Repeat("example.", 20), noon)
	if err := writeStatus(&out, report); err != nil {
		t.Fatal(err)
	}
	rows := map[string]bool{}
	for line := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > statusWidth {
			t.Errorf("%d columns: %s", n, line)
		}
		if name, _, _ := strings.Cut(line, " "); strings.HasPrefix(name, "regis") {
			rows[name] = true
		}
	}
	if len(rows) != 200 {
		t.Errorf("%d members can be told apart in\n%s", len(rows), out.String()[:2000])
	}
}

// The object of -o json keeps its names.
func TestStatusAsJSON(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, map[string]string{"/_/cluster": threeMembers, "/_/upstreams": limitedHub}[r.URL.Path])
	}))
	defer srv.Close()
	got := call(t.Context(), "status", "-o", "json", "-addr", srv.URL)
	var c map[string]any
	if err := json.Unmarshal([]byte(got.out), &c); err != nil || got.status != exitDone || strings.Count(got.out, "\n") != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	c["time"], c["address"], c["degraded"] = "T", "A", len(c["degraded"].([]any))
	c["members"] = c["members"].([]any)[:1]
	text, err := json.Marshal(c)
	want := `{"address":"A","degraded":5,"members":[{"answered":true,"blobs":4,"bound":10240,"bytes":4096,"egress":false,"gossip":"","healthy":true,"hits":6,"id":"a1","misses":2,"name":"node-1","peer":"10.0.0.1:7947","peer_hits":2,"pulls":0,"self":true,"share":0.5,"since":"2026-11-29T09:00:00Z","state":"active","uptime_seconds":10800,"version":"1.0","zone":""}],` +
		`"ring":"8a6f000000000001","time":"T","total":{"blobs":4,"bound":20480,"bytes":4096,"hits":6,"misses":2,"peer_hits":2,"pulls":2},"up":1,` +
		`"upstreams":[{"host":"a.io","last_error":"","latency_ms":0,"rate_limit":null,"rate_remaining":null,"rate_reset":null,"registry":"a.io","since":"0001-01-01T00:00:00Z","state":"up"},{"host":"hub","last_error":"too many requests","latency_ms":0,"rate_limit":100,"rate_remaining":0,"rate_reset":null,"registry":"hub","since":"2026-11-29T11:59:00Z","state":"limited"}]}`
	if err != nil || string(text) != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	if got := call(t.Context(), "status", "-o", "yaml"); got.status != exitUsage {
		t.Errorf("%+v", got)
	}
}

// -watch asks every two seconds until it is stopped, also while the node is away, and
// redraws nothing unless somebody looks.
func TestStatusWatches(t *testing.T) {
	t.Parallel()
	for _, redraw := range []bool{false, true} {
		t.Run(fmt.Sprint(redraw), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 3*watchEvery+time.Second)
				defer cancel()
				asked := 0
				ask := func(context.Context) (clusterStatus, error) {
					if asked++; asked == 2 {
						return clusterStatus{}, errors.New("connection refused")
					}
					return clusterStatus{Address: fmt.Sprintf("answer-%d", asked)}, nil
				}
				var out testkit.Log
				write := func(w io.Writer, c clusterStatus) error { _, err := fmt.Fprintln(w, c.Address); return err }
				if err := watchStatus(ctx, ask, write, redraw, streams{out: &out}); err != nil || asked != 4 {
					t.Errorf("asked %d times, %v", asked, err)
				}
				wantIn(t, out.String(), "answer-1\n", "connection refused\n", "answer-3\n", "answer-4\n")
				if n := strings.Count(out.String(), "\x1b"); redraw != (n > 0) {
					t.Errorf("%d escapes in %q", n, out.String())
				}
			})
		})
	}
}

// A node that is not there at the beginning is a failure, and a pipe is no terminal.
func TestStatusWatchesNobody(t *testing.T) {
	t.Parallel()
	if got := call(t.Context(), "status", "-watch", "-addr", "127.0.0.1:1"); got.status != exitFailed || got.out != "" {
		t.Errorf("%+v", got)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if isTerminal(w) || isTerminal(&strings.Builder{}) {
		t.Error("a pipe is taken for a terminal")
	}
	if err := errors.Join(r.Close(), w.Close()); err != nil {
		t.Error(err)
	}
}

func TestDurations(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 59 * time.Second: "59s", 61 * time.Second: "1m1s", 3*time.Hour + 5*time.Minute: "3h5m", 49 * time.Hour: "2d1h",
	} {
		if got := duration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

// What fails several members is one line that names them, since the earliest of their times.
func TestStatusMergesWhatFailsMembers(t *testing.T) {
	t.Parallel()
	one := func(registry, host, state, since string) string {
		return fmt.Sprintf(`{"registry": %q, "host": %q, "state": %q, "since": "2026-11-29T%sZ", "last_error": "connection refused"}`, registry, host, state, since)
	}
	var c clusterAnswer
	for i, ups := range []string{
		one("hub", "hub", "down", "11:59:00") + "," + one("a.io", "m.io", "down", "11:59:50"),
		one("hub", "hub", "down", "11:58:00"),
		one("hub", "hub", "down", "11:59:30") + "," + one("a.io", "a.io", "limited", "11:59:59"),
		"",
	} {
		m := memberAnswer{Name: fmt.Sprintf("node-%d", i+1), State: "active", Healthy: true}
		if ups != "" {
			if err := json.Unmarshal([]byte(`{"upstreams": [`+ups+`]}`), &m.Stats); err != nil {
				t.Fatal(err)
			}
		}
		c.Members = append(c.Members, m)
	}
	var got []string
	for _, d := range statusOf(c, nil, "a", noon).Degraded {
		got = append(got, d.Of+" "+d.Reason+" "+strings.Join(d.At, "+"))
	}
	want := `a.io limited for 1s at node-3: connection refused node-3
m.io down for 10s as a mirror of a.io at node-1: connection refused node-1
hub down for 2m0s at all 3 members: connection refused node-1+node-2+node-3`
	if text := strings.Join(got, "\n"); text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}
