package node

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oci-proxy/node/cluster"
	"oci-proxy/node/config"
	"oci-proxy/transfer/upstream"
	"oci-proxy/transfer/upstreamtest"
)

// /_/cluster says why a node is degraded, and for how long it has been up. Who may not
// know where things lie hears codes, as at /_/health; and /v2/ tells nothing of it.
func TestClusterSaysHowItsMembersAre(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "a file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := newProxy(t, upstreamtest.New(t), settings{dir: file})
	for name, header := range map[string][]string{"cache_dir: " + file: nil, "cache_dir": forwarded} {
		var d cluster.Description
		a := p.get("/_/cluster", header...)
		a.want(t, http.StatusOK)
		if err := json.Unmarshal(a.body, &d); err != nil || len(d.Members) != 1 || d.Members[0].Stats == nil {
			t.Fatalf("%s, %v", a.body, err)
		}
		s := d.Members[0].Stats
		if len(s.Reasons) != 1 || !strings.HasPrefix(s.Reasons[0], name) || s.Uptime < 1 {
			t.Errorf("%+v, want %s", s, name)
		}
		if header != nil && strings.Contains(string(a.body), file) {
			t.Errorf("everybody hears of %s in %s", file, a.body)
		}
	}
	if a := p.get("/v2/"); strings.Contains(string(a.body), "reasons") {
		t.Errorf("%s", a.body)
	}
}

// A node on its own that is ending for a restart says so.
func TestClusterOfOneRestarts(t *testing.T) {
	t.Parallel()
	p := newProxy(t, upstreamtest.New(t), settings{})
	state := func() string {
		var d cluster.Description
		if err := json.Unmarshal(p.get("/_/cluster").body, &d); err != nil {
			t.Fatal(err)
		}
		return d.Members[0].State
	}
	if got := state(); got != "active" {
		t.Errorf("it is %s", got)
	}
	p.node.cluster.Restarting(t.Context())
	if got := state(); got != "restarting" {
		t.Errorf("it is %s", got)
	}
}

// While a node drains for a restart, the others list it as restarting, with what it still
// sends and for how long it has been up.
func TestMeshRestartIsSeen(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	b := c.blobOf(0, mib)
	release := c.gated(b)
	pull := c.began(0, b)
	member := func() (m cluster.Member) {
		var d cluster.Description
		c.json(1, "/_/cluster", &d)
		for _, one := range d.Members {
			if one.Name == "node-0" {
				m = one
			}
		}
		return m
	}
	c.await("the pull is under way", func() bool { m := member(); return m.Stats != nil && m.Stats.Pulls == 1 && m.State == "active" })
	c.nodes[0].stop()
	c.await("the restart is seen", func() bool {
		m := member()
		return m.State == "restarting" && m.Stats != nil && m.Stats.Pulls == 1 && m.Stats.Uptime > 0
	})
	release()
	(<-pull).wantWhole(t)
	if err := <-c.nodes[0].ended; err != nil {
		t.Error(err)
	}
	c.nodes[0].node = nil
}

// Each member tells of the registries that fail it, and all are heard at any of them. What a
// client makes up is not among them.
func TestMeshTellsWhichRegistriesFail(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	c.up.Fault(upstreamtest.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"600"}}})
	c.get(0, "/v2/"+repo+"/manifests/v1").want(t, http.StatusTooManyRequests)
	c.get(0, "/v2/made-up.doctor-test.com/a/b/manifests/v1")
	c.await("both tell that the registry is limited", func() bool {
		var d cluster.Description
		c.json(1, "/_/cluster", &d)
		limited := 0
		for _, m := range d.Members {
			if m.Stats == nil {
				continue
			}
			for _, u := range m.Stats.Upstreams {
				if u.Host != c.up.Host() || u.Registry != u.Host {
					t.Fatalf("%s tells of %+v", m.Name, u)
				}
				if u.State == "limited" && strings.Contains(u.LastError, "too many requests") && time.Since(u.Since) < time.Hour {
					limited++
				}
			}
		}
		return limited == 2
	})
}

// The built-in registry is no fault while nobody uses it, as on a machine without internet; one
// that is configured or used is.
func TestTheBuiltInRegistryIsNoFault(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"": Doubtful, "registries: {docker.io: {tag_ttl: 5m}}": Wrong, "used": Wrong,
	} {
		extra := strings.TrimPrefix(text, "used")
		cfg, err := config.Parse("test.yaml", []byte("defaults: {upstream_proxy: 'http://127.0.0.1:1', cache_dir: "+t.TempDir()+"}\n"+extra), nil)
		if err != nil {
			t.Fatal(err)
		}
		client, err := upstream.New(upstreams(cfg, noPasswords(), hooks{}, slog.New(slog.DiscardHandler)))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		found := lookAt(t.Context(), registryInspections(cfg, client, func(registry string) bool { return text == "used" && registry == config.DockerHub }))
		if len(found) != 1 || found[0].Level != want || strings.Contains(found[0].Text, "default_registry") != (want == Doubtful) {
			t.Errorf("%q: %+v", text, found)
		}
	}
}
