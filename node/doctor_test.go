package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"oci-proxy/node/cluster"
	"oci-proxy/node/membership"
	"oci-proxy/transfer/upstreamtest"
)

// examined asks a node at a URL to look, and returns the steps and how many failed.
func examined(t testing.TB, client *http.Client, url, target string, header ...string) (steps []step, failed int, raw string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/_/doctor", strings.NewReader(fmt.Sprintf(`{"target": %q}`, target)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	a := read(resp)
	a.want(t, http.StatusOK, "Content-Type", "application/x-ndjson")
	lines := strings.Split(strings.TrimSpace(string(a.body)), "\n")
	for _, line := range lines[:len(lines)-1] {
		var s step
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		steps = append(steps, s)
	}
	var done struct {
		Done   bool
		Failed int
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &done); err != nil || !done.Done {
		t.Fatalf("the last line is %q, %v", lines[len(lines)-1], err)
	}
	return steps, done.Failed, string(a.body)
}

// named lists the names of steps.
func named(steps []step) string {
	var all []string
	for _, s := range steps {
		all = append(all, s.Step)
	}
	return strings.Join(all, " ")
}

// A sickness is a registry that fails at one step, and the node that looks at it.
type sickness struct {
	options  []upstreamtest.Option
	fault    upstreamtest.Fault
	do       func(up *upstreamtest.Registry)
	registry string // members of the registry's config
	target   string // HOST is the registry; "": its image
	more     string // further registries
	secure   bool   // the registry is another one than the default, and over TLS
	last     string // the step that fails, "": none
	text     string // what it says
}

// The step that fails is the last one, and says why and what to do; all before went well.
func TestDoctorFindsTheStepThatFails(t *testing.T) {
	t.Parallel()
	login := fmt.Sprintf("auth: {username: %s, password: %s}", upstreamUser, upstreamPassword)
	tokens := func(password string, separate bool) []upstreamtest.Option {
		return []upstreamtest.Option{upstreamtest.Bearer(upstreamtest.BearerAuth{User: upstreamUser, Password: password, SeparateHost: separate})}
	}
	at := func(m upstreamtest.Match, f upstreamtest.Fault) upstreamtest.Fault { f.Match = m; return f }
	ping, blobs := upstreamtest.Match{Method: http.MethodGet}, upstreamtest.Match{PathPart: "/blobs/"}
	for name, c := range map[string]sickness{
		"nothing":             {options: []upstreamtest.Option{upstreamtest.Redirect()}},
		"nothing, no storage": {options: tokens(upstreamPassword, false), registry: login},
		"only the registry":   {target: "HOST"},
		"name":                {target: "gone.doctor.test", more: "  gone.doctor.test: {}", last: "dns", text: "no such host"},
		"a stranger's name":   {target: "stranger.doctor-test.com/a/b:1", last: "dns", text: "no such host"},
		"proxy":               {registry: `upstream_proxy: "http://127.0.0.1:1"`, last: "proxy", text: "127.0.0.1:1"},
		"tcp":                 {do: (*upstreamtest.Registry).Down, last: "tcp", text: "connection refused"},
		"tls":                 {secure: true, target: "HOST", last: "tls", text: "not trusted"},
		"ping":                {fault: at(ping, upstreamtest.BalancerPage()), last: "ping", text: "502"},
		"portal":              {fault: at(ping, upstreamtest.PortalPage()), last: "ping", text: "a page for people"},
		"limited":             {fault: at(ping, upstreamtest.Fault{Status: 429}), last: "ping", text: "429"},
		"token":               {options: tokens("other", true), registry: login + ", realm_hosts: [127.0.0.1]", last: "token", text: "the token server refused the credentials"},
		"login":               {options: []upstreamtest.Option{upstreamtest.Basic("u", "p")}, last: "token", text: "the config has none for it"},
		"head":                {target: "HOST/team/none:1", last: "head", text: "404"},
		"manifest":            {fault: at(upstreamtest.Match{Method: http.MethodGet, PathPart: "/manifests/"}, upstreamtest.Fault{Status: 403}), last: "manifest", text: "403"},
		"redirect":            {fault: at(blobs, upstreamtest.Fault{Status: 307, Header: http.Header{"Location": {"http://169.254.169.254/latest"}}}), last: "redirect", text: "metadata"},
		"storage":             {options: []upstreamtest.Option{upstreamtest.Redirect()}, fault: upstreamtest.S3Missing(), last: "storage", text: "404"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := upstreamtest.New(t, c.options...)
			up.PutImage(repo, "v1", []byte("a layer"))
			secure := upstreamtest.New(t, upstreamtest.TLS())
			p := newProxy(t, up, settings{registry: c.registry, more: c.more + fmt.Sprintf("\n  %q: {}", secure.Host())})
			if c.fault.Status != 0 {
				up.Fault(c.fault)
			}
			if c.do != nil {
				c.do(up)
			}
			if c.secure {
				up = secure
			}
			target := strings.Replace(c.target, "HOST", up.Host(), 1)
			if target == "" {
				target = up.Host() + "/" + repo + ":v1"
			}
			steps, failed, raw := examined(t, p.client, p.url, target)
			c.check(t, steps, failed)
			if strings.Contains(raw, upstreamPassword) {
				t.Errorf("a secret is in %s", raw)
			}
		})
	}
}

