package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"oci-proxy/transfer/upstreamtest"
)

func TestExitStatusAndOutput(t *testing.T) {
	t.Parallel()
	good := configFile(t, "port: 5000\n")
	bad := configFile(t, "port: 99999\nlog_leve: info\nauth: {username: u}\n")
	for _, c := range []struct {
		args     string
		status   int
		out, err string // what must be in them, separated by |
	}{
		{"-h", 0, "usage: oci-proxy|serve|demo|check|status|leave|forget|health|version", ""},
		{"--help", 0, "usage: oci-proxy", ""},
		{"help", 0, "usage: oci-proxy", ""},
		{"serve -h", 0, "usage: oci-proxy serve|-port|-c file", ""},
		{"check -h", 0, "usage: oci-proxy check|-c file", ""},
		{"health -h", 0, "usage: oci-proxy health|-addr host:port", ""},
		{"demo -h", 0, "usage: oci-proxy demo|-once|-port", ""},
		{"demo -port 65534", 2, "", "-port 65534"},
		{"demo extra", 2, "", `unexpected argument "extra"`},
		{"status -h", 0, "usage: oci-proxy status|-addr host:port|-c file", ""},
		{"status -addr 127.0.0.1:1", 1, "", "asking 127.0.0.1:1 for its cluster"},
		{"leave -addr 127.0.0.1:1", 1, "", "asking 127.0.0.1:1 to leave"},
		{"status -c " + bad, 2, "", "log_level"},
		{"version -h", 0, "usage: oci-proxy version|version", ""},
		{"nonsense", 2, "", `unknown command "nonsense"|usage: oci-proxy`},
		{"-nonsense", 2, "", "-nonsense"},
		{"serve -port x", 2, "", "-port"},
		{"serve -port 65536 -c " + good, 2, "", "-port 65536 is not a port"},
		{"serve -port -1 -c " + good, 2, "", "-port -1 is not a port"},
		{"serve extra", 2, "", `unexpected argument "extra"`},
		{"version extra", 2, "", `unexpected argument "extra"`},
		{"check -c " + good, 0, "the config is valid|port 5000", ""},
		{"check -c " + bad, 2, "", ":1:|99999|:2:|log_level|:3:|auth.username"},
		{"serve -c " + bad, 2, "", ":1:|99999|:2:|log_level|:3:|auth.username"},
		{"health -c " + bad, 2, "", ":1:|99999"},
		{"-c " + bad, 2, "", "log_level"},
		{"check -c " + bad + ".none", 2, "", "no such file"},
		{"health -addr 127.0.0.1:1", 1, "", "127.0.0.1:1"},
		{"version", 0, "oci-proxy |commit |" + runtime.Version(), ""},
	} {
		t.Run(c.args, func(t *testing.T) {
			t.Parallel()
			got := call(t.Context(), strings.Fields(c.args)...)
			if got.status != c.status {
				t.Errorf("status %d, want %d", got.status, c.status)
			}
			wantIn(t, got.out, strings.Split(c.out, "|")...)
			wantIn(t, got.err, strings.Split(c.err, "|")...)
			if c.out == "" && got.out != "" || c.err == "" && got.err != "" {
				t.Errorf("out %q, err %q", got.out, got.err)
			}
		})
	}
}

func TestEmptyArgumentIsBadUsage(t *testing.T) {
	t.Parallel()
	if got := call(t.Context(), ""); got.status != exitUsage {
		t.Errorf("%+v", got)
	}
}

func TestPortInUseIsAFailure(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	file := configFile(t, "address: 127.0.0.1\ndefaults: {cache_dir: %q}\n", t.TempDir())
	_, port, _ := net.SplitHostPort(l.Addr().String())
	got := call(t.Context(), "serve", "-c", file, "-port", port)
	if got.status != exitFailed {
		t.Errorf("status %d", got.status)
	}
	wantIn(t, got.err, "listening on 127.0.0.1:"+port, "in use")
}

func TestPrivilegedPortSaysSo(t *testing.T) {
	t.Parallel()
	_, err := listen("127.0.0.1:80", func(string, string) (net.Listener, error) {
		return nil, &net.OpError{Op: "listen", Err: os.NewSyscallError("bind", syscall.EACCES)}
	})
	if err == nil {
		t.Fatal("no error")
	}
	wantIn(t, err.Error(), "127.0.0.1:80", "needs privileges", "-port")
}

// check prints errors, but never a secret.
func TestSecretsAreNotPrinted(t *testing.T) {
	t.Parallel()
	const canary = "canary-e81b"
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(canary+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"auth: {username: u, password: %[1]s}",
		"auth: {username: u, password: %[1]s}\nport: x",
		"auth: {password: %[1]s}",
		"auth: {username: u, password: [%[1]s]}",
		"auth: {username: u, password: %[1]s, password_file: %[2]q}",
		"registries: {a.example.com: {auth: {username: u, password_file: %[2]q}, nonsense: 1}}",
		"registries: {a.example.com: {auth: {password: %[1]s}, upstream_proxy: \"http://u:%[1]s@127.0.0.1:1\"}}",
		"defaults: {upstream_proxy: \"http://u:%[1]s@:x\"}",
		"defaults: {upstream_proxy: \"ftp://u:%[1]s@h\"}",
	} {
		file := configFile(t, text, canary, password)
		got := call(t.Context(), "check", "-c", file)
		if strings.Contains(got.out+got.err, canary) {
			t.Errorf("%s: %+v", text, got)
		}
	}
}

