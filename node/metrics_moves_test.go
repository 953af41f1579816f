package node

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"oci-proxy/node/gate"
	"oci-proxy/node/metrics"
	"oci-proxy/transfer/testkit"
	"oci-proxy/transfer/upstreamtest"
)

// still are the metrics that no test can move, each with the reason.
var still = map[string]string{
	"oci_proxy_build_info":               "what runs stays the same",
	"oci_proxy_shard_bound_bytes":        "the config says it",
	"oci_proxy_kept_lists_bound_bytes":   "the config says it",
	"oci_proxy_archive_objects_total":    "there is no bucket here; transfer/archive tests what is counted",
	"oci_proxy_disk_free_bytes":          "the disk is everybody's",
	"oci_proxy_ring_disagreeing_members": "members agree again at once; node/cluster tests it",
	"oci_proxy_directory_members_told":   "members tell within seconds of a start; TestSimDirectory looks at it",
	"oci_proxy_members_sent_on_total":    "it takes four nodes; TestMeshALargeBlobGoesFromNodeToNode looks at it",
	"oci_proxy_feeders_left_total":       "it takes four nodes; TestMeshAFeederDies looks at it",
}

// A move is something that happens to a node, and the metrics that tell of it: name, then
// labels.
type move struct {
	what  string
	of    scraped
	do    func()
	moves []string
	then  func() // undoes it; may be nil
}

// scraped returns a node's metrics by series.
type scraped func() map[string]float64

// Each metric tells of what it is there for.
func TestEachMetricMoves(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	c := meteredCluster(t)
	moved, seen := map[string]bool{}, map[string]float64{}
	for _, m := range slices.Concat(movesOfDownloads(t, c), movesOfTrouble(t, c), movesOfALoneNode(t), movesOfCopies(t)) {
		before := m.of()
		maps.Copy(seen, before)
		m.do()
		for _, want := range m.moves {
			testkit.Await(t, fmt.Sprintf("%s: %s", m.what, want), func() bool { return changed(before, m.of(), strings.Fields(want)) })
			name, _, _ := strings.Cut(want, " ")
			moved["oci_proxy_"+name] = true
		}
		if m.then != nil {
			m.then()
		}
	}
	for _, name := range metrics.Names() {
		if moved[name] == (still[name] != "") {
			t.Errorf("%s: moved %v, and cannot because %q", name, moved[name], still[name])
		}
		if still[name] != "" && !slices.ContainsFunc(slices.Collect(maps.Keys(seen)), func(series string) bool { return strings.HasPrefix(series, name) }) {
			t.Errorf("%s is not there", name)
		}
	}
}

// changed reports whether a series of that name and with those labels is not what it was. Of
// a histogram the count is looked at.
func changed(before, after map[string]float64, want []string) bool {
	for series, v := range after {
		name, labels, _ := strings.Cut(series, "{")
		if name = strings.TrimSuffix(name, "_count"); name != "oci_proxy_"+want[0] || v == before[series] {
			continue
		}
		if !slices.ContainsFunc(want[1:], func(label string) bool { return !strings.Contains(labels, label) }) {
			return true
		}
	}
	return false
}

// series reads what Prometheus would.
func series(t testing.TB, a answer) map[string]float64 {
	t.Helper()
	a.want(t, http.StatusOK)
	out := map[string]float64{}
	for line := range strings.Lines(string(a.body)) {
		i := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || i < 0 {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(line[i+1:]), 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		out[line[:i]] = v
	}
	return out
}

// meteredCluster is three members in front of a registry that wants tokens.
func meteredCluster(t *testing.T) *testCluster {
	t.Helper()
	up := upstreamtest.New(t, upstreamtest.Bearer(upstreamtest.BearerAuth{}))
	up.PutImage(repo, "v1", random(1, 1000))
	return formCluster(t, 3, up, func(int) form { return form{settings: settings{defaults: "cache_max_size: 4m"}} })
}

// metered returns the metrics of the first member.
func metered(c *testCluster) scraped {
	return func() map[string]float64 { return series(c.t, c.get(0, "/_/metrics")) }
}

// movesOfDownloads are what the first of three members downloads and serves.
func movesOfDownloads(t *testing.T, c *testCluster) []move {
	t.Helper()
	of, own := metered(c), c.blobOf(0, 100_000)
	var held testBlob
	var done <-chan pulled
	var release func()
	return []move{
		{"a blob of another member's", of, func() { c.pull(0, c.blobOf(1, mib)) }, []string{
			`http_requests_total kind="blob" code="200"`, `answer_first_byte_seconds kind="blob" source="miss"`, `answer_seconds kind="blob" source="miss"`,
			`requests_total source="miss"`, `sent_bytes_total source="miss"`, `received_bytes_total source="peer"`, `shard_blobs`, `shard_bytes`,
			`verified_bytes_total where="network"`, `pull_wait_seconds`, `peer_requests_total kind="blobs" outcome="ok"`, `peer_first_byte_seconds kind="blobs"`,
		}, nil},
		{"a blob of its own", of, func() { c.pull(0, own) }, []string{
			`upstream_requests_total kind="blob" code="200"`, `upstream_requests_total kind="token"`, `upstream_tokens_total`,
			`upstream_wait_seconds`, `upstream_first_byte_seconds`, `upstream_answer_seconds`, `received_bytes_total source="upstream"`, `second_copies_waiting`,
		}, nil},
		{"a hit", of, func() { c.pull(0, own) }, []string{`sent_bytes_total source="hit"`, `requests_total source="hit"`, `answer_seconds source="hit"`}, nil},
		{"another member wants it", of, func() { c.pull(2, own) }, []string{`sent_to_peers_bytes_total`}, nil},
		{"a download that takes time", of, func() {
			held = c.blobOf(0, mib)
			release = c.gated(held)
			done = c.began(0, held)
		}, []string{
			`flights`, `flight_followers`, `pulls state="active"`, `upstream_turns state="active"`, `client_connections`, `sent_bytes_total source="miss"`,
		}, func() { release(); <-done }},
		{"a download that breaks off", of, func() {
			b := c.blobOf(0, mib)
			c.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: b.String()}, Times: 1, CutAfter: 300_000})
			c.pull(0, b)
		}, []string{`resumes_total`}, nil},
	}
}

