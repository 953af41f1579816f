package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What setup prints, shows, writes and takes back, on a machine below a folder.
func TestSetup(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	daemon := filepath.Join(root, "etc/docker/daemon.json")
	if err := os.MkdirAll(filepath.Dir(daemon), 0o750); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(daemon, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"debug": true}`)
	for _, step := range []struct {
		args   string
		status int
		says   string
		holds  string // what daemon.json is then
	}{
		{"docker -proxy http://p.example:1", exitDone, "=== merge into /etc/docker/daemon.json", `{"debug": true}`},
		{"docker -proxy p.example:1 -n -root " + root, exitDone, "nothing has been changed (-n): 2 files", `{"debug": true}`},
		{"-proxy http://p.example:1 docker -write -root " + root, exitDone, "then run: systemctl reload docker", `{"debug": true, "registry-mirrors": ["http://p.example:1"], "insecure-registries": ["p.example:1"]}`},
		{"docker -proxy http://p.example:1 -write -root " + root, exitDone, "nothing to change", `{"debug": true, "registry-mirrors": ["http://p.example:1"], "insecure-registries": ["p.example:1"]}`},
		{"docker -proxy https://p.example -registries ghcr.io -write -root " + root, exitDone, "files written", `{"debug": true}`},
		{"docker -undo -n -root " + root, exitDone, "nothing has been changed (-n): 1 files", `{"debug": true}`},
		{"docker -undo -root " + root, exitDone, "1 files are without", `{"debug": true}`},
		{"docker -undo -root " + root, exitDone, "nothing to undo", `{"debug": true}`},
		{"", exitUsage, "CLIENT is one of docker", `{"debug": true}`},
		{"none", exitUsage, "no such client", `{"debug": true}`},
		{"docker -proxy http://u:p@p.example", exitUsage, "takes no login", `{"debug": true}`},
		{"docker -proxy http://p -registries a;b", exitUsage, "no host[:port]", `{"debug": true}`},
		{"docker -proxy http://p -ca " + daemon, exitFailed, "no certificate", `{"debug": true}`},
		{"docker -proxy http://p -write -root " + daemon, exitFailed, "is not a folder", `{"debug": true}`},
	} {
		out, status := setupSays(t, step.args)
		text, err := os.ReadFile(daemon)
		if status != step.status || !strings.Contains(out, step.says) || err != nil || string(text) != step.holds {
			t.Errorf("setup %s: status %d, %v, daemon.json is %s\n%s", step.args, status, err, text, out)
		}
	}
	write("{ // mine\n}")
	if out, status := setupSays(t, "docker -proxy http://p -write -root "+root); status != exitFailed || !strings.Contains(out, `"registry-mirrors": ["http://p"]`) {
		t.Errorf("a daemon.json that is not JSON: status %d\n%s", status, out)
	}
}

// A record of files that somebody has removed is no obstacle: they are written again, and -undo clears it.
func TestSetupOfFilesThatAreGone(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	own := filepath.Join(root, "etc/containers/registries.conf.d/oci-proxy.conf")
	for _, step := range []struct {
		args, says string
		recorded   bool
	}{
		{"podman -proxy http://p.example:1 -write", "1 files written", true},
		{"podman -proxy http://p.example:1 -write", "1 files written", true},
		{"podman -undo -n", "nothing to undo", true},
		{"podman -undo", "nothing to undo", false},
		{"podman -undo", "nothing to undo", false},
	} {
		if out, status := setupSays(t, step.args+" -root "+root); status != exitDone || !strings.Contains(out, step.says) {
			t.Errorf("%s: status %d\n%s", step.args, status, out)
		}
		if _, err := os.Stat(filepath.Join(root, "etc/containers/oci-proxy-setup")); step.recorded != (err == nil) {
			t.Errorf("%s: the record: %v", step.args, err)
		}
		_ = os.Remove(own) // if it is there
	}
}

// Without -proxy it is the node of the config, by base_url or else by its own address.
func TestSetupKnowsItsOwnNode(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"port: 7001": "k3s through http://127.0.0.1:7001", "base_url: https://p.example/": "k3s through https://p.example\n",
		"auth: {username: u, password: s3cret}": "The proxy asks for a login",
	} {
		file := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, status := setupSays(t, "k3s -c "+file); status != exitDone || !strings.Contains(out, says) || strings.Contains(out, "s3cret") {
			t.Errorf("%s: status %d\n%s", text, status, out)
		}
	}
}

// setupSays runs setup, and returns what it prints.
func setupSays(t *testing.T, args string) (string, int) {
	t.Helper()
	var out strings.Builder
	status := run(t.Context(), append([]string{"setup"}, strings.Fields(args)...), streams{out: &out, err: &out})
	return out.String(), status
}