// check fails the test unless the steps end as they are to.
func (c sickness) check(t *testing.T, steps []step, failed int) {
	t.Helper()
	last := steps[len(steps)-1]
	for _, s := range steps[:len(steps)-1] {
		if s.Level != Fine || s.Text == "" || s.Node != "oci-proxy" {
			t.Errorf("%+v", s)
		}
	}
	switch {
	case c.last == "":
		want := "dns proxy tcp tls ping token"
		if c.target == "" {
			want += " head manifest redirect storage"
		}
		if got := named(steps); failed != 0 || last.Level != Fine || got != want {
			t.Errorf("%d failed, steps %s: %+v", failed, got, last)
		}
	case failed != 1 || last.Step != c.last || last.Level != Wrong || !strings.Contains(last.Text, c.text) || last.Advice == "" && !strings.Contains(last.Text, "set "):
		t.Errorf("%s; %d failed; the last is %+v, want %s: %s", named(steps), failed, last, c.last, c.text)
	}
}

// Only operators may ask, and what they ask for goes by the rules of pulls: nobody is led
// to addresses inside.
func TestDoctorIsNoWayInside(t *testing.T) {
	t.Parallel()
	dns.say("inside.doctor.test", "127.0.0.1")
	p := newProxy(t, upstreamtest.New(t), settings{})
	for target, word := range map[string]string{
		"inside.doctor.test": "public", "10.0.0.1/a/b:1": "", "169.254.169.254": "", "localhost:1": "",
	} {
		steps, failed, _ := examined(t, p.client, p.url, target)
		last := steps[len(steps)-1]
		if failed != 1 || last.Level != Wrong || !strings.Contains(last.Text, word) || strings.Contains(named(steps), "ping") {
			t.Errorf("%s: %+v", target, steps)
		}
	}
	for _, c := range []struct {
		body, kind string
		header     []string
		status     int
	}{
		{`{"target": ""}`, "application/json", forwarded, http.StatusForbidden},
		{`{"target": ""}`, "text/plain", nil, http.StatusUnsupportedMediaType},
		{`{"target": 7}`, "application/json", nil, http.StatusBadRequest},
		{`{"target": "UPPER/x:1"}`, "application/json", nil, http.StatusBadRequest},
		{`{"target": "a.example.com/x/../y:1"}`, "application/json", nil, http.StatusBadRequest},
		{`{"target": "` + strings.Repeat("a", maxDoctor) + `"}`, "application/json", nil, http.StatusBadRequest},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/_/doctor", strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", c.kind)
		for i := 0; i < len(c.header); i += 2 {
			req.Header.Set(c.header[i], c.header[i+1])
		}
		resp, err := p.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		read(resp).want(t, c.status)
	}
}

