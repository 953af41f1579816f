package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"oci-proxy/transfer/upstreamtest"
)

// doctor asks the node that runs here, prints each step below the member that made it, and
// fails if one failed.
func TestDoctorOfARunningNode(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	up.PutImage("team/app", "v1", []byte("a layer"))
	file, addr := nodeConfig(t, up, t.TempDir(), "auth: {username: u, password: "+livePassword+"}")
	p := start(t, addr, "serve", "-c", file)
	for args, want := range map[string]struct {
		status   int
		out, err string
	}{
		"":                                {exitDone, "oci-proxy:\n  ok       health|  ok       registry  " + up.Host() + ": answers|nothing failed", ""},
		up.Host():                         {exitDone, "  ok       token|nothing failed", ""},
		"-o json " + up.Host():            {exitDone, `{"node":"oci-proxy","about":"` + up.Host() + `","step":"dns","level":"ok"|"done":true`, ""},
		"team/app:v1 -o json":             {exitDone, `"step":"storage"|{"done":true,"failed":0,"warnings":0}`, ""},
		"team/app:none":                   {exitFailed, "  error    head      |what to do: look at the name and the tag", "1 steps failed"},
		"a/b:c d":                         {exitUsage, "", "usage: oci-proxy doctor"},
		"-o yaml":                         {exitUsage, "", "there is json alone"},
		"UPPER/x:1":                       {exitFailed, "", "it answered 400"},
		"-addr http://" + addr + " other": {exitFailed, "  error    head", "1 steps failed"},
	} {
		got := call(t.Context(), append([]string{"doctor", "-c", file, "-addr", addr}, strings.Fields(args)...)...)
		if got.status != want.status || strings.Contains(got.out+got.err, livePassword) {
			t.Errorf("%s: %+v", args, got)
		}
		wantIn(t, got.out, strings.Split(want.out, "|")...)
		wantIn(t, got.err, want.err)
	}
	p.end(syscall.SIGTERM)
}

// Each line fits, and each member has a heading.
func TestDoctorFits(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		out := json.NewEncoder(w)
		for _, node := range []string{"node-1", "node-2", ""} {
			for _, what := range []string{"dns", "registry"} {
				_ = out.Encode(map[string]any{"node": node, "about": "a.io", "step": what, "level": "warning", "text": strings.Repeat("many words ", 30), "advice": strings.Repeat("do this ", 30), "took_ms": 7})
			}
		}
		_, _ = io.WriteString(w, `{"done":true,"warnings":6}`)
	}))
	defer srv.Close()
	got := call(t.Context(), "doctor", "-addr", srv.URL)
	for line := range strings.Lines(got.out) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > statusWidth {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if got.status != exitDone || !strings.HasSuffix(got.out, "nothing failed; warnings: 6\n") {
		t.Errorf("%+v", got)
	}
	for _, heading := range []string{"node-1:\n", "node-2:\n", "the cluster:\n"} {
		if strings.Count(got.out, heading) != 1 {
			t.Errorf("%q in\n%s", heading, got.out)
		}
	}
}

// An answer that breaks off is a failure: steps may be missing.
func TestDoctorThatBreaksOff(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"node":"node-1","step":"dns","level":"ok","text":"fine"}`)
	}))
	defer srv.Close()
	if got := call(t.Context(), "doctor", "-addr", srv.URL); got.status != exitFailed || !strings.Contains(got.err, "reading the answer") {
		t.Errorf("%+v", got)
	}
}