func TestHealthAsksARunningNode(t *testing.T) {
	t.Parallel()
	up := upstreamtest.New(t)
	file, addr := nodeConfig(t, up, t.TempDir(), "auth: {username: u, password: p}")
	p := start(t, addr, "serve", "-c", file)
	for _, args := range [][]string{{"health", "-c", file}, {"health", "-addr", addr}} {
		if got := call(t.Context(), args...); got.status != exitDone || got.out != "{\"status\":\"healthy\"}\n" {
			t.Errorf("%v: %+v", args, got)
		}
	}
	p.end(syscall.SIGTERM)
	if got := call(t.Context(), "health", "-c", file); got.status != exitFailed || !strings.Contains(got.err, addr) {
		t.Errorf("%+v", got)
	}
}

func TestHealthOfSomethingElseThanANode(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	got := call(t.Context(), "health", "-addr", strings.TrimPrefix(srv.URL, "http://"))
	if got.status != exitFailed {
		t.Errorf("%+v", got)
	}
	wantIn(t, got.err, "404")
}

// What is doubtful is told by check and at start, in the same words, and keeps neither
// from succeeding.
func TestWarningsAreToldAndStopNothing(t *testing.T) {
	t.Parallel()
	file, addr := nodeConfig(t, upstreamtest.New(t), t.TempDir(), "trusted_proxies: [0.0.0.0/0]\nlog_format: json\nauth: {username: u, password: $canary_PASS}")
	want := []string{
		file + ":6:19: trusted_proxies: warning: holds 0.0.0.0/0: any client there can forge its address",
		file + ":8:31: auth.password: warning: the value looks like a variable",
	}
	got := call(t.Context(), "check", "-c", file)
	if got.status != exitDone || strings.Contains(got.err, "canary") {
		t.Errorf("%+v", got)
	}
	wantIn(t, got.err, want...)
	wantIn(t, got.out, "the config is valid", "2 warnings", "not looked at: ", "check -live looks")
	p := start(t, addr, "serve", "-c", file)
	wantIn(t, p.log.String(), append(want, "config warning")...)
	if got := call(t.Context(), "health", "-c", file); got.status != exitDone || got.err != "" {
		t.Errorf("%+v", got)
	}
	if p.end(syscall.SIGTERM) != exitDone || strings.Contains(p.log.String(), "canary") {
		t.Errorf("log:\n%s", p.log.String())
	}
	bad := configFile(t, "port: x\ndefaults: {cache_max_size: 10}\n")
	got = call(t.Context(), "check", "-c", bad)
	if got.status != exitUsage {
		t.Errorf("%+v", got)
	}
	wantIn(t, got.err, ":1:7: port: ", `:2:28: defaults.cache_max_size: warning: "10" means 10 bytes`)
}

// A node that does not know the name by which it is called is asked by its address: the
// command is no browser that another site could have led there.
func TestStatusByANameThatTheNodeDoesNotKnow(t *testing.T) {
	t.Parallel()
	var hosts []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hosts = append(hosts, r.Host)
		if strings.HasPrefix(r.Host, "localhost:") {
			w.WriteHeader(http.StatusMisdirectedRequest)
			return
		}
		if r.URL.Path != "/_/cluster" {
			http.NotFound(w, r) // an earlier version
			return
		}
		_, _ = w.Write([]byte(`{"members":[{"name":"seven","state":"active"}]}`))
	}))
	defer srv.Close()
	at := strings.Replace(strings.TrimPrefix(srv.URL, "http://"), "127.0.0.1", "localhost", 1)
	got := call(t.Context(), "status", "-addr", at)
	if got.status != exitDone || !strings.Contains(got.out, "seven") || len(hosts) != 4 || hosts[1] != strings.TrimPrefix(srv.URL, "http://") || hosts[3] != hosts[1] {
		t.Errorf("%+v, asked as %q", got, hosts)
	}
}

func TestHostOfANodeOnThisMachine(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "127.0.0.1", "127.0.0.2": "127.0.0.2", "node.example.com": "node.example.com",
	} {
		if got := host(address); got != want {
			t.Errorf("%q: %s, want %s", address, got, want)
		}
	}
}

func TestFlagChoosesThePort(t *testing.T) {
	t.Parallel()
	_, addr := nodeConfig(t, upstreamtest.New(t), t.TempDir(), "")
	_, port, _ := net.SplitHostPort(addr)
	file := configFile(t, "port: 1\naddress: 127.0.0.1\nlog_format: json\ndefaults: {cache_dir: %q}", t.TempDir())
	p := start(t, addr, "-port", port, "-c", file)
	if status := p.end(syscall.SIGINT); status != exitDone {
		t.Errorf("status %d", status)
	}
	wantIn(t, p.log.String(), fmt.Sprintf("%q:%q", "address", addr))
}