// A name is a registry or an image.
func TestDoctorsTargets(t *testing.T) {
	t.Parallel()
	p := newProxy(t, upstreamtest.New(t), settings{more: "  reg.example.com: {alias: [corp]}"})
	own := p.up.Host()
	for target, want := range map[string]string{
		"": "", "ghcr.io": "ghcr.io/", "ghcr.io/": "ghcr.io/", "docker.io": "registry-1.docker.io/", "corp": "reg.example.com/", "reg.example.com": "reg.example.com/",
		own: own + "/", "localhost:5000": "localhost:5000/", "[::1]:5000": "[::1]:5000/",
		"alpine": own + "/alpine:latest", "alpine:3": own + "/alpine:3", "corp/a/b": "reg.example.com/a/b:latest", "docker.io/alpine": "registry-1.docker.io/library/alpine:latest",
		"a/b@" + helloDigest: own + "/a/b@" + helloDigest,
	} {
		got, err := p.node.doctor.parse(target)
		if err != nil || got.name() != want {
			t.Errorf("%q is %q, %v; want %q", target, got.name(), err, want)
		}
		if again, err := p.node.doctor.parse(got.name()); err != nil || again != got {
			t.Errorf("%q is %+v for another member, %v", got.name(), again, err)
		}
	}
}

// Without a target the node looks at itself, with what check -live looks at.
func TestDoctorLooksAtTheNode(t *testing.T) {
	t.Parallel()
	up, down := upstreamtest.New(t), upstreamtest.New(t)
	down.Down()
	p := newProxy(t, up, settings{defaults: "cache_max_size: 10MiB", more: fmt.Sprintf("  %q: {insecure: true}", down.Host())})
	steps, failed, _ := examined(t, p.client, p.url, "")
	seen := map[string]string{}
	for _, s := range steps {
		seen[s.About+" "+s.Step] = s.Level + " " + s.Text
	}
	for name, want := range map[string]string{
		"node health": "ok healthy", "node disk": "ok ", up.Host() + " registry": "ok answers", down.Host() + " registry": "error connection refused",
	} {
		if !strings.HasPrefix(seen[name], want) {
			t.Errorf("%s: %q, want %q", name, seen[name], want)
		}
	}
	if failed != 1 || len(steps) != 4 {
		t.Errorf("%d failed: %+v", failed, steps)
	}
	up.Fault(upstreamtest.Fault{Status: 429, Header: http.Header{"Retry-After": {"600"}}})
	p.get("/v2/"+repo+"/manifests/v1").want(t, http.StatusTooManyRequests)
	for _, target := range []string{"", up.Host()} {
		asked := len(up.Requests())
		steps, _, _ := examined(t, p.client, p.url, target)
		told := false
		for _, s := range steps {
			told = told || s.Level == Wrong && strings.Contains(s.Text, "to be left alone")
		}
		if !told || target != "" && len(up.Requests()) != asked {
			t.Errorf("%q: %+v, and %d requests", target, steps, len(up.Requests())-asked)
		}
	}
}

