package node

import (
	"net/http"
	"strings"
	"testing"

	"oci-proxy/node/cluster"
	"oci-proxy/transfer/testkit"
)

// forget asks node i to forget a member.
func (c *testCluster) forget(i int, contentType, body string) answer {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, "http://"+c.nodes[i].client+"/_/forget", strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := c.client.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	return read(resp)
}

// states returns the members' states by name, as node i sees them.
func (c *testCluster) states(i int) map[string]string {
	c.t.Helper()
	var d cluster.Description
	c.json(i, "/_/cluster", &d)
	out := map[string]string{}
	for _, m := range d.Members {
		out[m.Name] = m.State
	}
	return out
}

func TestMeshForgetsAMemberThatDied(t *testing.T) {
	t.Parallel()
	testkit.SkipShort(t)
	c := newCluster(t, 3)
	names := []string{c.nodes[0].name, c.nodes[1].name, c.nodes[2].name}
	const right = "application/json"
	for _, bad := range []struct {
		kind, body string
		status     int
	}{
		{"text/plain", `{"name":"` + names[1] + `"}`, http.StatusUnsupportedMediaType},
		{"", `{"name":"` + names[1] + `"}`, http.StatusUnsupportedMediaType},
		{right, ``, http.StatusBadRequest},
		{right, `{"name":""}`, http.StatusBadRequest},
		{right, `{"name":"` + strings.Repeat("x", 2000) + `"}`, http.StatusBadRequest},
		{right, `{"name":"nobody"}`, http.StatusNotFound},
		{right, `{"name":"` + names[1] + `"}`, http.StatusConflict}, // it is alive
		{right, `{"name":"` + names[0] + `"}`, http.StatusNotFound}, // the node itself
	} {
		if a := c.forget(0, bad.kind, bad.body); a.StatusCode != bad.status {
			t.Errorf("%s of %s: %d %s", bad.body, bad.kind, a.StatusCode, a.body)
		}
	}
	c.kill(2)
	c.await("it is down", func() bool { return c.states(0)[names[2]] == "down" && c.states(1)[names[2]] == "down" })
	a := c.forget(0, right+"; charset=utf-8", `{"name":"`+names[2]+`"}`)
	if a.StatusCode != http.StatusOK || string(a.body) != `{"forgotten":"`+names[2]+`","members":1}`+"\n" {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
	if want := `"msg":"member forgotten","peer":"` + names[2] + `","members":1,"client":"127.0.0.1","request_id":"` + a.id(t) + `"`; !c.nodes[0].log.Has(want) {
		t.Errorf("the log has no line with %s", want)
	}
	for i := range 2 {
		c.await("it is forgotten", func() bool { _, is := c.states(i)[names[2]]; return !is })
		if text := string(c.get(i, "/_/metrics").body); !strings.Contains(text, `oci_proxy_members{state="gone"} 0`) || strings.Contains(text, `state="down"`) {
			t.Errorf("node %d has other metrics", i)
		}
	}
}