// movesOfCopies are what becomes of blobs that only the first of two members holds.
func movesOfCopies(t *testing.T) []move {
	t.Helper()
	c := copyingCluster(t, 2, func(i int) form {
		return form{settings: settings{defaults: fmt.Sprintf("cache_max_size: %dm", 4-2*i)}}
	})
	of := metered(c)
	return []move{
		{"another member has room", of, func() { c.pull(0, c.blobOf(0, mib)) }, []string{`second_copies_total what="made"`, `second_copies_bytes_total`, `directory_entries`, `directory_bytes`}, nil},
		{"it has none", of, func() { c.pull(0, c.blobOf(0, 3*mib)) }, []string{`second_copies_total what="failed"`}, nil},
	}
}

// movesOfTrouble are what befalls the first of three members.
func movesOfTrouble(t *testing.T, c *testCluster) []move {
	t.Helper()
	of := metered(c)
	get := func(path string) func() { return func() { c.get(0, path).want(t, http.StatusOK) } }
	return []move{
		{"a list", of, get("/v2/" + repo + "/tags/list"), []string{`kept_lists_bytes`, `answer_seconds kind="tags"`}, nil},
		{"a full shard", of, func() {
			for range 5 {
				c.pull(0, c.blobOf(0, mib))
			}
		}, []string{`evictions_total cause="bound"`}, nil},
		{"a damaged file", of, func() {
			b := c.blobOf(0, mib)
			c.pull(0, b)
			c.corrupt(0, b, 1000)
			c.pull(0, b)
		}, []string{`bad_bytes_total where="disk"`}, nil},
		{"a member that does not answer", of, func() {
			c.links.of(0, 1).set(trouble{cut: true})
			c.pull(0, c.blobOf(1, 1000))
		}, []string{`peers_passed_over_total reason="failed"`, `peers_quarantined`, `peer_requests_total outcome="failed"`}, func() { c.links.heal() }},
		{"a further member", of, func() { c.join() }, []string{`members state="active"`, `ring_version`}, nil},
		{"an outage", of, func() {
			get("/v2/" + repo + "/manifests/v1")()
			own := c.blobOf(0, 1000) // this member itself asks the registry for it
			c.up.Down()
			get("/v2/" + repo + "/manifests/v1")()
			c.get(0, blobPath(own.Digest))
		}, []string{`stale_answers_total`, `upstream_up`, `answer_seconds kind="tag" source="stale"`, `upstream_requests_total code="error"`}, c.up.Up},
	}
}

// movesOfALoneNode are what happens to nodes without a cluster.
func movesOfALoneNode(t *testing.T) []move {
	t.Helper()
	login := []string{"Authorization", "Basic dTpwYXNz"}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	guarded := newProxy(t, upstreamtest.New(t), settings{top: "auth: {username: u, password: pass}"})
	narrow := newProxyOf(t, upstreamtest.New(t), settings{top: "queue_timeout: 1s"}, seams{limits: &gate.Limits{Files: 100, Pulls: 1, Waiting: 10}})
	homeless := newProxy(t, upstreamtest.New(t), settings{dir: file})
	of := func(p *proxy) scraped {
		return func() map[string]float64 { return series(t, p.get("/_/metrics", login...)) }
	}
	return []move{
		{"a wrong login", of(guarded), func() { guarded.get("/v2/", "Authorization", "Basic dTp3cm9uZw==").want(t, http.StatusUnauthorized) }, []string{
			`failed_logins_total`, `http_requests_total code="401" kind="ping"`,
		}, nil},
		{"a node that drains", of(guarded), func() { guarded.node.ready.Store(false) }, []string{`ready`}, nil},
		{"a registry that fails once", of(narrow), func() {
			d := narrow.up.PutRandomBlob(repo, 2, 1000)
			narrow.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: d.String()}, Times: 1, Status: http.StatusInternalServerError})
			narrow.get(blobPath(d)).want(t, http.StatusOK)
		}, []string{`upstream_retries_total`, `upstream_requests_total code="500"`}, nil},
		{"a registry with a limit", of(narrow), func() {
			d := narrow.up.PutRandomBlob(repo, 3, 1000)
			limit := http.Header{"Ratelimit-Limit": {"100;w=21600"}, "Ratelimit-Remaining": {"76;w=21600"}}
			narrow.up.Fault(upstreamtest.Fault{Match: upstreamtest.Match{PathPart: d.String()}, Times: 1, Header: limit})
			narrow.get(blobPath(d)).want(t, http.StatusOK)
		}, []string{`upstream_rate_limit`, `upstream_rate_limit_remaining`, `upstream_rate_limit_reset_timestamp_seconds`}, nil},
		{"more pulls than it may answer", of(narrow), func() {
			d := narrow.up.PutRandomBlob(repo, 1, mib)
			release := halve(narrow.up, d.String(), mib)
			defer release()
			first := narrow.send(http.MethodGet, blobPath(d))
			narrow.get(blobPath(d)).want(t, http.StatusServiceUnavailable)
			release()
			read(first)
		}, []string{`pulls_refused_total`, `http_requests_total code="503"`}, nil},
		{"a directory that can be used at last", of(homeless), func() {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}, []string{`degraded`, `degraded_reason reason="cache_dir"`}, nil},
	}
}