// Each member looks from where it is: one without a way out finds the step that fails,
// and the others find none.
func TestMeshDoctorLooksFromEachMember(t *testing.T) {
	t.Parallel()
	ways := []*wayOutOf{newWayOut(t), newWayOut(t), newWayOut(t)}
	c := formCluster(t, 3, upstreamtest.New(t), func(i int) form {
		return form{settings: settings{registry: fmt.Sprintf("upstream_proxy: %q", "http://"+ways[i].addr)}}
	})
	c.up.PutImage(repo, "v1", []byte("a layer"))
	ways[2].cut()
	steps, failed, _ := examined(t, c.client, "http://"+c.nodes[0].client, c.up.Host()+"/"+repo+":v1")
	byNode := map[string][]step{}
	for _, s := range steps {
		byNode[s.Node] = append(byNode[s.Node], s)
	}
	for i, want := range []string{"dns proxy tcp tls ping token head manifest redirect storage", "dns proxy tcp tls ping token head manifest redirect storage", "dns proxy"} {
		if got := named(byNode[c.nodes[i].name]); got != want {
			t.Errorf("%s made the steps %s, want %s: %+v", c.nodes[i].name, got, want, byNode[c.nodes[i].name])
		}
	}
	if failed != 1 || len(byNode) != 3 {
		t.Errorf("%d failed: %+v", failed, steps)
	}
	c.kill(1)
	c.await("its death is seen", func() bool { return c.states(0)["node-1"] == "down" })
	steps, failed, _ = examined(t, c.client, "http://"+c.nodes[0].client, "")
	var wrongs []string
	for _, s := range steps {
		if s.Level == Wrong {
			wrongs = append(wrongs, fmt.Sprintf("%s %s %s", s.Node, s.Step, s.Text))
		}
	}
	all := strings.Join(wrongs, "\n")
	for _, want := range []string{" members node-1 is down", "node-2 registry "} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q among what is wrong:\n%s", want, all)
		}
	}
	if failed != len(wrongs) || !strings.Contains(named(steps), "clocks") || !strings.Contains(named(steps), "ports") {
		t.Errorf("%d failed: %s", failed, all)
	}
}

// Clocks are compared by when question and answer were sent and came.
func TestClocksAreCompared(t *testing.T) {
	t.Parallel()
	began := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	member := func(name string, ahead, out, back time.Duration) consulted {
		asked := began
		look := 5 * time.Second
		return consulted{
			Examination: cluster.Examination{Member: &membership.Member{Name: name}, Asked: asked, Came: asked.Add(out + look + back)},
			said:        opinion{Began: asked.Add(out + ahead), Ended: asked.Add(out + look + ahead)},
		}
	}
	for name, c := range map[string]struct {
		ahead, out, back time.Duration
		level, text      string
	}{
		"right":            {0, time.Millisecond, time.Millisecond, Fine, "of 1 other members"},
		"a slow way there": {0, 4 * time.Second, 0, Fine, ""},
		"a bit ahead":      {time.Second, 0, 0, Fine, "within 1s"},
		"ahead":            {10 * time.Second, 0, 0, Doubtful, "node-1 is 10s ahead"},
		"far behind":       {-3 * time.Minute, time.Second, time.Second, Wrong, "node-1 is 3m0s behind"},
	} {
		var got Finding
		clocks([]consulted{member("node-1", c.ahead, c.out, c.back)}, func(_, _ string, f Finding) { got = f })
		if got.Level != c.level || !strings.Contains(got.Text, c.text) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// A member may say anything: what it says is bounded, is shown under its own name and
// holds nothing that a terminal obeys.
func TestDoctorBelievesNoForm(t *testing.T) {
	t.Parallel()
	var d doctor
	one := step{Node: "node-1", Level: "great", Text: "\x1b[2J" + strings.Repeat("x", 1<<20)}
	found, err := json.Marshal(opinion{Steps: append([]step{one}, make([]step, 5000)...)})
	if err != nil {
		t.Fatal(err)
	}
	m := &membership.Member{Name: "node-2"}
	got := d.read([]cluster.Examination{{Member: m, Found: found}, {Member: m, Found: []byte(`{"steps": 7}`)}, {Member: m, Err: context.Canceled}})
	if len(got) != 3 || got[1].Err == nil || got[2].Err == nil || len(got[0].said.Steps) != maxSteps {
		t.Fatalf("%d", len(got))
	}
	if s := got[0].said.Steps[0]; s.Node != "node-2" || s.Level != Doubtful || len(s.Text) > 1<<10 || strings.ContainsRune(s.Text, '\x1b') {
		t.Errorf("%+v", s)
	}
}
