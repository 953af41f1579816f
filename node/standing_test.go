package node

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"oci-proxy/node/cluster"
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
